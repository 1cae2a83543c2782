"""PPO (Schulman et al. 2017, arXiv 1707.06347) as Ouyang et al. 2022 (arXiv 2203.02155) use it.

Several updates with a rollout are ``--num_iterations``, which ``target_kl`` ends early; PPO-ptx is ``--replay_dataset``
with ``--replay_coef``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import adapted_coefficient, bounded, clipped_surrogate, gae, whiten


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange: float) -> Tensor:
    """1/2 max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2) of tensors of one shape.

    Args: values now and when sampled, and the returns G, the latter two without gradient.
    """
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def token_rewards(scores: Tensor, penalties: Tensor, lengths: Tensor) -> Tensor:
    """(C, T) what each token is rewarded with: minus its penalty, and at the last token also the score.

    Args: (C,) scores of completions, (C, T) penalties of their tokens, (C,) numbers of their tokens.
    """
    last = torch.arange(penalties.shape[1], device=lengths.device) == lengths[:, None] - 1
    return torch.where(last, scores[:, None], 0.0) - penalties


def _adaptive_kl(
    observed_kl: Sequence[float], init: float, target: float, horizon: float, n_steps: float
) -> dict[str, list[float]]:
    step = partial(adapted_coefficient, target=target, sequences=n_steps, horizon=horizon)
    return {"coef": list(accumulate(observed_kl, step, initial=init))[1:]}


@dataclass
class PPOConfig(Config):
    """Settings of PPO."""

    kl_coef: float = option(0.05, "weight of the KL to the reference, taken off the reward of every token")
    kl_target: float | None = option(
        None, "KL of a completion, in nats, that kl_coef is to be adapted to; it is fixed if not given"
    )
    kl_horizon: float = option(10_000.0, "completions over which kl_coef may change by a fifth")
    cliprange: float = option(0.2, "the ratio of a token may move this far from 1 before it is clipped")
    cliprange_value: float = option(0.2, "how far a value may move from that at sampling before it is clipped")
    target_kl: float | None = option(
        None,
        "KL of a token to the policy that sampled, in nats, beyond which the updates that are left with a rollout are "
        "left out (0.02 to 0.1); none are if not given. kl_target is about the KL to the reference",
    )
    vf_coef: float = option(0.1, "weight of the value model's loss")
    gamma: float = option(1.0, "discount of later rewards, in (0, 1]")
    lambda_: float = option(0.95, "of generalised advantage estimation: 0 trusts the value model, 1 the returns")
    whiten_rewards: bool = option(False, "divide the rewards of tokens by their deviation; their mean stays")

    def __post_init__(self) -> None:
        for name in ("kl_coef", "vf_coef"):
            self.require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("kl_horizon", "cliprange", "cliprange_value"):
            self.require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}")
        self.require(self.target_kl is None or self.target_kl > 0, f"target_kl must be positive, not {self.target_kl}")
        self.require(
            self.kl_target is None or (self.kl_target > 0 and self.kl_coef > 0),
            f"kl_target ({self.kl_target}) must be positive, and kl_coef too, which it adapts",
        )
        self.require(0 < self.gamma <= 1, f"gamma must be in (0, 1], not {self.gamma}")
        self.require(0 <= self.lambda_ <= 1, f"lambda_ must be in [0, 1], not {self.lambda_}")


class PPO(Algorithm[PPOConfig]):
    """Every token is an action; a value model beside the policy says what was to be expected before each.

    Statistics for whitening are over all tokens that all processes sampled for a step.
    """

    name = "ppo"
    summary = "clipped policy gradient of tokens with a value model and the KL to the reference in the reward"
    paper = Paper(
        "Training language models to follow instructions with human feedback", "https://arxiv.org/abs/2203.02155", 2022
    )
    equation = (
        "L = mean over tokens of max(-A rho, -A clip(rho)) + vf_coef/2 max((V - G)^2, (clip(V) - G)^2),  "
        "rho = pi / pi_old of a token,  r_t = -kl_coef (log pi_old - log ref) + score at the last token,  "
        "A = whitened GAE of r and V_old,  G = GAE + V_old"
    )
    data = "rollouts"
    needs = Needs(reference=True, values=True, samples=1)
    Config = PPOConfig
    metrics = {
        "objective/kl": "mean log-ratio of the sampled completions to the reference, summed over tokens",
        "objective/entropy": "mean of minus the log-probability of the sampled completions, an estimate of the entropy",
        "objective/non_score_reward": "what the KL took off the reward of a completion",
        "objective/rlhf_reward": "mean of score and KL penalty together, which is what is maximised",
        "objective/scores": "mean score of the completions, less the penalty of those without an end",
        "policy/approxkl_avg": "half the mean squared log-ratio of tokens to the policy that sampled",
        "policy/clipfrac_avg": "share of tokens whose ratio was clipped",
        "loss/policy_avg": "policy loss, a mean over tokens",
        "loss/value_avg": "loss of the value model, a mean over tokens, before vf_coef",
        "val/clipfrac_avg": "share of values that were clipped",
        "val/ratio": "mean ratio of tokens; 1 on the policy that sampled",
        "val/ratio_var": "mean squared distance of that ratio from 1",
        "val/advantage": "mean advantage before whitening; away from 0 the value model is wrong on average",
        "val/num_eos_tokens": "EOS tokens a completion: share of the completions that came to their end",
        "kl_coef": "weight of the KL in the reward",
    }
    training = {"learning_rate": 3e-6}
    lora_training = {"learning_rate": 3e-5}
    aliases = {"lam": "lambda_", "init_kl_coef": "kl_coef", "target": "kl_target", "horizon": "kl_horizon"}
    accepts = {"kl_estimator": "k1"}
    golden = {
        "ppo": {
            "advantages": "advantages_whitened",
            "ptx": "replay",
            "ptx_coef": "replay_coef",
            "policy_loss": "loss/policy_avg",
            "value_loss": "loss/value_avg",
            "ptx_loss": "replay/nll_loss",
            "clip_fraction": "policy/clipfrac_avg",
        },
        "ppo_advantages": {"lam": "lambda_"},
    }
    functions = {"adaptive_kl": _adaptive_kl}

    def __init__(self, config: PPOConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=self.config.kl_coef > 0, values=True, samples=1)
        self.kl_coef = self.config.kl_coef

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        assert policy.values is not None
        config, mask = self.config, batch.mask
        kl = torch.zeros_like(policy.logps) if reference is None else policy.logps - reference.logps
        rewards = token_rewards(batch.scores, self.kl_coef * kl, batch.lengths)
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, batch.global_moments(rewards[mask]), shift=False)
        advantages = gae(rewards, policy.values, mask, config.gamma, config.lambda_)
        columns = {
            "token_rewards": rewards,
            "advantages": advantages,
            "advantages_whitened": whiten(advantages, mask, batch.global_moments(advantages[mask])),
            "returns": advantages + policy.values,
            "old_values": policy.values,
            "objective/entropy": -policy.sum(),
            "objective/scores": batch.scores,
        }
        if reference is not None:
            kl = kl.sum(-1)
            columns["objective/kl"] = kl
            columns["objective/non_score_reward"] = -self.kl_coef * kl
            columns["objective/rlhf_reward"] = batch.scores - self.kl_coef * kl
            columns["kl_coef"] = torch.full_like(kl, self.kl_coef)
            if config.kl_target is not None and torch.is_grad_enabled():
                self._adapt(batch, kl, config.kl_target)
        return columns

    def _adapt(self, batch: Batch, kl: Tensor, target: float) -> None:
        count = batch.reduce(kl.new_tensor(0.0 if batch.idle else float(kl.numel())))
        self.kl_coef = adapted_coefficient(
            self.kl_coef, float(batch.global_mean(kl)), target, float(count), self.config.kl_horizon
        )

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.values is not None
        config, columns, mask = self.config, batch.columns, batch.mask
        advantages, old_values = columns["advantages_whitened"], columns["old_values"]
        # Without a record of the sampling policy this is its own batch: the ratio is 1 and only its gradient matters.
        logratios = policy.logps - columns.get("old_logps", policy.logps.detach())
        ratio = torch.exp(bounded(logratios))
        policy_losses = clipped_surrogate(ratio, advantages, config.cliprange, config.cliprange)
        value_losses = value_loss(policy.values, old_values, columns["returns"], config.cliprange_value)
        outside = policy_losses > -advantages * ratio
        far = (policy.values - old_values).abs() > config.cliprange_value
        of_tokens = {
            "policy/approxkl_avg": 0.5 * logratios.square(),
            "policy/clipfrac_avg": outside.to(ratio.dtype),
            "loss/policy_avg": policy_losses,
            "loss/value_avg": value_losses,
            "val/clipfrac_avg": far.to(ratio.dtype),
            "val/ratio": ratio,
            "val/ratio_var": (ratio - 1.0).square(),
        }
        metrics = {name: values.detach()[mask] for name, values in of_tokens.items()}
        metrics |= {name: columns[name] for name in self.metrics if name in columns}
        if "advantages" in columns:
            metrics["val/advantage"] = columns["advantages"][mask]
        ended = [float(one.finished) for group in batch.groups for one in group.completions]
        metrics["val/num_eos_tokens"] = ratio.new_tensor(ended)
        value = Term(value_losses, "token", weight=config.vf_coef, name="value")
        excess = None if config.target_kl is None else metrics["policy/approxkl_avg"] - config.target_kl
        return Loss([Term(policy_losses, "token", name="policy"), value], metrics, excess=excess)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.config.kl_target is None else {"kl_coef": self.kl_coef}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.kl_coef = float(state.get("kl_coef", self.config.kl_coef))
