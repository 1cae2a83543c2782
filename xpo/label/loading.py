"""Everything that labels, loaded as the settings say: what samples, who judges, and what is made of it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from xpo.feedback.judges import Judge, find_judge
from xpo.feedback.reward_models import ModelReward
from xpo.feedback.rewards import Reward, find_rewards
from xpo.feedback.said import Verbatim
from xpo.feedback.verdicts import Feedback
from xpo.label.labelling import Labeller
from xpo.label.memory import MindfulJudge
from xpo.label.settings import LabelSettings
from xpo.models.load import load_policy, load_tokenizer
from xpo.plugins import Registry
from xpo.train.judging import judge_options, refuse_broken
from xpo.train.networks import embedded_model
from xpo.train.online import Forming, sampling_by
from xpo.train.settings import EMBEDDED, ModelSettings


def labeller_of(settings: LabelSettings, sampled: bool, registry: Registry) -> Labeller:
    """What labels prompts; ``sampled`` says whether their completions are still to be sampled.

    Raises:
        SettingError: there is no such judge or reward.
        PluginError: the plugin of that name is broken.
        ModelError: a model cannot be loaded.
    """
    config, rollout, seed = settings.model, settings.rollout, settings.own.seed
    if config.model_name_or_path is None and sampled:
        config = embedded_model(config)
    tokenizer = None
    if config.model_name_or_path is not None:
        tokenizer = load_tokenizer(config, settings.run.chat_template_path)
    device = torch.device("cuda" if torch.cuda.is_available() and not settings.own.use_cpu else "cpu")
    judge = _judge(settings, registry, config)
    rewards = _rewards(settings, registry, config, device)
    model = _model(config, device) if sampled or settings.judged_by_policy else None
    reader: Any = tokenizer if sampled else Verbatim()
    if judge is not None:
        _bind(judge, model, tokenizer, reader, device)
    feedback = Feedback(
        reader,
        rewards,
        judge,
        missing_eos_penalty=rollout.missing_eos_penalty or 0.0,
        missing_eos_score=rollout.missing_eos_score,
    )
    forming = Forming(settings.own.to, rollout.online_pairs, rollout.label_threshold, seed)
    return Labeller(feedback, forming, tokenizer, model, sampling_by(rollout, seed) if sampled else None)


def _model(config: ModelSettings, device: torch.device) -> torch.nn.Module:
    policy = load_policy(config, training=False)
    if policy.quantization is None:  # quantised weights are there already, and cannot be moved
        policy.model.to(device)
    policy.model.eval().requires_grad_(False)
    return policy.model


def _bind(
    judge: Judge,
    model: torch.nn.Module | None,
    tokenizer: PreTrainedTokenizerBase | None,
    reader: Any,
    device: torch.device,
) -> None:
    # A judge with a model of its own goes where the policy is; where there is none, something stands there for it.
    stand_in = torch.nn.Linear(1, 1, device=device)
    judge.bind(stand_in if model is None else model, reader if tokenizer is None else tokenizer)
    judge.tokenizer = reader


def _judge(settings: LabelSettings, registry: Registry, config: ModelSettings) -> MindfulJudge | None:
    rollout = settings.rollout
    if rollout.judge is None:
        return None
    refuse_broken("judge", rollout.judge, registry.judges, registry)
    options = judge_options(rollout, settings.own.seed)
    return MindfulJudge.of(find_judge(rollout.judge, registry.judges, config, options))


def _rewards(settings: LabelSettings, registry: Registry, config: ModelSettings, device: torch.device) -> list[Reward]:
    rollout = settings.rollout
    if rollout.judge is not None:
        return []
    specs = rollout.reward or [EMBEDDED]
    for spec in specs:
        refuse_broken("reward", spec, registry.rewards, registry)
    found = find_rewards(specs, rollout.reward_weights, registry.rewards, config)
    for reward in found:
        if isinstance(reward.function, ModelReward):
            reward.function.scalar.model.to(device)
    return found
