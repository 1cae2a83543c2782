"""Sample completions: from which distribution, with which random numbers, and by which engine.

Every sample has its own stream of random numbers, drawn from (seed, stream, row, sample). What is sampled therefore
does not depend on how prompts are spread over batches and ranks, nor on what was sampled before a run was resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from xpo.api.groups import Completion, Group
from xpo.errors import ModelError, SettingError
from xpo.feedback.decode import Draw, Player, decode
from xpo.feedback.mixing import geometric_mixture
from xpo.models.reference import Reference

#: Prompts times samples decoded at once. Samples of a prompt stay together unless they alone are more.
ROWS = 256


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    With ``top_k`` or ``top_p`` samples are not drawn from what the model's log-probabilities say, so methods that
    compare the two must refuse them.

    Attributes:
        samples: completions of every prompt.
        max_tokens: longest completion, in tokens.
        temperature: logits are divided by it, before anything else.
        seed: seed of all streams.
        top_k: draw from this many of the likeliest tokens; None for all.
        top_p: draw from the fewest likeliest tokens whose share of what ``top_k`` leaves is at least this.
    """

    samples: int
    max_tokens: int
    temperature: float = 1.0
    seed: int = 0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise SettingError(f"--top_k must be at least 1, not {self.top_k}; leave it out to draw from all tokens")
        if not 0.0 < self.top_p <= 1.0:
            raise SettingError(f"--top_p must be in (0, 1], not {self.top_p}; 1 draws from all tokens")


@dataclass(frozen=True)
class Mixture:
    """What lies between a policy and its reference: every token from policy^(1 - share) * reference^share, normalised.

    Attributes:
        reference: the other end; it may share its weights with the policy.
        share: 0 is the policy, 1 the reference.
    """

    reference: Reference
    share: float


def sample(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[Group],
    sampling: Sampling,
    *,
    stream: str | Sequence[str] = "",
    mixture: Mixture | None = None,
) -> list[list[Completion]]:
    """``sampling.samples`` completions for each prompt, EOS included where the model ended by itself.

    Args:
        model: a causal language model without distributed wrapper.
        stream: further part of the seed, such as the step: one for all groups, or one for each.
        mixture: sample between the model and a reference instead.
    """
    ends = end_tokens(model, tokenizer)
    streams = [stream] * len(groups) if isinstance(stream, str) else list(stream)
    completions: list[Completion] = []
    models = [model] if mixture is None or mixture.reference.model is model else [model, mixture.reference.model]
    with _generating(models):
        for rows in _batches(list(zip(groups, streams, strict=True)), sampling.samples):
            noise = torch.stack([_uniforms(sampling, own, group.row, k) for group, own, k in rows])
            ids = _decoded(model, [group.prompt_ids for group, _, _ in rows], sampling, mixture, ends, noise)
            completions.extend(_completion(row, ends) for row in ids.tolist())
    k = sampling.samples
    return [completions[index * k : (index + 1) * k] for index in range(len(groups))]


def end_tokens(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end a completion: those of the model's generation settings and the tokenizer's EOS."""
    settings = getattr(model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    found = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    if not found:
        raise ModelError(
            "neither the tokenizer nor the model's generation settings name an EOS token; set tokenizer.eos_token"
        )
    return sorted(found)


def pick(scores: Tensor, uniforms: Tensor, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """The tokens (N,) that uniform numbers pick from the softmax of scores, cut to the likeliest and renormalised.

    Args: (N, V) scores, (N,) numbers in [0, 1).
    """
    probabilities = torch.softmax(scores, dim=-1, dtype=torch.float64)
    if top_k is not None or top_p < 1.0:
        ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
        if top_k is not None:
            ordered[:, top_k:] = 0.0
        # A token stays as long as those before it do not make up the share.
        before = ordered.cumsum(-1) - ordered
        ordered[before >= top_p * ordered.sum(-1, keepdim=True)] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    cumulative = probabilities.cumsum(-1)
    # Scaling by the total renormalises, and keeps rounding in the sum from pushing a draw past the last token.
    drawn = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, drawn, right=True).clamp_max(scores.shape[-1] - 1)[:, 0]


def _batches(groups: Sequence[tuple[Group, str]], samples: int) -> Iterator[list[tuple[Group, str, int]]]:
    """Samples to draw together, as (group, stream, number of the sample)."""
    together = max(ROWS // samples, 1)
    for start in range(0, len(groups), together):
        rows = [(group, own, k) for group, own in groups[start : start + together] for k in range(samples)]
        for cut in range(0, len(rows), ROWS):
            yield rows[cut : cut + ROWS]


def _decoded(
    model: Any,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    mixture: Mixture | None,
    ends: list[int],
    noise: Tensor,
) -> Tensor:
    """(N, T) tokens of a sample for each of N prompts."""
    share = 0.0 if mixture is None else mixture.share

    def draw(logits: Sequence[Tensor], uniforms: Tensor) -> Tensor:
        warm = [one.float() / sampling.temperature for one in logits]
        scores = warm[0] if len(warm) == 1 else geometric_mixture(warm[0], warm[1], share)
        return pick(scores, uniforms, sampling.top_k, sampling.top_p)

    players = [Player(model)] if share < 1.0 else []
    if mixture is not None and share > 0.0:
        players.append(Player(mixture.reference.model, mixture.reference.switch))
    if len(players) == 1 and players[0].cache is None:
        with players[0].switch():
            return _generate(players[0].model, prompts, draw, ends, noise)
    distinct = {tuple(ids): number for number, ids in enumerate(dict.fromkeys(map(tuple, prompts)))}
    return decode(players, list(distinct), [distinct[tuple(ids)] for ids in prompts], noise, draw, ends)


class _Draw(LogitsProcessor):  # type: ignore[misc]  # transformers is not followed by mypy
    """Leave only the token that a row's next uniform number picks, so that argmax returns it."""

    def __init__(self, draw: Draw, noise: Tensor, prompt_length: int) -> None:
        self.draw, self.noise, self.prompt_length = draw, noise, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.draw([scores], self.noise[:, input_ids.shape[1] - self.prompt_length])
        return torch.full_like(scores, -torch.inf).scatter(-1, token[:, None], 0.0)


def _generate(model: Any, prompts: Sequence[list[int]], draw: Draw, ends: list[int], noise: Tensor) -> Tensor:
    """The same by transformers, for models whose memory is their own affair."""
    width = max(map(len, prompts))
    input_ids = torch.tensor([[ends[0]] * (width - len(ids)) + ids for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=noise.shape[1],
        eos_token_id=ends,
        pad_token_id=ends[0],
        use_cache=True,
        top_k=None,
    )
    output: Tensor = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([_Draw(draw, noise.to(model.device), width)]),
    )
    return output[:, width:]


def _completion(ids: list[int], ends: Sequence[int]) -> Completion:
    length = next((index + 1 for index, token in enumerate(ids) if token in ends), None)
    return Completion(ids[: len(ids) if length is None else length], finished=length is not None)


def _uniforms(sampling: Sampling, stream: str, row: int, k: int) -> Tensor:
    key = hashlib.sha256(f"{sampling.seed}/{stream}/{row}/{k}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
    return torch.rand(sampling.max_tokens, generator=generator, dtype=torch.float64)


@contextmanager
def _generating(models: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Evaluation mode, which also lets a checkpointed model use its key-value cache, and no gradient.

    A model's own generation settings would fill in what ours leave open, such as a repetition penalty: they are put
    aside, since samples must come from the distribution whose log-probabilities are trained.
    """
    training = [model.training for model in models]
    modules = [module for model in models for module in model.modules() if "generation_config" in vars(module)]
    own = [module.generation_config for module in modules]
    for model in models:
        model.eval()
    try:
        for module in modules:
            module.generation_config = GenerationConfig()
        with torch.no_grad():
            yield
    finally:
        for module, settings in zip(modules, own, strict=True):
            module.generation_config = settings
        for model, mode in zip(models, training, strict=True):
            model.train(mode)
