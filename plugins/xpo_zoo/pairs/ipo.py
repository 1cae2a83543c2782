"""Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs


def ipo_loss(margins: Tensor, tau: float) -> Tensor:
    """(h - 1 / (2 tau))^2, eq. 17 of the paper: the margin is fitted to a constant rather than pushed to infinity.

    Args: (P,) margins h, the difference of the log-ratios of chosen and rejected: of their sums over tokens in the
        paper, of their averages a token in practice.
    Returns: (P,) losses; 1 / (4 tau^2) each where the policy equals the reference.
    """
    return (margins - 1.0 / (2.0 * tau)).square()


@dataclass
class IPOConfig(Config):
    """Settings of IPO."""

    tau: float = option(
        0.1,
        "strength of the tie to the reference (0.01 to 1): the target margin is 1 / (2 tau) nats, a token or in sum",
    )
    length_normalize: bool = option(
        True,
        "compare averages over tokens, as the authors confirmed they do, rather than the sums of the printed equation; "
        "a tau for one does not suit the other",
    )

    def __post_init__(self) -> None:
        self.require(self.tau > 0, f"tau must be positive, not {self.tau}")


class IPO(Algorithm[IPOConfig]):
    """Least squares on the margin of log-ratios: certain preferences do not drive the policy away without bound."""

    name = "ipo"
    summary = "squared distance of the margin of log-ratios to a constant"
    paper = Paper(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        "https://arxiv.org/abs/2310.12036",
        2023,
    )
    equation = (
        "L = mean over pairs of (h - 1/(2 tau))^2,  h = R_w/|w| - R_l/|l| (or R_w - R_l),  "
        "R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = IPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean tau h of the chosen completions, h the log-ratio, averaged over tokens by default",
        "rewards/rejected": "the same of the rejected completions",
        "logps/chosen": "mean log-probability of the chosen completions, averaged over tokens by default",
        "logps/rejected": "the same of the rejected completions",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    aliases = {"beta": "tau"}
    accepts = {"loss_type": "ipo"}
    golden = {"ipo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        averaged = self.config.length_normalize
        own, theirs = (scores.mean() if averaged else scores.sum() for scores in (policy, reference))
        chosen, rejected = batch.pairs(own - theirs)
        losses = ipo_loss(chosen - rejected, self.config.tau)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.tau * (own - theirs), own))

    def value_at_reference(self, batch: Batch) -> float:
        return 1.0 / (4.0 * self.config.tau**2)
