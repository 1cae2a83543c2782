"""What sampling takes, and makes: counted on every rank, and told of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class SamplingCost:
    """What sampling took on this rank, and made.

    Attributes:
        seconds: spent on sampling, judging and scoring under the policy that sampled.
        sampling_seconds: of them, on sampling alone.
        tokens: sampled.
        prompts: that were sampled for.
        dropped: prompts that had nothing to learn from: no verdict, or samples that are all as good as each other.
    """

    seconds: float = 0.0
    sampling_seconds: float = 0.0
    tokens: int = 0
    prompts: int = 0
    dropped: int = 0


def of_all_ranks(costs: Sequence[SamplingCost]) -> dict[str, float]:
    """The record's numbers from the costs of all ranks: these work side by side, so times are those of the slowest."""
    seconds = max(cost.sampling_seconds for cost in costs)
    tokens = sum(cost.tokens for cost in costs)
    return {
        "prompts": sum(cost.prompts for cost in costs),
        "dropped": sum(cost.dropped for cost in costs),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "judging_seconds": max(cost.seconds - cost.sampling_seconds for cost in costs),
    }
