"""f-DPO: direct preference optimisation under other divergences (Wang et al. 2023, arXiv 2309.16240)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import bounded, softplus

DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")


def derivative(logratios: Tensor, divergence: str, alpha: float) -> Tensor:
    """f'(u) of the divergence at the ratios u = e^R, constants dropped: the reward is beta times it.

    reverse KL: log u; forward KL: -1/u; Jensen-Shannon: log(2u / (1 + u)); alpha: (1 - u^-alpha) / alpha.

    Args: log-ratios R of any shape.
    """
    if divergence == "forward_kl":
        return -torch.exp(bounded(-logratios))
    if divergence == "js":
        return math.log(2.0) - softplus(-logratios)
    if divergence == "alpha":
        return -torch.expm1(bounded(-alpha * logratios)) / alpha
    return logratios


@dataclass
class FDPOConfig(Config):
    """Settings of f-DPO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")
    divergence: str = option(
        "js",
        "what ties the policy to the reference: 'reverse_kl' (DPO), 'forward_kl', 'js' (Jensen-Shannon) or 'alpha'",
    )
    alpha: float = option(
        0.5,
        "of the alpha divergence, in (0, 1] (0.3 to 0.7): near 0 it is reverse KL, at 1 forward KL. TRL counts its "
        "f_alpha_divergence_coef the other way round since 0.29: it is 1 - alpha",
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            self.divergence in DIVERGENCES,
            f"divergence must be one of {', '.join(DIVERGENCES)}, not {self.divergence!r}",
        )
        self.require(0 < self.alpha <= 1, f"alpha must be in (0, 1], not {self.alpha}")


class FDPO(Algorithm[FDPOConfig]):
    """DPO with a divergence that forgives the policy less, or more, for putting weight on few answers."""

    name = "f_dpo"
    summary = "DPO with another f-divergence in place of the reverse KL"
    paper = Paper(
        "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
        "https://arxiv.org/abs/2309.16240",
        2023,
    )
    equation = (
        "L = mean over pairs of -log sigmoid(beta (f'(e^R_w) - f'(e^R_l))),  R = log pi(y|x) - log ref(y|x), "
        "f' of the divergence"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = FDPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta f'(pi/ref) of the chosen completions, which is the implicit reward here",
        "rewards/rejected": "the same of the rejected completions",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"f_divergence_type": "divergence"}
    accepts = {"loss_type": "sigmoid"}
    golden = {"f_dpo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config = self.config
        rewards = config.beta * derivative(policy.sum() - reference.sum(), config.divergence, config.alpha)
        chosen, rejected = batch.pairs(rewards)
        return Loss([Term(softplus(rejected - chosen), "pair")], rewards_of_pairs(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
