"""K-wise reward model (Ouyang et al. 2022, InstructGPT, arXiv 2203.02155)."""

from __future__ import annotations

from collections.abc import Sequence

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term
from xpo_zoo.lists.all_pairs import all_pairs_loss
from xpo_zoo.logged import ORDER_METRICS, READING_METRICS, loss_of_readings, rewards_of_lists
from xpo_zoo.ranking import beats, scored


class KWise(Algorithm[Config]):
    """All pairs of a ranked list in one batch element, so that each completion is read once and counted once.

    Pairs of one prompt spread over batches overfit within an epoch. Completions with equal scores make no pair.
    """

    name = "kwise"
    summary = "reward model: logistic loss averaged over all pairs of a ranked list"
    paper = Paper(
        "Training language models to follow instructions with human feedback", "https://arxiv.org/abs/2203.02155", 2022
    )
    equation = "L = mean over prompts of mean over psi_i > psi_j of -log sigmoid(r_i - r_j)"
    data = "lists"
    model = "reward"
    needs = Needs(scores=True)
    metrics = {**ORDER_METRICS, **READING_METRICS}
    training = {"learning_rate": 1e-5, "num_train_epochs": 1}
    lora_training = {"learning_rate": 1e-4, "num_train_epochs": 1}
    raises = ("best",)
    lowers = ("worst",)
    golden = {"rm_kwise": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.rewards is not None
        better = beats(batch.lists(batch.scores), batch.slots[1])
        losses = all_pairs_loss(batch.lists(policy.rewards), better)
        metrics = rewards_of_lists(batch, policy.rewards)
        return loss_of_readings([Term(losses, "group")], metrics, policy.rewards)
