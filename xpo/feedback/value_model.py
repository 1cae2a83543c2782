"""Where the values of a run begin: as the reward model, as a model of their own, or as the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peft import PeftConfig, PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.errors import ModelError, XpoError
from xpo.feedback.rewards import Reward
from xpo.models.critic import Critic
from xpo.models.load import REFERENCE_ADAPTER, Policy, base_of, explained, load_policy
from xpo.models.networks import Scalar, adapters_on
from xpo.models.scoring import Model, innermost, scalar_head
from xpo.models.zero import Zero


def make_critic(
    policy: Policy,
    value_model: str | None,
    rewards: Sequence[Reward],
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Critic:
    """The value model of a run, beside a policy that has not been trained yet.

    Args:
        policy: what it begins as where there is nothing else, with values of 0.
        value_model: directory or hub id of a causal language model or a scalar model to begin as; it shares nothing.
        rewards: what the policy is trained by; none where its data says it. Values begin as what the only reward model
            among them reads, on the scale of the rewards: less its zero, times its weight.
        config: how models are loaded, and which adapters those get whose weights stay as they are.
        tokenizer: of the policy. A model that reads other tokens cannot tell values.

    Raises:
        ModelError: ``value_model`` cannot be loaded or used.
    """
    models = {one.name: (one, reward.weight) for reward in rewards if (one := scalar_of(reward)) is not None}
    count = sum(scalar_of(reward) is not None for reward in rewards)
    if value_model is not None:
        weight = models[value_model][1] if value_model in models else 1.0
        return _given(value_model, replace(config, use_peft=policy.adapter is not None), policy, tokenizer, weight)
    if count != 1:
        return Critic(policy.model)
    ((start, weight),) = models.values()
    reason = _unfit(start, policy, tokenizer)
    if reason is not None:
        return Critic(policy.model, about=f"begins as the policy, with values of 0, since {start.name} {reason}")
    offset = 0.0 if start.zero is None else start.zero.bias
    if start.apart is None:
        about = f"begins as {start.name}, with an adapter of its own on the policy's weights"
        return Critic(start.model, policy.model.parameters(), factor=weight, offset=offset, about=about)
    if policy.adapter is None:
        about = f"begins as {start.name}, a copy"
        return Critic(start.model, (), factor=weight, offset=offset, kin=False, about=about)
    about = f"begins as {start.name}, with a new adapter on its weights"
    return Critic(adapters_on(start.model, config), factor=weight, offset=offset, kin=False, about=about)


def scalar_of(reward: Reward) -> Scalar | None:
    """The reward model behind a reward; None for a function."""
    found = getattr(reward.function, "scalar", None)
    return found if isinstance(found, Scalar) else None


def _unfit(start: Scalar, policy: Policy, tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """Why values cannot begin as a reward model; None if they can."""
    if scalar_head(innermost(start.model)) is None:
        return "is no decoder, which alone can be read before a text has ended"
    if _other_tokens(start.model, start.tokenizer, policy, tokenizer):
        return "reads other tokens"
    if start.apart is not None and policy.adapter is None:
        whole = all(one.is_floating_point() for one in start.model.parameters())
        return None if whole else "has quantised weights, which cannot be trained in full"
    return None


def _given(
    name: str, config: ModelConfig, policy: Policy, tokenizer: PreTrainedTokenizerBase | None, weight: float
) -> Critic:
    try:
        headed = _headed(name, config)
        loaded = load_policy(replace(config, model_name_or_path=name, model_revision="main"), scalar=True)
    except XpoError as error:
        raise ModelError(
            f"--value_model: {error}; give a causal language model or a reward model, or leave the flag out"
        ) from error
    model = loaded.model
    if isinstance(model, PeftModel) and REFERENCE_ADAPTER in model.peft_config:  # nothing is compared with its start
        model.delete_adapter(REFERENCE_ADAPTER)
    try:
        theirs = AutoTokenizer.from_pretrained(name, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError):  # there is none beside it: what it reads shows in its size alone
        theirs = None
    if _other_tokens(model, theirs, policy, tokenizer):
        raise ModelError(
            f"--value_model: '{name}' reads other tokens than the policy; give a model with the policy's tokenizer"
        )
    zero = Zero.beside(name)
    return Critic(
        model,
        model.parameters(),
        factor=weight if headed else 0.0,
        offset=0.0 if zero is None else zero.bias,
        kin=False,
        about=f"begins as {name}, a model of its own",
    )


def _headed(name: str, config: ModelConfig) -> bool:
    """Whether a model has learned to read a number; one that has not gets a head that begins at 0."""
    with explained(name, "model"):
        base, adapter = base_of(name)
        if adapter is not None and PeftConfig.from_pretrained(adapter).task_type == "SEQ_CLS":
            return True
        settings = AutoConfig.from_pretrained(base, trust_remote_code=config.trust_remote_code)
        if not any("SequenceClassification" in one for one in settings.architectures or ()):
            return False
        if settings.num_labels != 1:
            raise ModelError(f"model '{name}' has {settings.num_labels} outputs; a value model has one")
    return True


def _other_tokens(
    model: Model,
    theirs: PreTrainedTokenizerBase | None,
    policy: Policy,
    ours: PreTrainedTokenizerBase | None,
) -> bool:
    if theirs is not None and ours is not None:
        return bool(theirs.get_vocab() != ours.get_vocab())
    return _rows(model) < (_rows(policy.model) if ours is None else len(ours))


def _rows(model: Model) -> int:
    """Tokens a model has an embedding for."""
    return int(innermost(model).get_input_embeddings().weight.shape[0])  # type: ignore[operator]  # torch types every attribute
