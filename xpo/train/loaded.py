"""All that a run loads before its loop: tokenizer, data, the networks, and who judges what is sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from xpo.api.algorithm import Algorithm
from xpo.feedback.verdicts import Feedback
from xpo.models.cache import LogpCache
from xpo.models.critic import Critic
from xpo.models.follower import Follower
from xpo.models.load import Policy, adapt, disable_dropout, load_policy, load_tokenizer
from xpo.models.reference import Reference, make_reference
from xpo.plugins import load
from xpo.train.describe import label
from xpo.train.judging import feedback_of, rollouts_of
from xpo.train.material import Material, gather
from xpo.train.networks import critic_of, model_config, start_again
from xpo.train.preflight import check_vocabulary
from xpo.train.remember import remembering
from xpo.train.rollouts import Rollouts
from xpo.train.settings import Settings


@dataclass(frozen=True)
class Loaded:
    """What a run works with.

    Attributes:
        algorithm: the method, fresh.
        tokenizer, material: what reads the data, and the data.
        policy: what is trained.
        reference: frozen, or moved by the follower; None where the method has no use for one.
        follower: moves it, where something does.
        cache: the reference's log-probabilities of earlier runs, where they are kept.
        start: gives the policy as it was before training, for the KL; None where it cannot be had again.
        feedback: who judges samples.
        rollouts: what samples while training; None where the data has all there is to learn from.
        critic: says how good a beginning is, for methods that learn from values.
    """

    algorithm: Algorithm[Any]
    tokenizer: PreTrainedTokenizerBase
    material: Material
    policy: Policy
    reference: Reference | None
    follower: Follower | None
    cache: LogpCache | None
    start: Callable[[], Reference] | None
    feedback: Feedback
    rollouts: Rollouts | None
    critic: Critic | None

    @property
    def networks(self) -> list[str | None]:
        """A line on every network beside policy and reference; None for a reward that is none."""
        critic = [] if self.critic is None else [self.critic.about]
        return [*(one.describe() for one in self.feedback.rewards), *critic]


def load_all(settings: Settings) -> Loaded:
    """Load what ``settings`` name.

    Raises:
        XpoError: something is not there, or does not fit the rest.
    """
    registry = load()
    algorithm = settings.make_algorithm()
    config = model_config(settings)
    tokenizer = settings.source("tokenizer") or load_tokenizer(config, settings.run.chat_template_path)
    material = gather(settings, algorithm, registry, tokenizer)
    given = settings.objects.get("model_name_or_path")
    scalar = algorithm.model != "policy"
    policy = load_policy(config, scalar=scalar) if given is None else adapt(given, config, scalar=scalar)
    if settings.run.disable_dropout:
        disable_dropout(policy.model)
    check_vocabulary(policy, material)
    if policy.adapter is not None and settings.training.gradient_checkpointing:
        policy.model.enable_input_require_grads()
    reference = None
    if algorithm.needs.reference:
        reference = make_reference(policy, config, settings.source("reference_model"))
    start = None if scalar else start_again(policy, reference, config, settings)
    follower = Follower(policy, reference) if reference is not None and settings.moves_reference else None
    reference = reference if follower is None else follower.reference
    reference, cache = remembering(reference, settings, algorithm.needs, label(settings))
    feedback = feedback_of(settings, algorithm, registry, config, material, policy, tokenizer)
    return Loaded(
        algorithm=algorithm,
        tokenizer=tokenizer,
        material=material,
        policy=policy,
        reference=reference,
        follower=follower,
        cache=cache,
        start=start,
        feedback=feedback,
        rollouts=rollouts_of(settings, algorithm, feedback, policy),
        critic=critic_of(settings, algorithm, policy, feedback, config),
    )
