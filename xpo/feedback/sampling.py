"""Sample completions with ``transformers`` generation.

Every sample has its own stream of random numbers, drawn from (seed, step, row, sample). What is sampled therefore does
not depend on how prompts are spread over batches and ranks, nor on what was sampled before a run was resumed.
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
from xpo.errors import ModelError

#: Prompts times samples generated at once.
ROWS = 256


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        samples: completions of every prompt.
        max_tokens: longest completion, in tokens.
        temperature: logits are divided by it; nothing else changes the distribution.
        seed: seed of all streams.
    """

    samples: int
    max_tokens: int
    temperature: float = 1.0
    seed: int = 0


def sample(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[Group],
    sampling: Sampling,
    *,
    stream: str = "",
) -> list[list[Completion]]:
    """``sampling.samples`` completions for each prompt, EOS included where the model ended by itself.

    Args:
        model: a causal language model without distributed wrapper.
        stream: further part of the seed, such as the step.
    """
    ends = end_tokens(model, tokenizer)
    rows = [(group, k) for group in groups for k in range(sampling.samples)]
    completions: list[Completion] = []
    with _generating(model):
        for start in range(0, len(rows), ROWS):
            chunk = rows[start : start + ROWS]
            noise = torch.stack([_uniforms(sampling, stream, group.row, k) for group, k in chunk])
            ids = _generate(model, [group.prompt_ids for group, _ in chunk], sampling, ends, noise)
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


class _Draw(LogitsProcessor):  # type: ignore[misc]  # transformers is not followed by mypy
    """Leave only the token that a row's next uniform number picks from its softmax, so that argmax returns it."""

    def __init__(self, noise: Tensor, temperature: float, prompt_length: int) -> None:
        self.noise, self.temperature, self.prompt_length = noise, temperature, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        position = input_ids.shape[1] - self.prompt_length
        probabilities = torch.softmax(scores.float() / self.temperature, dim=-1, dtype=torch.float64)
        cumulative = probabilities.cumsum(-1)
        # Scaling by the total keeps rounding in the sum from pushing a draw past the last token.
        drawn = self.noise[:, position : position + 1].to(cumulative.device) * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, drawn, right=True).clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)


def _generate(model: Any, prompts: Sequence[list[int]], sampling: Sampling, ends: list[int], noise: Tensor) -> Tensor:
    width = max(map(len, prompts))
    input_ids = torch.tensor([[ends[0]] * (width - len(ids)) + ids for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=sampling.max_tokens,
        eos_token_id=ends,
        pad_token_id=ends[0],
        use_cache=True,
        top_k=None,
    )
    output: Tensor = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([_Draw(noise, sampling.temperature, width)]),
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
def _generating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, which also lets a checkpointed model use its key-value cache, and no gradient.

    A model's own generation settings would fill in what ours leave open, such as a repetition penalty: they are put
    aside, since samples must come from the distribution whose log-probabilities are trained.
    """
    training = model.training
    own = [(module, module.generation_config) for module in model.modules() if "generation_config" in vars(module)]
    model.eval()
    try:
        for module, _ in own:
            module.generation_config = GenerationConfig()
        with torch.no_grad():
            yield
    finally:
        for module, settings in own:
            module.generation_config = settings
        model.train(training)
