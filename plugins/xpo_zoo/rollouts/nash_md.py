"""Nash-MD-PG, mirror descent towards the Nash equilibrium of a preference model (Munos et al. 2023, arXiv 2312.00886).

The opponent answers token by token from the geometric mixture of the policy and the reference. It gets no gradient, and
nothing of it but who was preferred enters the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Opponent, Paper, Scores, Term, option
from xpo.api.math import bounded
from xpo.feedback.mixing import geometric_mixture
from xpo_zoo.rollouts.reinforce import reinforce_loss

#: What stands before the gradient of a token's log-probability: the log-ratio of the whole completion, of the token and
#: all that follow it, or of the token alone.
KL = ("sequence", "reward_to_go", "token")


def kl_surrogate(logps: Tensor, reference_logps: Tensor, kind: str) -> Tensor:
    """Numbers whose gradient estimates that of KL(pi || ref), for samples of pi: sum_t sg[w_t] log pi(y_t).

    w_t is the log-ratio of the completion (``sequence``), or of token t and those behind it (``reward_to_go``: the same
    expectation with less variance), or of token t alone (``token``: TRL up to 1.9). The last leaves out what a token
    does to the log-ratios that follow it, so it is biased; it is there to compare with.

    Args: two (C, T) log-probabilities of tokens, 0 in the padding.
    Returns: (C,) surrogates. Their value means nothing.
    """
    ratios = (logps - reference_logps).detach()
    if kind == "sequence":
        ratios = ratios.sum(-1, keepdim=True)
    elif kind == "reward_to_go":
        ratios = ratios.flip(-1).cumsum(-1).flip(-1)
    return (ratios * logps).sum(-1)


def _mixture(
    policy_logits: Sequence[Sequence[float]], ref_logits: Sequence[Sequence[float]], *, mixture: float
) -> dict[str, Any]:
    policy, ref = (torch.tensor(logits, dtype=torch.float64) for logits in (policy_logits, ref_logits))
    return {"logprobs": geometric_mixture(policy, ref, mixture).tolist()}


@dataclass
class NashMDConfig(Config):
    """Settings of Nash-MD."""

    mixture_coef: float = option(
        0.5, "share of the reference in the opponent: 0 is self-play, 1 the reference; 0.125 to 0.5 in the paper"
    )
    tau: float = option(0.1, "weight of the KL to the reference")
    kl: str = option(
        "sequence",
        "log-ratio in the gradient of the KL: of the 'sequence'; of a token and those behind it, 'reward_to_go', which "
        "varies less; or of a 'token' alone, as in TRL, which is biased",
    )

    def __post_init__(self) -> None:
        self.require(0 <= self.mixture_coef <= 1, f"mixture_coef must be in [0, 1], not {self.mixture_coef}")
        self.require(self.tau >= 0, f"tau must not be negative, not {self.tau}")
        self.require(self.kl in KL, f"kl must be one of {', '.join(KL)}, not {self.kl!r}")


class NashMD(Algorithm[NashMDConfig]):
    """A sample is pulled by how far it is above an even chance of beating the opponent, and back to the reference.

    Only its gradient means anything: the value of the loss does not fall as the policy gets better, so watch
    ``rewards/probabilities`` and ``kl``. The method is strictly on-policy; where a rollout is used again all the same,
    the pull of a sample is weighted with min(1, pi / pi_old).
    """

    name = "nash_md"
    summary = "policy gradient on the probability of beating a mixture of policy and reference, with a KL in the loss"
    paper = Paper("Nash Learning from Human Feedback", "https://arxiv.org/abs/2312.00886", 2023)
    equation = (
        "L = mean of -(P - 1/2) log pi(y|x) + tau sg[R] log pi(y|x),  P = P(y > y'|x),  y' ~ pi^(1 - m) ref^m, "
        "m = mixture_coef,  R = log pi(y|x) - log ref(y|x);  times sg[min(1, pi / pi_old)] on rollouts used again"
    )
    data = "rollouts"
    needs = Needs(reference=True, samples=1, opponent=Opponent(1, mixture=0.5), wins="others")
    Config = NashMDConfig
    metrics = {
        "rewards/probabilities": "mean probability that a sample is preferred to the opponent's completion",
        "kl": "mean log-ratio of the sampled completions to the reference, summed over tokens",
        "objective/entropy": "mean of minus the log-probability of the sampled completions, an estimate of the entropy",
        "val/model_contain_eos_token": "share of the sampled completions that came to their end",
        "ratio": "mean sequence ratio; 1 on the policy that sampled",
        "mixture_coef": "share of the reference in the opponent",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    aliases = {"beta": "tau"}
    golden = {"nash_md": {"p_win": "score"}}
    functions = {"geometric_mixture": _mixture}

    def __init__(self, config: NashMDConfig | None = None) -> None:
        super().__init__(config)
        opponent = Opponent(1, mixture=self.config.mixture_coef)
        self.needs = Needs(reference=True, samples=1, opponent=opponent, wins="others")

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config, logps = self.config, policy.sum()
        # Without a record of the sampling policy this is its own batch: the ratio is 1.
        old_logps = batch.columns["old_logps"].sum(-1) if "old_logps" in batch.columns else logps
        ratio = torch.exp(bounded(logps - old_logps)).detach()
        weight = ratio.clamp_max(1.0)
        ended = [float(one.finished) for group in batch.groups for one in group.completions]
        metrics = {
            "rewards/probabilities": batch.scores,
            "kl": (logps - reference.sum()).detach(),
            "objective/entropy": -logps.detach(),
            "val/model_contain_eos_token": logps.new_tensor(ended),
            "ratio": ratio,
            "mixture_coef": logps.new_tensor([config.mixture_coef]),
        }
        score = reinforce_loss(logps, batch.scores - 0.5, weight)
        kl = weight * kl_surrogate(policy.logps, reference.logps, config.kl)
        terms = [Term(score, "completion", name="score"), Term(kl, "completion", weight=config.tau, name="kl")]
        return Loss(terms, metrics)
