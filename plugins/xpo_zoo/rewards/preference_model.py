"""Pairwise preference model, symmetrised (Munos et al. 2023, Nash learning from human feedback, arXiv 2312.00886)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Completion, Config, DataError, Group, Loss, Paper, Scores, Term
from xpo.api.math import softplus
from xpo_zoo.logged import READING_METRICS, loss_of_readings


def preference_logits(first: Tensor, second: Tensor) -> Tensor:
    """(f(y1, y2) - f(y2, y1)) / 2: the log-odds of y1, which turn their sign when the two change places."""
    return 0.5 * (first - second)


def preference_loss(logits: Tensor, targets: Tensor | float = 1.0) -> Tensor:
    """-t log sigmoid(z) - (1 - t) log sigmoid(-z) with (P,) logits z and probabilities t that y1 is preferred."""
    return targets * softplus(-logits) + (1.0 - targets) * softplus(logits)


def joined(first: Completion, second: Completion, role: str) -> Completion:
    """Two completions of a prompt as one, the way the model reads them; the end of the first sets them apart."""
    return Completion([*first.ids, *second.ids], role, finished=first.finished and second.finished)


class PreferenceModel(Algorithm[Config]):
    """Reads both completions at once, in both orders, so preferences need not come from one reward for each.

    A column ``target`` of the data is the probability that the chosen completion is preferred; 1 without it.
    """

    name = "preference_model"
    summary = "preference model: cross-entropy on the log-odds of two completions read together, in both orders"
    paper = Paper("Nash Learning from Human Feedback", "https://arxiv.org/abs/2312.00886", 2023)
    equation = "L = mean over pairs of BCE(sigmoid((f(x, y_w, y_l) - f(x, y_l, y_w)) / 2), target)"
    data = "pairs"
    columns = ("target",)
    model = "preference"
    metrics = {
        "p_a": "mean probability given to the chosen completion",
        "accuracy": "share of pairs whose likelier completion is the one the target favours (strictly)",
        **READING_METRICS,
    }
    training = {"learning_rate": 1e-5, "num_train_epochs": 1}
    lora_training = {"learning_rate": 1e-4, "num_train_epochs": 1}
    raises = ("chosen_first",)
    lowers = ("rejected_first",)
    golden = {"preference_model": {"logit_ab": "chosen_first", "logit_ba": "rejected_first"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Put the two completions of a row behind each other, once in either order."""
        return [self._in_both_orders(group) for group in groups]

    def _in_both_orders(self, group: Group) -> Group:
        target = group.columns.get("target", 1.0)
        if not 0.0 <= target <= 1.0:
            raise DataError(f"row {group.row}: the column target holds {target}; it is a probability, from 0 to 1")
        ((chosen, rejected),) = ((group.completions[a], group.completions[b]) for a, b in group.pairs)
        both = [joined(chosen, rejected, "chosen_first"), joined(rejected, chosen, "rejected_first")]
        return replace(group, completions=both, pairs=[])

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.rewards is not None
        first, second = (policy.rewards[batch.where(role)] for role in ("chosen_first", "rejected_first"))
        logits = preference_logits(first, second)
        targets = batch.group_columns.get("target", torch.ones_like(logits)).nan_to_num(1.0)
        decided = targets != 0.5
        metrics = {
            "p_a": torch.sigmoid(logits).detach(),
            "accuracy": ((logits > 0) == (targets > 0.5))[decided].to(logits.dtype),
        }
        return loss_of_readings([Term(preference_loss(logits, targets), "group")], metrics, policy.rewards)
