"""What methods on one kind of data log alike; ``xpo.PAIR_METRICS`` is that of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from xpo import Batch, Loss, Term
from xpo_zoo.ranking import beats, ranks, tied

LABEL_METRICS: Mapping[str, str] = {
    "rewards/chosen": "mean implicit reward of the desirable completions",
    "rewards/rejected": "mean implicit reward of the undesirable completions",
    "logps/chosen": "mean log-probability of the desirable completions",
    "logps/rejected": "mean log-probability of the undesirable completions",
    "share/desirable": "share of desirable completions",
}


def rewards_of_labels(batch: Batch, rewards: Tensor, logps: Tensor) -> dict[str, Tensor]:
    """The metrics of labelled completions from the (C,) implicit reward and log-probability of each."""
    desirable = batch.labels
    return {
        "rewards/chosen": rewards[desirable],
        "rewards/rejected": rewards[~desirable],
        "logps/chosen": logps[desirable],
        "logps/rejected": logps[~desirable],
        "share/desirable": desirable.to(rewards.dtype),
    }


ORDER_METRICS: Mapping[str, str] = {
    "rewards/best": "mean reward of the best-scored completion of each list",
    "rewards/worst": "mean reward of the worst-scored one",
    "rewards/margins": "mean difference of the two",
    "rewards/accuracies": "share of pairs of a list whose better-scored completion has the higher reward (strictly)",
    "share/tied": "share of lists whose scores are all equal, so that nothing is preferred to anything",
}
LIST_METRICS: Mapping[str, str] = {
    **ORDER_METRICS,
    "logps/best": "mean log-probability of the best-scored completions",
    "logps/worst": "mean log-probability of the worst-scored ones",
}


def rewards_of_lists(batch: Batch, rewards: Tensor, logps: Tensor | None = None) -> dict[str, Tensor]:
    """The metrics of scored lists; those of best and worst leave lists out whose scores are all equal.

    Args:
        rewards: (C,) reward of each completion: a policy's implicit one, or what a reward model reads.
        logps: (C,) the sequence quantity the loss reads; None where the model has none.
    """
    scores, real = batch.lists(batch.scores), batch.slots[1]
    listed = batch.lists(rewards.detach())
    better = beats(scores, real)
    without_order = tied(scores, real)
    place = ranks(scores, real)
    first, last = place == 1, place == real.sum(-1, keepdim=True)

    def of(values: Tensor, chosen: Tensor) -> Tensor:
        return (values * chosen).sum(-1)[~without_order]

    metrics = {
        "rewards/best": of(listed, first),
        "rewards/worst": of(listed, last),
        "rewards/margins": of(listed, first) - of(listed, last),
        "rewards/accuracies": (listed[:, :, None] > listed[:, None, :])[better].to(rewards.dtype),
        "share/tied": without_order.to(rewards.dtype),
    }
    if logps is not None:
        logps = batch.lists(logps.detach())
        metrics |= {"logps/best": of(logps, first), "logps/worst": of(logps, last)}
    return metrics


READING_METRICS: Mapping[str, str] = {
    "mean_reward": "mean reward over all completions",
    "min_reward": "lowest of them",
    "max_reward": "highest of them",
}


def loss_of_readings(terms: Sequence[Term], metrics: Mapping[str, Tensor], rewards: Tensor) -> Loss:
    """The loss of a reward model, which also logs how high and how far apart its (C,) rewards are."""
    read = rewards.detach()
    return Loss(terms, {**metrics, "mean_reward": read}, lowest={"min_reward": read}, highest={"max_reward": read})
