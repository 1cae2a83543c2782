"""Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import pad

from xpo import Algorithm, Batch, Config, DataError, Group, Loss, Needs, Paper, Scores, Term, nll, option
from xpo.api.math import forward_kl, softplus


def npo_loss(logratios: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log sigmoid(-beta R), eq. 3 of the paper: DPO without a winner.

    Args: (n,) log-ratios R to the reference, summed over the tokens of a completion to forget.
    Returns: (n,) losses; (2 / beta) ln 2 each where policy equals reference. The slope 2 sigmoid(beta R) fades as a
        completion is forgotten; beta -> 0 is gradient ascent.
    """
    return (2.0 / beta) * softplus(beta * logratios)


def with_retained(groups: Sequence[Group], wanted: bool, *, referenced: bool = False) -> list[Group]:
    """The groups of a step, with completions to retain only where the loss wants them.

    Raises:
        DataError: it wants them, and there is none.
    """
    there = any(one.role == "retain" for group in groups for one in group.completions)
    if wanted and groups and not there:
        raise DataError(
            "the loss holds on to rows with split 'retain', but the data has none; add some, or set "
            "--retain_nll_weight 0 to forget without them, which harms what the model says elsewhere"
        )
    made = []
    for group in groups:
        kept = [one for one in group.completions if wanted or one.role != "retain"]
        kept = [replace(one, referenced=referenced) if one.role == "retain" else one for one in kept]
        made.append(replace(group, completions=kept))
    return made


@dataclass
class NPOConfig(Config):
    """Settings of NPO."""

    beta: float = option(0.1, "strength of the tie to the reference; towards 0 it becomes gradient ascent")
    forget_weight: float = option(1.0, "weight of the loss on completions to forget")
    retain_nll_weight: float | None = option(
        None, "weight of the NLL on completions to retain; 1, or 0 with a retain_kl_weight, if not given"
    )
    retain_kl_weight: float = option(0.0, "weight of KL(ref || pi) on completions to retain, a mean over their tokens")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.forget_weight >= 0, f"forget_weight must not be negative, not {self.forget_weight}")
        self.require(self.nll_weight >= 0, f"retain_nll_weight must not be negative, not {self.retain_nll_weight}")
        self.require(self.retain_kl_weight >= 0, f"retain_kl_weight must not be negative, not {self.retain_kl_weight}")

    @property
    def nll_weight(self) -> float:
        """The weight of the NLL on completions to retain, whether it was given or not."""
        if self.retain_nll_weight is not None:
            return self.retain_nll_weight
        return 0.0 if self.retain_kl_weight else 1.0


class NPO(Algorithm[NPOConfig]):
    """Unlearning as a preference against what is to be forgotten: gradient ascent that ends."""

    name = "npo"
    summary = "unlearning with a bounded loss on completions to forget, while others are retained"
    paper = Paper("Negative Preference Optimization", "https://arxiv.org/abs/2404.05868", 2024)
    equation = (
        "L = forget_weight mean over forget of -(2/beta) log sigmoid(-beta R) + retain_nll_weight NLL(retain) "
        "+ retain_kl_weight KL(ref || pi) on retain,  R = log pi(y|x) - log ref(y|x)"
    )
    data = "forget"
    needs = Needs(reference=True)
    Config = NPOConfig
    metrics = {
        "forget_loss": "mean loss of the completions to forget, before its weight",
        "forget_excess": "the same minus (2/beta) ln 2, its value at the reference: falls from 0",
        "retain_loss": "mean NLL a token of the completions to retain",
        "retain_kl": "mean KL(ref || pi) a token of the completions to retain",
        "logratios/forget": "mean log-ratio to the reference of the completions to forget, summed over tokens",
        "logps/forget": "mean log-probability of the completions to forget",
    }
    training = {"learning_rate": 1e-5, "weight_decay": 0.01}
    lora_training = {"learning_rate": 1e-4, "weight_decay": 0.01}
    raises = ("retain",)
    lowers = ("forget",)
    golden = {"npo": {"retain_nll": "retain_loss"}}

    def __init__(self, config: NPOConfig | None = None) -> None:
        super().__init__(config)
        both = self.config.retain_kl_weight > 0
        self.needs = Needs(reference=True, vocabulary=both, reference_vocabulary=both)

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Drop what is to be retained where it has no weight; only its KL asks the reference about it."""
        kl = self.config.retain_kl_weight > 0
        return with_retained(groups, kl or self.config.nll_weight > 0, referenced=kl)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config = self.config
        forget = batch.where("forget")
        logratios = (policy.sum() - reference.sum())[forget]
        losses = npo_loss(logratios, config.beta)
        retained, items = nll(batch, policy, "retain", weight=config.nll_weight, name="retain")
        terms = [Term(losses, "completion", over="forget", weight=config.forget_weight, name="forget"), retained]
        metrics = {
            "forget_loss": losses,
            "forget_excess": losses - npo_loss(logratios.new_zeros(()), config.beta),
            "retain_loss": items,
            "logratios/forget": logratios,
            "logps/forget": policy.sum()[forget],
        }
        if config.retain_kl_weight:
            kl = retained_kl(batch, policy, reference)
            terms.append(Term(kl, "token", over="retain", weight=config.retain_kl_weight, name="retain_kl"))
            metrics["retain_kl"] = kl[batch.mask[batch.where("retain")]]
        return Loss(terms, metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        if self.config.nll_weight:
            return None
        return self.config.forget_weight * (2.0 / self.config.beta) * math.log(2.0)


def retained_kl(batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    """(n, T) KL(ref || pi) at every token of the completions to retain: of these alone, not of prompt or padding."""
    retain = batch.where("retain")
    kl = policy.at(retain).over_vocabulary(forward_kl, reference.at(retain))
    return pad(kl, (0, batch.mask.shape[1] - kl.shape[1]))
