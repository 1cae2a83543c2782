"""Plackett-Luce reward model (Luce 1959; Plackett 1975)."""

from __future__ import annotations

from collections.abc import Sequence

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term
from xpo_zoo.lists.dpo_pl import plackett_luce_loss
from xpo_zoo.logged import ORDER_METRICS, READING_METRICS, loss_of_readings, rewards_of_lists
from xpo_zoo.ranking import ranks, scored, tied


class PlackettLuce(Algorithm[Config]):
    """The best of a list is chosen from all, the second from the others, and so on, each by a softmax of rewards.

    Completions with equal scores rank in the order of the data.
    """

    name = "plackett_luce"
    summary = "reward model: likelihood of a whole ranking"
    paper = Paper("The Analysis of Permutations", "https://doi.org/10.2307/2346567", 1975)
    equation = "L = mean over prompts of -sum over k < K of log [ e^r_(k) / sum over j >= k of e^r_(j) ]"
    data = "lists"
    model = "reward"
    needs = Needs(scores=True)
    metrics = {**ORDER_METRICS, **READING_METRICS}
    training = {"learning_rate": 1e-5, "num_train_epochs": 1}
    lora_training = {"learning_rate": 1e-4, "num_train_epochs": 1}
    raises = ("best",)
    lowers = ("worst",)
    golden = {"rm_plackett_luce": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.rewards is not None
        scores, real = batch.lists(batch.scores), batch.slots[1]
        losses = plackett_luce_loss(batch.lists(policy.rewards), ranks(scores, real), real)
        losses = losses.masked_fill(tied(scores, real), 0.0)
        metrics = rewards_of_lists(batch, policy.rewards)
        return loss_of_readings([Term(losses, "group")], metrics, policy.rewards)
