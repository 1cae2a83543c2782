"""Self-play preference optimisation on given win rates (Wu et al. 2024, arXiv 2405.00675)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xpo import (
    PAIR_METRICS,
    Algorithm,
    Batch,
    Config,
    DataError,
    Group,
    Loss,
    Needs,
    Paper,
    Scores,
    Term,
    option,
    rewards_of_pairs,
)


def sppo_loss(logratios: Tensor, win_rates: Tensor, beta: float) -> Tensor:
    """(R - (P - 1/2) / beta)^2, one square for each completion of a pair.

    Args: (n,) log-ratios R to the previous iterate, summed over tokens, and (n,) rates P at which a completion beats
        one of the previous iterate. The paper's eta is 1 / beta.
    Returns: (n,) squared errors, ((P - 1/2) / beta)^2 each where the policy is still the previous iterate.
    """
    return (logratios - (win_rates - 0.5) / beta).square()


def sppo_win_rates(scores: Sequence[Sequence[float]]) -> Mapping[str, Any]:
    """Win rates of K samples of each prompt from scores whose differences are logits of a preference.

    Returns:
        ``matrix``: sigmoid(s_i - s_j), 1/2 on the diagonal; ``win_rate``: the mean of each row, the sample against
        itself included; ``chosen_rejected``: places of the highest and the lowest.
    """
    matrix = [[[0.5 + 0.5 * math.tanh((own - other) / 2.0) for other in row] for own in row] for row in scores]
    rates = [[sum(wins) / len(wins) for wins in one] for one in matrix]
    extremes = [[one.index(max(one)), one.index(min(one))] for one in rates]
    return {"matrix": matrix, "win_rate": rates, "chosen_rejected": extremes}


@dataclass
class SPPOConfig(Config):
    """Settings of SPPO."""

    beta: float = option(1e-3, "1 / eta: a win rate of P asks for a log-ratio of (P - 1/2) / beta nats, 500 for 1")
    hard: bool = option(False, "take win rates as 1 for chosen and 0 for rejected; the data then needs no scores")
    scale: float = option(0.5, "factor of the two squared errors; TRL's sppo_hard has 1, the authors' code 1/2")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.scale > 0, f"scale must be positive, not {self.scale}")


class SPPO(Algorithm[SPPOConfig]):
    """One round of a game against oneself: log-ratios are fitted to how far win rates are above one half.

    The reference is the previous iterate, and ``score_chosen`` and ``score_rejected`` are win rates of its samples
    against each other, themselves included. The loss is of the order of eta^2, so that the gradient is clipped at every
    step: learning rate and ``max_grad_norm`` set the size of a step together, and the log-ratios say more than the
    loss.
    """

    name = "sppo"
    summary = "least squares of log-ratios on win rates, one round of self-play at a time"
    paper = Paper(
        "Self-Play Preference Optimization for Language Model Alignment", "https://arxiv.org/abs/2405.00675", 2024
    )
    equation = (
        "L = mean over pairs of scale [(R_w - (P_w - 1/2)/beta)^2 + (R_l - (P_l - 1/2)/beta)^2],  "
        "R = log pi(y|x) - log ref(y|x),  P the win rates"
    )
    data = "pairs"
    needs = Needs(reference=True, scores=True, samples=5, wins="all")
    Config = SPPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta R of the chosen completions; it heads for P_w - 1/2",
        "rewards/rejected": "mean beta R of the rejected completions; it heads for P_l - 1/2",
        "logratios/chosen": "mean log-ratio R of the chosen completions, in nats",
        "logratios/rejected": "the same of the rejected completions",
        "eta": "1 / beta",
    }
    training = {"learning_rate": 5e-7, "max_grad_norm": 1.0}
    lora_training = {"learning_rate": 5e-6}
    golden = {
        "sppo": {
            "p_win": "score_chosen",
            "p_lose": "score_rejected",
            "logratio_chosen": "logratios/chosen",
            "logratio_rejected": "logratios/rejected",
        }
    }
    functions = {"sppo_win_rates": sppo_win_rates}

    def __init__(self, config: SPPOConfig | None = None) -> None:
        super().__init__(config)
        if self.config.hard:
            self.needs = replace(type(self).needs, scores=False)

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """The groups as they are, once their scores are seen to be win rates."""
        for group in groups if not self.config.hard else ():
            for one in group.completions:
                if one.score is None or not 0.0 <= one.score <= 1.0:
                    raise DataError(
                        f"row {group.row}: score_{one.role} is {one.score}, and sppo needs win rates between 0 and 1. "
                        "Of K samples with rewards s_1 ... s_K that of sample i is the mean over j of "
                        "sigmoid(s_i - s_j); for pairs without scores set --hard true"
                    )
        return list(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config = self.config
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(sppo_loss(logratios, self._win_rates(batch), config.beta))
        metrics = rewards_of_pairs(batch, config.beta * logratios, policy.sum())
        metrics["logratios/chosen"], metrics["logratios/rejected"] = batch.pairs(logratios)
        metrics["eta"] = logratios.new_tensor([1.0 / config.beta])
        return Loss([Term(chosen + rejected, "pair", weight=config.scale)], metrics)

    def _win_rates(self, batch: Batch) -> Tensor:
        """(C,) win rate of each completion."""
        if not self.config.hard:
            return batch.scores
        return torch.zeros_like(batch.scores).index_fill(0, batch.chosen, 1.0)

    def value_at_reference(self, batch: Batch) -> float:
        rates = self._win_rates(batch).double()
        chosen, rejected = batch.pairs(sppo_loss(torch.zeros_like(rates), rates, self.config.beta))
        return float(self.config.scale * (chosen + rejected).mean())
