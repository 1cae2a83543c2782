"""Methods that are sound, to be broken in one place at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, nll, option
from xpo.api.math import smoothed

PAPER = Paper("None", "https://example.org", 2024)


@dataclass
class SoundConfig(Config):
    beta: float = option(0.1, "strength")
    label_smoothing: float = option(0.0, "probability that a label is flipped, in [0, 0.5)")
    imitation: float = option(0.0, "weight of an NLL on the chosen completions")
    per: str = option("token", "how that NLL is averaged: over 'token's or 'sequence's")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(0 <= self.label_smoothing < 0.5, "label_smoothing must be in [0, 0.5)")
        self.require(self.imitation >= 0, "imitation must not be negative")
        self.require(self.per in ("token", "sequence"), f"per must be 'token' or 'sequence', not {self.per!r}")


class Sound(Algorithm[Any]):
    """Pairs, with a reference, settings that only matter beside others, and a second term."""

    name = "sound"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "pairs"
    needs = Needs(reference=True)
    Config: type[Any] = SoundConfig
    metrics: Mapping[str, str] = {"margin": "mean margin", "nll": "mean NLL of the chosen completions"}
    training: Mapping[str, Any] = {"learning_rate": 1e-6}
    raises: tuple[str, ...] = ("chosen",)
    lowers: tuple[str, ...] = ("rejected",)

    def margins(self, batch: Batch, policy: Scores, reference: Scores | None) -> torch.Tensor:
        assert reference is not None
        chosen, rejected = batch.pairs(policy.sum() - reference.sum())
        return chosen - rejected

    def losses(self, margins: torch.Tensor) -> torch.Tensor:
        return smoothed(self.config.beta * margins, self.config.label_smoothing)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        margins = self.margins(batch, policy, reference)
        terms, metrics = [Term(self.losses(margins), "pair")], {"margin": margins}
        if self.config.imitation:
            term, metrics["nll"] = nll(
                batch, policy, "chosen", weight=self.config.imitation, per=self.config.per, name="imitation"
            )
            terms.append(term)
        return Loss(terms, metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        return None if self.config.imitation else float(self.losses(torch.zeros(())))


@dataclass
class KeepingConfig(Config):
    momentum: float = option(0.9, "of the running mean")

    def __post_init__(self) -> None:
        self.require(0 <= self.momentum < 1, "momentum must be in [0, 1)")


class Keeping(Algorithm[Any]):
    """Labels; a running mean; a completion of another row that is only scored, and a statistic of these."""

    name = "keeping"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "labels"
    needs = Needs(reference=True, least=2)
    Config: type[Any] = KeepingConfig
    metrics: Mapping[str, str] = {"shift": "running mean"}
    raises: tuple[str, ...] = ("desirable",)
    lowers: tuple[str, ...] = ("undesirable",)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.shift = 0.0

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        others = [replace(group.completions[0], role="other", label=None, trainable=False) for group in groups]
        return [
            replace(group, completions=[*group.completions, others[number - 1]]) for number, group in enumerate(groups)
        ]

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        self.observe(float(batch.global_mean(logratios[batch.where("other")])))
        index = batch.where("completion")
        away = logratios[index] - self.shift
        losses = torch.where(batch.labels[index], torch.sigmoid(-away), torch.sigmoid(away))
        return Loss([Term(losses, "completion", over="completion")], {"shift": away.new_tensor([self.shift])})

    def observe(self, mean: float) -> None:
        if torch.is_grad_enabled():
            self.shift = self.config.momentum * self.shift + (1 - self.config.momentum) * mean

    def state_dict(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.shift = float(state["shift"])


class Listing(Algorithm[Config]):
    """Scored lists, distributions and values, no reference."""

    name = "listing"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "lists"
    needs = Needs(vocabulary=True, values=True, scores=True)
    metrics: Mapping[str, str] = {"entropy": "mean entropy of a token"}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.values is not None
        entropies = policy.entropies()
        pull = (batch.scores - policy.values[:, 0]).square()
        tokens = -policy.logps * batch.scores[:, None] - 0.1 * entropies
        metrics = {"entropy": entropies[batch.mask]}
        return Loss([Term(pull, "completion", name="value"), Term(tokens, "token", name="policy")], metrics)


class Reading(Algorithm[Config]):
    """A reward model."""

    name = "reading"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "pairs"
    model = "reward"
    raises: tuple[str, ...] = ("chosen",)
    lowers: tuple[str, ...] = ("rejected",)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.rewards is not None
        chosen, rejected = batch.pairs(policy.rewards)
        return Loss([Term(smoothed(chosen - rejected, 0.0), "pair")])


@dataclass
class SamplingConfig(Config):
    clip: float = option(0.01, "how far the ratio may move before it is clipped")
    kl: float = option(0.1, "weight of the KL, taken off the reward")

    def __post_init__(self) -> None:
        self.require(self.clip >= 0, "clip must not be negative")


class Sampling(Algorithm[Any]):
    """Rollouts, with experience."""

    name = "sampling"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "rollouts"
    needs = Needs(reference=True, samples=3)
    Config: type[Any] = SamplingConfig

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, torch.Tensor]:
        assert reference is not None
        rewards = batch.lists(batch.scores - self.config.kl * (policy.sum() - reference.sum()))
        return {"advantages": batch.unlists(rewards - rewards.mean(-1, keepdim=True))}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        logps, advantages = policy.sum(), batch.columns["advantages"]
        old = batch.columns["old_logps"].sum(-1) if "old_logps" in batch.columns else logps.detach()
        ratio = torch.exp(logps - old)
        bounded = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        return Loss([Term(-torch.minimum(advantages * ratio, advantages * bounded), "completion")])


class Unlearning(Algorithm[Config]):
    """Forget and retain."""

    name = "unlearning"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "forget"
    raises: tuple[str, ...] = ("retain",)
    lowers: tuple[str, ...] = ("forget",)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        return Loss([nll(batch, policy, "forget", weight=-1.0)[0], nll(batch, policy, "retain", name="retain")[0]])


class Imitating(Algorithm[Config]):
    """Demonstrations."""

    name = "imitating"
    summary = "made up"
    paper = PAPER
    equation = "L = ..."
    data = "demonstrations"
    raises: tuple[str, ...] = ("completion",)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        return Loss([nll(batch, policy, "completion")[0]])


SOUND = (Sound, Keeping, Listing, Reading, Sampling, Unlearning, Imitating)
