"""What a run says of samples, and how it comes by them: rewards or a judge, and rollouts, from settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from xpo.api.algorithm import Algorithm
from xpo.errors import PluginError
from xpo.feedback.judges import Judge, JudgeOptions, find_judge
from xpo.feedback.rewards import Reward, find_rewards
from xpo.feedback.sampling import end_tokens
from xpo.feedback.verdicts import Feedback
from xpo.feedback.vllm import Server
from xpo.models.load import Policy
from xpo.plugins import Registry
from xpo.train.material import Material
from xpo.train.online import forming_of, sampling_of
from xpo.train.rollouts import Rollouts
from xpo.train.settings import EMBEDDED, ModelSettings, RolloutSettings, Settings


def feedback_of(
    settings: Settings,
    algorithm: Algorithm[Any],
    registry: Registry,
    config: ModelSettings,
    material: Material,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
) -> Feedback:
    """The rewards of a run, or its judge, and how they are read; neither where nobody judges what it samples."""
    rollout = settings.rollout
    return Feedback(
        tokenizer,
        _rewards(settings, registry, config, material, policy),
        _judge(settings, registry, config, policy),
        algorithm.needs.wins,
        missing_eos_penalty=(None if rollout is None else rollout.missing_eos_penalty) or 0.0,
        missing_eos_score=None if rollout is None else rollout.missing_eos_score,
    )


def rollouts_of(settings: Settings, algorithm: Algorithm[Any], feedback: Feedback, policy: Policy) -> Rollouts | None:
    """What samples while training; None where the data has all there is to learn from."""
    rollout, sampling = settings.rollout, sampling_of(settings)
    if rollout is None or sampling is None:
        return None
    url = rollout.vllm_server_base_url
    return Rollouts(
        algorithm,
        feedback,
        sampling,
        forming=forming_of(settings),
        keep_logps=rollout.reuses,
        server=None if url is None else Server(url, end_tokens(policy.model, feedback.tokenizer)),
    )


def _rewards(
    settings: Settings, registry: Registry, config: ModelSettings, material: Material, policy: Policy
) -> list[Reward]:
    """What judges samples: the rewards asked for, else the known one of the embedded data, unless there is a judge."""
    specs: Sequence[Any] | None = settings.source("reward")
    if specs is not None and (callable(specs) or isinstance(specs, str)):
        specs = [specs]
    if not specs and material.embedded and (settings.rollout is None or settings.source("judge") is None):
        specs = [EMBEDDED]
    for spec in specs or ():
        refuse_broken("reward", spec, registry.rewards, registry)
    weights = None if settings.rollout is None else settings.rollout.reward_weights
    return find_rewards(specs or [], weights, registry.rewards, config, policy=policy)


def _judge(settings: Settings, registry: Registry, config: ModelSettings, policy: Policy) -> Judge | None:
    """Who compares samples, if somebody does."""
    rollout, spec = settings.rollout, settings.source("judge")
    if rollout is None or spec is None:
        return None
    refuse_broken("judge", spec, registry.judges, registry)
    return find_judge(spec, registry.judges, config, judge_options(rollout, settings.training.seed), policy)


def judge_options(rollout: RolloutSettings, seed: int) -> JudgeOptions:
    """How a judge is asked, as the settings of a command say."""
    return JudgeOptions(
        rollout.judge_url,
        rollout.judge_timeout,
        rollout.judge_retries,
        rollout.judge_concurrency,
        rollout.judge_template,
        seed=seed,
    )


def refuse_broken(kind: str, spec: object, known: Mapping[str, Any], registry: Registry) -> None:
    """Say why a plugin does not bring what it means to bring, before the name is taken for something else.

    Args:
        kind: ``reward`` or ``judge``.
        spec: what somebody asked for; an object has no plugin.
        known: what plugins brought.

    Raises:
        PluginError: a plugin of that name is broken.
    """
    if isinstance(spec, str) and spec not in known and (reason := registry.reason(kind, spec)):
        raise PluginError(reason)
