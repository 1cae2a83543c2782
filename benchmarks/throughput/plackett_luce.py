"""A listwise method as a user would bring it: Plackett-Luce on implicit rewards (Rafailov et al. 2023, app. A.3).

With two completions it is DPO. The benchmark trains it for lists of any length.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, hookimpl, option

#: Reward in the place of a completion that a shorter list does not have; finite, so that gradients are.
ABSENT = -1e30


def plackett_luce_loss(rewards: Tensor) -> Tensor:
    """-sum over ranks k of (r_k - log sum over j >= k of exp r_j), eq. 20 of the paper.

    Args: (G, K) rewards, the best completion first and ABSENT behind the last of a shorter list.
    Returns: (G,) losses.
    """
    rest = rewards.flip(-1).logcumsumexp(-1).flip(-1)  # of each rank and all below it
    return (rest - rewards).masked_fill(rewards == ABSENT, 0.0).sum(-1)


@dataclass
class PlackettLuceConfig(Config):
    """Settings of the method."""

    beta: float = option(0.1, "strength of the tie to the reference")


class PlackettLuce(Algorithm[PlackettLuceConfig]):
    """The reward of a completion is its log-ratio, and the order of a list is drawn best first."""

    name = "plackett_luce_benchmark"
    summary = "likelihood of the whole order of a list, on log-ratios to a reference"
    paper = Paper("Direct Preference Optimization", "https://arxiv.org/abs/2305.18290", 2023)
    equation = "L = mean over lists of -sum_k (r_k - log sum_{j>=k} exp r_j),  r = beta log pi / ref"
    data = "lists"
    needs = Needs(reference=True)
    Config = PlackettLuceConfig

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = batch.lists(self.config.beta * (policy.sum() - reference.sum()), fill=ABSENT)
        order = batch.lists(batch.scores, fill=-float("inf")).argsort(-1, descending=True)
        return Loss([Term(plackett_luce_loss(rewards.gather(-1, order)), "group")])


@hookimpl
def xpo_algorithms() -> list[type[Algorithm[PlackettLuceConfig]]]:
    return [PlackettLuce]
