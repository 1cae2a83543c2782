"""Exploratory preference optimisation, XPO (Xie et al. 2024, arXiv 2405.21046)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Opponent, Paper, Scores, SettingError, Term, option
from xpo_zoo.rollouts.online_dpo import LOSS_TYPES, metrics_of_pairs, preference_loss


@dataclass
class ExploratoryConfig(Config):
    """Settings of exploratory preference optimisation."""

    alpha: float = option(1e-5, "weight of the exploration bonus; 0 is online DPO against the reference")
    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it")
    loss_type: str = option("sigmoid", "of a pair: 'sigmoid' (DPO), or 'ipo' (squares, of sums over tokens)")

    def __post_init__(self) -> None:
        self.require(self.alpha >= 0, f"alpha must not be negative, not {self.alpha}")
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            self.loss_type in LOSS_TYPES, f"loss_type must be one of {', '.join(LOSS_TYPES)}, not {self.loss_type!r}"
        )


class Exploratory(Algorithm[ExploratoryConfig]):
    """DPO on a sample of the policy and one of the reference, with optimism towards what the reference does not say.

    The bonus makes what the reference said less likely, whether it was preferred or not. That looks like a mistake and
    is the method: probability moves to answers nobody has seen judged. Of two that are as good as each other the
    policy's counts as preferred.
    """

    name = "exploratory"
    summary = "online DPO against samples of the reference, with a bonus for answers that the reference does not give"
    paper = Paper(
        "Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF",
        "https://arxiv.org/abs/2405.21046",
        2024,
    )
    equation = (
        "L = mean over prompts of -log sigmoid(beta (R_w - R_l)) + alpha log pi(y'|x),  "
        "R = log pi(y|x) - log ref(y|x), sums over tokens,  w, l the preferred and the other of y ~ pi and y' ~ ref"
    )
    data = "rollouts"
    needs = Needs(
        reference=True, samples=1, opponent=Opponent(1, mixture=1.0, trained=True), wins="others", ratios=False
    )
    Config = ExploratoryConfig
    metrics = {
        **PAIR_METRICS,
        "wins": "share of prompts whose sample of the policy is preferred to that of the reference",
        "kl": "mean log-ratio of the policy's samples to the reference, summed over tokens",
        "logps/opponent": "mean log-probability of the reference's samples under the policy; the bonus lowers it",
        "val/model_contain_eos_token": "share of the policy's samples that came to their end",
        "val/ref_contain_eos_token": "share of the reference's samples that came to their end",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {
        "xpo": {
            "policy_on_policy": "completion",
            "policy_on_ref": "opponent",
            "ref_on_policy": "ref_completion",
            "ref_on_ref": "ref_opponent",
            "policy_sample_wins": "score_completion",
            "dpo": "loss/dpo",
            "optimism": "loss/optimism",
        }
    }

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config, logps = self.config, policy.sum()
        samples, opponents = batch.where("completion"), batch.where("opponent")
        if not torch.equal(batch.group[samples], batch.group[opponents]):
            raise SettingError(
                "exploratory compares one sample of the policy with one of the reference: --num_generations must be 1"
            )
        logratios = logps - reference.sum()
        wins = batch.scores[samples] >= batch.scores[opponents]
        chosen, rejected = torch.where(wins, samples, opponents), torch.where(wins, opponents, samples)
        losses = preference_loss(logratios[chosen] - logratios[rejected], config.beta, config.loss_type)
        terms = [
            Term(losses, "completion", "completion", name="dpo"),
            Term(logps[opponents], "completion", "opponent", weight=config.alpha, name="optimism"),
        ]
        ended = logps.new_tensor([float(one.finished) for group in batch.groups for one in group.completions])
        metrics = metrics_of_pairs(batch, chosen, rejected, config.beta * logratios, logps)
        metrics["wins"] = wins.to(logps.dtype)
        metrics["kl"] = logratios[samples].detach()
        metrics["logps/opponent"] = logps[opponents].detach()
        metrics["val/model_contain_eos_token"] = ended[samples]
        metrics["val/ref_contain_eos_token"] = ended[opponents]
        return Loss(terms, metrics)
