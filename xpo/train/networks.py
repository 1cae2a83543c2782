"""The networks of a run beside its policy, from its settings: how they are loaded, and which of them there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from xpo.api.algorithm import Algorithm
from xpo.feedback.value_model import make_critic
from xpo.feedback.verdicts import Feedback
from xpo.models.critic import Critic
from xpo.models.load import Policy, load_policy
from xpo.models.reference import Reference, start_of
from xpo.testbed.pool import model_path
from xpo.train.settings import ModelSettings, Settings


def model_config(settings: Settings) -> ModelSettings:
    """How the model of a run is loaded: the embedded one where none is named."""
    return embedded_model(settings.model) if settings.testbed_model else settings.model


def embedded_model(config: ModelSettings) -> ModelSettings:
    """The same way of loading, for the embedded model."""
    found: ModelSettings = replace(config, model_name_or_path=str(model_path()))  # type: ignore[call-arg]  # a field of trl's, which mypy does not follow
    return found


def critic_of(
    settings: Settings,
    algorithm: Algorithm[Any],
    policy: Policy,
    feedback: Feedback,
    config: ModelSettings,
) -> Critic | None:
    """What says how good a beginning is, for a method that learns from values."""
    if not algorithm.needs.values:
        return None
    # What judges the samples at the end says nothing of values that are learned from rewards in the data.
    rewards = feedback.rewards if settings.rollout is not None else ()
    return make_critic(policy, settings.run.value_model, rewards, config, feedback.tokenizer)


def start_again(
    policy: Policy, reference: Reference | None, config: ModelSettings, settings: Settings
) -> Callable[[], Reference] | None:
    """How to get the policy as it was before training, to measure the KL against, at no memory while training."""
    if reference is not None and reference.is_start and not (settings.moves_reference and policy.adapter is None):
        return lambda: reference
    if policy.adapter is not None:
        start = start_of(policy)
        return lambda: start
    if policy.origin is None:
        return None
    return lambda: Reference(load_policy(config, training=False).model.eval().requires_grad_(False), "loaded again")
