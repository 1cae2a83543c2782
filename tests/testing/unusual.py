"""Methods that are right and not what one expects, in none of which the kit may find a fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.testing.strangers import Forgets, Labels, Lists, Pairs, Rollouts
from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Scores, Term


class Imitates(Pairs):
    """A second term of another level: single tokens, of which the equation says that they are averaged."""

    equation = "L = mean over pairs of -log sigmoid(beta (R_w - R_l)) - log pi(y_w|x) / |y_w|,  R = log pi - log ref"

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        loss = super().loss(batch, policy, reference)
        tokens = Term(-policy.logps[batch.where("chosen")], "token", "chosen", name="nll")
        return Loss([*loss.terms, tokens], loss.metrics)


class Sums(Pairs):
    """The sum of eight pairs and not their mean, in whatever micro-batches they come."""

    def losses(self, batch: Batch, margins: Tensor) -> Tensor:
        return 8.0 * super().losses(batch, margins)


class Shares(Pairs):
    """Every pair has the mean of all, which the loop adds up to the same."""

    def losses(self, batch: Batch, margins: Tensor) -> Tensor:
        losses = super().losses(batch, margins)
        return losses.mean().expand(len(losses))


class Linear(Pairs):
    """The reference moves the value and not the gradient, as the equation has it."""

    equation = "L = -beta mean over pairs of (R_w - R_l),  R = log pi(y|x) - log ref(y|x)"

    def losses(self, batch: Batch, margins: Tensor) -> Tensor:
        return -self.config.beta * margins


class Noisy(Pairs):
    """A target with noise, drawn by the row of a group."""

    def losses(self, batch: Batch, margins: Tensor) -> Tensor:
        drawn = [torch.rand((), generator=torch.Generator().manual_seed(group.row)) for group in batch.groups]
        return super().losses(batch, margins - torch.stack(drawn))


class Weighted(Pairs):
    """Weights of the policy's own, without gradient."""

    equation = "L = mean of -w log sigmoid(beta (R_w - R_l)),  w = exp(log pi(y_w|x) / |y_w|),  R = log pi - log ref"

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        loss = super().loss(batch, policy, reference)
        weights = batch.pairs(policy.mean().detach().exp())[0]
        return Loss([replace(loss.terms[0], values=weights * loss.terms[0].values)], loss.metrics)


class Regression(Labels):
    """Least squares on scores, all of which are above where a log-ratio starts."""

    equation = "L = mean of (beta R - s)^2,  R = log pi(y|x) - log ref(y|x)"
    needs = Needs(reference=True, scores=True)

    def losses(self, batch: Batch, rewards: Tensor) -> Tensor:
        return (rewards - batch.scores).square()


class Best(Lists):
    """Learns from the best of a list, and has the others left out before anything is computed."""

    equation = "L = mean over prompts of -log pi(y|x) of the best"

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        def best(group: Group) -> list[Any]:
            return [max(group.completions, key=lambda one: one.score)]  # type: ignore[arg-type,return-value]  # all have

        return [replace(group, completions=best(group)) for group in groups]

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        return Loss([Term(-policy.sum(), "completion")])


class Normalised(Lists):
    """Each list divided by its own length."""

    def losses(self, batch: Batch, logps: Tensor) -> Tensor:
        return super().losses(batch, logps) / batch.slots[1].sum(-1)


class Clipped(Rollouts):
    """Ratios of tokens, clipped, with a KL in the loss whose gradient knows the reference."""

    equation = "L = mean over tokens of -min(rho A, clip(rho) A) + beta KL,  KL = ref/pi - log(ref/pi) - 1"

    def shaped(self, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
        return batch.scores

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        old = batch.columns.get("old_logps", policy.logps.detach())
        advantages, ratio = batch.columns["advantages"][:, None], (policy.logps - old).clamp(-20, 20).exp()
        away = (reference.logps - policy.logps).clamp(-20, 20)
        tokens = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        return Loss([Term(tokens + self.config.beta * (torch.expm1(away) - away), "token")])


class Everyone(Rollouts):
    """Rewards standardised over the samples of all processes."""

    def advantages(self, batch: Batch, rewards: Tensor) -> Tensor:
        mean, deviation = batch.global_moments(rewards)
        return (rewards - mean) / (deviation + 1e-4)


class Shaped(Rollouts):
    """The reward made in the loss, cut off from the gradient."""

    experience = Algorithm.experience

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        advantages = self.advantages(batch, self.shaped(batch, policy, reference)).detach()
        return Loss([Term(-advantages * policy.sum(), "completion")])


class Holds(Forgets):
    """What is retained is held at the reference by a distance, not made likelier."""

    equation = (
        "L = mean over forget of -(2/beta) log sigmoid(-beta R) + retain mean over retain of R^2,  R = log pi - log ref"
    )

    def collate(self, groups: Any) -> Any:
        return list(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        ratios, retained = policy.sum() - reference.sum(), batch.where("retain")
        forget = Term(self.losses(ratios[batch.where("forget")]), "completion", "forget", name="forget")
        return Loss(
            [forget, Term(self.config.retain * ratios[retained].square(), "completion", "retain", name="retain")]
        )


class Rewards(Algorithm[Config]):
    """A reward model whose second term counts completions and not pairs."""

    name = "stranger"
    summary = "Bradley-Terry with rewards held near 0"
    paper = Pairs.paper
    equation = "L = mean over pairs of -log sigmoid(r_w - r_l) + 0.01 mean of r^2"
    data = "pairs"
    model = "reward"
    metrics: Mapping[str, str] = {}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.rewards is not None
        chosen, rejected = batch.pairs(policy.rewards)
        small = Term(policy.rewards.square(), "completion", weight=0.01, name="small")
        return Loss([Term(softplus(rejected - chosen), "pair"), small])


UNUSUAL: tuple[type[Algorithm[Any]], ...] = (
    *(Imitates, Sums, Shares, Linear, Noisy, Weighted, Regression, Best, Normalised),
    *(Clipped, Everyone, Shaped, Holds, Rewards),
)
