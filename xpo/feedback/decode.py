"""Decode with a key-value cache: a prompt is read once, however many samples it gets, and rows that ended leave.

``generate()`` of transformers reads the prompt again for every sample and computes ended rows to the last token of the
longest, so it is only for models this loop cannot serve: those that keep a state, or prepare their inputs themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, DynamicLayer, GenerationMixin

from xpo.compat import LinearAttentionCacheLayerMixin

#: Context in which a model acts as what is decoded.
Switch = Callable[[], AbstractContextManager[None]]
#: From the logits (N, V) of every player and a uniform number for each row, the N tokens that are drawn.
Draw = Callable[[Sequence[Tensor], Tensor], Tensor]


def keeps_keys(model: Any) -> bool:
    """Whether a model remembers a text as keys and values alone, so that rows of what it remembers can be chosen."""
    model = _bare(model)
    # Whoever overrides this has inputs or a cache of a kind of its own, such as Mamba's.
    usual = GenerationMixin.prepare_inputs_for_generation
    if getattr(type(model), "prepare_inputs_for_generation", None) is not usual or model.config.is_encoder_decoder:
        return False
    if not {"past_key_values", "attention_mask"} <= set(inspect.signature(model.forward).parameters):
        return False
    layers = DynamicCache(config=model.config).layers
    return all(
        isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers
    )


class Player:
    """A model that says what comes next in a batch of texts, and remembers what it has read if it can."""

    def __init__(self, model: Any, switch: Switch = nullcontext) -> None:
        self.model, self.switch = _bare(model), switch
        self.names = set(inspect.signature(self.model.forward).parameters)
        self.cache = DynamicCache(config=self.model.config) if keeps_keys(model) else None

    def next(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (N, V) of the token behind each of N texts.

        Args: (N, T) tokens padded on the left, and 1 where there is one; all but the last columns as at the last call.
        """
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        if self.cache is not None:
            read = self.cache.get_seq_length()
            inputs |= {"input_ids": ids[:, read:], "past_key_values": self.cache, "use_cache": True}
            positions = positions[:, read:]
        if "position_ids" in self.names:
            inputs["position_ids"] = positions
        if "logits_to_keep" in self.names:
            inputs["logits_to_keep"] = 1
        with self.switch():
            logits: Tensor = self.model(**inputs).logits[:, -1]
        if self.cache is not None and self.cache.get_seq_length() != ids.shape[1]:
            self.cache = None  # It takes a cache and leaves it empty, so that it must read everything each time.
        return logits

    def choose(self, rows: Tensor) -> None:
        """Go on with some rows, in a new order; one may be chosen several times."""
        if self.cache is not None:
            self.cache.batch_select_indices(rows)


def decode(
    players: Sequence[Player],
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    noise: Tensor,
    draw: Draw,
    ends: Sequence[int],
) -> Tensor:
    """Sample one completion a row.

    Args:
        players: the models that ``draw`` asks.
        prompts: token ids of the prompts, each read once.
        rows: for each of N samples the prompt it is of.
        noise: (N, T) uniform numbers, one for each token of each sample.
        draw: picks tokens.
        ends: tokens that end a completion.

    Returns:
        (N, T) tokens; what stands behind the first end of a row, or in columns that no row reached, means nothing.
    """
    device = players[0].model.device
    width = max(map(len, prompts))
    ids = torch.tensor([[ends[0]] * (width - len(one)) + list(one) for one in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
    noise, last = noise.to(device), torch.tensor(ends, device=device)
    result = torch.full(noise.shape, ends[0], device=device)
    here = torch.arange(len(rows), device=device)  # which samples the rows of the batch are
    logits = [player.next(ids, mask) for player in players]
    chosen = torch.tensor(rows, device=device)
    logits, ids, mask = [one[chosen] for one in logits], ids[chosen], mask[chosen]
    for player in players:
        player.choose(chosen)
    ended = torch.zeros_like(here, dtype=torch.bool)
    for position in range(noise.shape[1]):
        tokens = draw(logits, noise[here, position])
        result[here, position] = tokens
        ended = ended | torch.isin(tokens, last)
        gone = int(ended.sum())
        if position + 1 == noise.shape[1] or gone == len(ended):
            break
        ids, mask = torch.cat([ids, tokens[:, None]], -1), torch.cat([mask, torch.ones_like(mask[:, :1])], -1)
        # Leaving copies the caches, which every token does anyway; a quarter of the rows is worth another time.
        if 4 * gone >= len(ended):
            stay = (~ended).nonzero()[:, 0]
            ids, mask, here, ended = ids[stay], mask[stay], here[stay], ended[stay]
            for player in players:
                player.choose(stay)
        logits = [player.next(ids, mask) for player in players]
    return result


def _bare(model: Any) -> Any:
    """The model below its adapters, which act in it all the same."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
