"""An average for a sum, a mean of the micro-batch, tokens and rows that are not their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tests.testing.mistakes.building import FREE, Mistake, with_loss, wrong
from tests.testing.strangers import Averages, Labels, Lists, Pairs, Rollouts
from xpo import Batch, Needs, Scores


def _mixed_up(self: Any, batch: Batch, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen and rejected by their place, as in a batch of all chosen before all rejected."""
    return ratios[: len(ratios) // 2], ratios[len(ratios) // 2 :]


def _over_everything(self: Any, batch: Batch, rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def _in_the_loss(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    rewards = batch.scores - self.config.beta * (policy.sum() - reference.sum()).detach()
    return -_over_everything(self, batch, rewards) * policy.sum()


def _token_mean(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    """Divided by the tokens of the micro-batch, and multiplied by its completions against the mean of the loop."""
    return -batch.columns["advantages"] * policy.sum() / batch.lengths.sum() * len(batch)


def _weigh_by_neighbour(self: Any, batch: Batch, margins: Tensor) -> Tensor:
    return Pairs.losses(self, batch, margins - margins.roll(1).detach())


def _average(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    return policy.mean() - reference.mean()


def _sum(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    return policy.sum() - reference.sum()


def _all_places(self: Any, batch: Batch, logps: Tensor) -> Tensor:
    """Places without a completion have a log-probability of 0 here, which is the best there is."""
    return -(batch.lists(batch.scores).softmax(-1) * batch.lists(logps).log_softmax(-1)).sum(-1)


def _with_prompts(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Tensor:
    """Averages over prompt and completion."""
    lengths = [len(group.prompt_ids) + len(one.ids) for group in batch.groups for one in group.completions]
    return -logsigmoid(torch.sub(*batch.pairs(policy.sum() / torch.tensor(lengths))))


def _average_of_the_rejected(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    ratios = policy.sum() - reference.sum()
    return ratios.index_copy(0, batch.rejected, (ratios / batch.lengths)[batch.rejected])


SUMS: dict[str, Mistake] = {
    "an average for a sum": (
        wrong(Pairs, ratios=_average),
        "sum or average",
        "averages log-probabilities over the tokens",
    ),
    "a sum for an average": (
        wrong(Averages, ratios=_sum),
        "sum or average",
        "adds log-probabilities up over the tokens",
    ),
    "an average of the rejected alone": (
        wrong(Pairs, ratios=_average_of_the_rejected),
        "sum or average",
        "of chosen and rejected completions one is averaged over its tokens and the other added up",
    ),
    "an average over one token more": (
        wrong(Averages, ratios=lambda s, b, p, r: (p.sum() - r.sum()) / (b.lengths + 1)),
        "sum or average",
        "divided by the length of a completion +1, and the equation has the length itself",
    ),
    "labels: an average for a sum": (
        with_loss(Labels, lambda s, b, p, r: s.losses(b, s.config.beta * (p.mean() - r.mean())), "completion"),
        "sum or average",
        "take policy.sum() for policy.mean()",
    ),
    "rollouts: an average for a sum": (
        with_loss(Rollouts, lambda s, b, p, r: s.losses(b, p.mean()), "completion"),
        "sum or average",
        "averages log-probabilities",
    ),
    "reduced to one number": (
        wrong(Pairs, losses=lambda s, b, m: Pairs.losses(s, b, m).mean()),
        "finite loss",
        "reduced to one number",
    ),
    "divided by the pairs": (
        wrong(Pairs, losses=lambda s, b, m: Pairs.losses(s, b, m) / len(m)),
        "batch split",
        "the loss is normalised by the micro-batch",
    ),
    "divided by the groups": (
        wrong(Lists, losses=lambda s, b, p: Lists.losses(s, b, p) / len(b.groups)),
        "batch split",
        "normalised by the micro-batch",
    ),
    "divided by the pairs, with a statistic declared": (
        wrong(Pairs, needs=Needs(reference=True, least=2), losses=lambda s, b, m: Pairs.losses(s, b, m) / len(m)),
        "batch split",
        "normalised by the micro-batch",
    ),
    "divided by the tokens of the micro-batch": (
        with_loss(Rollouts, _token_mean, "completion"),
        "batch split",
        "normalised by the micro-batch",
    ),
    "rollouts: advantages of the micro-batch": (
        with_loss(Rollouts, _in_the_loss, "completion"),
        "batch split",
        "normalised by the micro-batch",
    ),
    "rollouts: advantages of all prompts of a process": (
        wrong(Rollouts, advantages=_over_everything),
        "experience",
        "normalised by the micro-batch",
    ),
    "reduced to one number, in a tensor of one": (
        wrong(Pairs, losses=lambda s, b, m: Pairs.losses(s, b, m).mean().reshape(1)),
        "finite loss",
        "reduced to one number",
    ),
    "lists: places that are not there": (
        wrong(Lists, losses=_all_places),
        "batch split",
        "places of a list that are not there count",
    ),
    "lists: divided by the longest": (
        wrong(Lists, losses=lambda s, b, p: Lists.losses(s, b, p) / b.slots[1].shape[1]),
        "batch split",
        "places of a list that are not there count",
    ),
    "prompts": (
        with_loss(Pairs, _with_prompts, "pair", **FREE),
        "prompts",
        "tokens of the prompt count: with prompts that are 5 tokens longer",
    ),
    "padding": (
        with_loss(Pairs, lambda s, b, p, r: -logsigmoid(torch.sub(*b.pairs(p.logps.mean(-1)))), "pair", **FREE),
        "padding",
        "padding counts",
    ),
    "by place": (wrong(Pairs, split=_mixed_up), "row order", "depends on the order of the rows"),
    "neighbours": (wrong(Pairs, losses=_weigh_by_neighbour), "row order", "by their neighbours"),
    "first token lost": (
        wrong(Pairs, ratios=lambda s, b, p, r: (p.logps - r.logps)[:, 1:].sum(-1)),
        "every token",
        "the first token",
    ),
    "ids for a mask": (
        wrong(Pairs, ratios=lambda s, b, p, r: ((p.logps - r.logps) * (b.ids != 0)).sum(-1)),
        "every token",
        "tokens with the id 0 never get a gradient, as if they were padding",
    ),
}
