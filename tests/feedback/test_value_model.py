"""The value model: where it begins, on whose scale, what it shares, and what training it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import scalars, tiny
from xpo import Batch, Completion, Group, ModelError
from xpo.feedback.rewards import Reward, find_rewards
from xpo.feedback.value_model import make_critic
from xpo.models.critic import Critic
from xpo.models.layout import Tree
from xpo.models.load import REFERENCE_ADAPTER, Policy, load_policy
from xpo.models.reference import make_reference
from xpo.models.scoring import PLAIN, Engine, score
from xpo.train.settings import ModelSettings

GROUPS = [
    Group([7, 0, 2], [Completion([5, 6, 8, tiny.EOS]), Completion([5, 6])]),
    Group([1], [Completion([tiny.EOS]), Completion([0, 0, 0, 3, tiny.EOS])]),
]
BATCH = Batch.of(GROUPS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("base"), hidden_size=64, intermediate_size=192, num_hidden_layers=4)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scalars.reward_model(tmp_path_factory.mktemp("adapter"), base, lora=True)


@pytest.fixture(scope="module")
def full(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scalars.reward_model(tmp_path_factory.mktemp("full"), base, lora=False)


@pytest.fixture(scope="module")
def continued(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a policy, to go on with."""
    folder = tmp_path_factory.mktemp("continued")
    model = scalars.policy(base).model
    scalars.stir(model, seed=5)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def judged(policy: Policy, *names: Path, weights: list[float] | None = None) -> list[Reward]:
    return find_rewards([*map(str, names)], weights, {}, ModelSettings(), policy)


def critic_of(policy: Policy, rewards: list[Reward], value_model: Path | None = None, **settings: Any) -> Critic:
    given = None if value_model is None else str(value_model)
    return make_critic(policy, given, rewards, ModelSettings(lora_r=4, **settings), tiny.tokenizer())


def readings(reward: Reward) -> list[float]:
    """What the reward model says of every text that ends before a completion token of the batch, by itself."""
    model = reward.function.scalar.model  # type: ignore[union-attr]  # it is one of a model
    with torch.no_grad():
        rows = [torch.tensor([group.prompt_ids + one.ids[:at]]) for group, one, at in places()]
        model.config.pad_token_id = None
        return [float(model(row).logits) for row in rows]


def places() -> list[tuple[Group, Completion, int]]:
    return [(group, one, at) for group in GROUPS for one in group.completions for at in range(len(one.ids))]


@pytest.mark.parametrize("kind", ["shared", "continued", "full", "full beside adapters"])
@pytest.mark.parametrize("engine", [PLAIN, Engine(Tree(), branches=True)], ids=["plain", "branches"])
def test_values_begin_as_what_the_reward_model_reads(
    base: Path, adapter: Path, full: Path, continued: Path, kind: str, engine: Engine
) -> None:
    """At the last token of what there is so far, on the scale of the rewards: less its zero, times its weight."""
    lora = kind != "full"
    policy = scalars.policy(continued if kind == "continued" else base, use_peft=lora)
    rewards = judged(policy, full if "full" in kind else adapter, weights=[-2.0])
    rewards.append(Reward("length", len))
    critic = critic_of(policy, rewards)
    values = critic(BATCH, engine)
    assert values.dtype == torch.float32
    assert values[~BATCH.mask].eq(0).all()
    expected = [-2.0 * (one - scalars.ZERO.bias) for one in readings(rewards[0])]
    assert max(expected) - min(expected) > 0.3
    assert values[BATCH.mask].tolist() == pytest.approx(expected, abs=1e-5)
    assert Path(rewards[0].function.scalar.name).name in critic.about  # type: ignore[union-attr]  # it is one of a model


def test_the_last_value_is_the_reward(base: Path, adapter: Path) -> None:
    """A reward is read at the EOS: as a value it is that of one token more."""
    policy = scalars.policy(base)
    (reward,) = judged(policy, adapter)
    said = reward.function(prompts=["w7 w0 "], completions=["w5 w6 "])
    more = Batch.of([Group([7, 0], [Completion([5, 6, tiny.EOS, 0])])])
    assert float(critic_of(policy, [reward])(more, PLAIN)[0, 3]) == pytest.approx(said[0], abs=1e-5)


@pytest.mark.parametrize("count", [0, 2])
def test_without_a_single_reward_model_values_begin_at_0_on_the_policys_backbone(
    base: Path, adapter: Path, full: Path, count: int
) -> None:
    policy = scalars.policy(base)
    critic = critic_of(policy, [*judged(policy, *[adapter, full][:count]), Reward("length", len)])
    assert not critic(BATCH, PLAIN).any()
    assert "as the policy" in critic.about


def gradients(model: torch.nn.Module) -> set[str]:
    return {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}


@pytest.mark.parametrize("kind", ["shared", "continued", "full", "full beside adapters", "policy", "given"])
def test_gradients_reach_the_critics_own_weights_alone(
    base: Path, adapter: Path, full: Path, continued: Path, kind: str
) -> None:
    policy = scalars.policy(continued if kind == "continued" else base, use_peft=kind != "full")
    rewards = [] if kind in ("policy", "given") else judged(policy, full if "full" in kind else adapter)
    critic = critic_of(policy, rewards, full if kind == "given" else None)
    torch.nn.init.normal_(critic.head.weight)
    before = {name: one.detach().clone() for name, one in policy.model.named_parameters()}
    others = [reward.function.scalar.model for reward in rewards]  # type: ignore[union-attr]  # it is one of a model
    numbers = [readings(reward) for reward in rewards]
    own = critic.own()
    assert not {one.data_ptr() for one in own.values()} & scalars.held(policy.model, *others).keys()
    assert ("lora_" in "".join(own)) == (kind != "full")
    for _ in range(2):  # adapters begin with matrices of zeros, behind which there is no gradient yet
        critic.zero_grad()
        (critic(BATCH, PLAIN) - 1.0).square().sum().backward()
        torch.optim.SGD(own.values(), lr=1e-3).step()
    assert gradients(critic) == own.keys()
    assert not gradients(policy.model)
    assert all(torch.equal(one, before[name]) for name, one in policy.model.named_parameters())
    assert numbers == [readings(reward) for reward in rewards]
    scalars.stir(policy.model, seed=3)  # nor does the policy's training reach the critic
    after = critic(BATCH, PLAIN)
    scalars.stir(policy.model, seed=4)
    assert torch.equal(critic(BATCH, PLAIN), after)


@pytest.mark.parametrize("state", ["new", "continued"])
def test_four_networks_hold_the_backbone_once(base: Path, adapter: Path, continued: Path, state: str) -> None:
    policy = scalars.policy(base if state == "new" else continued)
    rewards = judged(policy, adapter)
    critic = critic_of(policy, rewards)
    reference = make_reference(policy, ModelSettings())
    four = [policy.model, reference.model, rewards[0].function.scalar.model, critic]  # type: ignore[union-attr]  # it is one of a model
    backbone = scalars.held(load_policy(scalars.config(base, use_peft=False)).model)
    together = scalars.held(*four)
    assert sum(together.values()) < 1.3 * sum(backbone.values())
    # What is as large as a matrix of the backbone is there once.
    largest = max(one.untyped_storage().nbytes() for name, one in critic.named_parameters() if "lora_" in name)
    assert sum(size > largest for size in together.values()) == sum(size > largest for size in backbone.values())


@pytest.mark.parametrize("kind", ["shared", "continued", "policy", "full", "full beside adapters", "given"])
def test_a_checkpoint_holds_what_is_the_critics_own(
    base: Path, adapter: Path, full: Path, continued: Path, tmp_path: Path, kind: str
) -> None:
    def made() -> Critic:
        policy = scalars.policy(continued if kind == "continued" else base, use_peft=kind != "full")
        rewards = [] if kind in ("policy", "given") else judged(policy, full if "full" in kind else adapter)
        return critic_of(policy, rewards, full if kind == "given" else None)

    one, other = made(), made()
    scalars.stir(one, seed=8)
    expected = one(BATCH, PLAIN)
    assert not torch.allclose(other(BATCH, PLAIN), expected, atol=1e-3)
    one.save(str(tmp_path))
    other.load(str(tmp_path))
    assert torch.equal(other(BATCH, PLAIN), expected)


def test_a_checkpoint_of_another_critic_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    policy = scalars.policy(base)
    critic = critic_of(policy, judged(policy, adapter))
    Critic(scalars.policy(base, lora_target_modules="all-linear").model).save(str(tmp_path))
    with pytest.raises(ModelError, match=r"has other weights .* --value_model"):
        critic.load(str(tmp_path))
    with pytest.raises(ModelError, match="holds no value model"):
        critic.load(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_value_model_that_is_given_shares_nothing(base: Path, full: Path, lora: bool) -> None:
    policy = scalars.policy(base, use_peft=lora)
    rewards = judged(policy, full)
    for name, zero in ((base, True), (full, False)):  # a language model and a scalar one
        critic = critic_of(policy, rewards, name)
        others = scalars.held(policy.model, rewards[0].function.scalar.model)  # type: ignore[union-attr]  # it is one of a model
        assert not scalars.held(critic).keys() & others.keys()
        assert any("lora_" in one for one in critic.own()) == lora
        assert any("lora_" not in one and "head" not in one for one in critic.own()) != lora
        values = critic(BATCH, PLAIN)
        assert (not values.any()) == zero
        if not zero:
            expected = [one - scalars.ZERO.bias for one in readings(rewards[0])]
            assert values[BATCH.mask].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_adapter_can_be_a_value_model(base: Path, adapter: Path) -> None:
    policy = scalars.policy(base)
    critic = critic_of(policy, [], adapter)
    assert not scalars.held(critic).keys() & scalars.held(policy.model).keys()
    expected = [one - scalars.ZERO.bias for one in readings(judged(policy, adapter)[0])]
    assert critic(BATCH, PLAIN)[BATCH.mask].tolist() == pytest.approx(expected, abs=1e-5)
    assert not any(REFERENCE_ADAPTER in name for name in critic.state_dict())


@pytest.mark.parametrize("why", ["nowhere", "two outputs", "other tokens", "adapter beside full"])
def test_a_value_model_that_cannot_be_used_is_named(base: Path, adapter: Path, tmp_path: Path, why: str) -> None:
    policy, name = scalars.policy(base, use_peft="full" not in why), tmp_path
    if why == "two outputs":
        model = tiny.classifier()
        model.config.num_labels, model.score = 2, torch.nn.Linear(32, 2, bias=False)
        model.save_pretrained(tmp_path)
    elif why == "other tokens":
        tiny.model(vocabulary=tiny.SIZE - 3).save_pretrained(tmp_path)
    elif why == "nowhere":
        name = tmp_path / "no" / "such"
    else:
        name = adapter
    with pytest.raises(ModelError, match="--value_model: ") as error:
        critic_of(policy, [], name)
    assert str(name) in str(error.value)
    said = {"nowhere": "no such directory", "two outputs": "2 outputs", "other tokens": "other tokens"}
    assert said.get(why, "--use_peft") in str(error.value)


def test_a_reward_model_that_reads_other_tokens_is_no_beginning(base: Path, full: Path) -> None:
    policy = scalars.policy(base)
    other = tiny.tokenizer()
    other.add_tokens(["w99"])
    critic = make_critic(policy, None, judged(policy, full), ModelSettings(), other)
    assert not critic(BATCH, PLAIN).any()
    assert "reads other tokens" in critic.about


@pytest.mark.parametrize("kind", ["mistral", "gpt2"])
def test_a_value_model_of_another_kind_finds_its_own_way(base: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"sliding_window": 3, "num_key_value_heads": 2, "head_dim": 8} if kind == "mistral" else {}
    config = AutoConfig.for_model(kind, vocab_size=tiny.SIZE, initializer_range=0.3, **sizes, **more)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    critic = critic_of(scalars.policy(base, use_peft=False), [], tmp_path)
    torch.nn.init.normal_(critic.head.weight)
    expected = critic(BATCH, PLAIN)
    assert expected.any()
    lines = critic.choose_engine(GROUPS, "tree")
    assert all("value model" in line for line in lines)
    assert torch.allclose(critic(BATCH, Engine(Tree(), branches=True)), expected, atol=1e-4)
    assert not any("score" in name for name in critic.own())


def test_values_keep_their_digits_where_the_rest_is_computed_with_fewer(base: Path, adapter: Path) -> None:
    policy = scalars.policy(base)
    critic = critic_of(policy, judged(policy, adapter))
    torch.nn.init.zeros_(critic.head.weight)
    torch.nn.init.constant_(critic.head.bias, 1.0 + 2.0**-12)
    with torch.autocast("cpu", torch.bfloat16):
        values = critic(BATCH, PLAIN)
    assert values.dtype == torch.float32
    assert values[BATCH.mask].tolist() == [1.0 + 2.0**-12] * len(places())


def test_values_have_no_dropout(base: Path, adapter: Path) -> None:
    policy = scalars.policy(base, lora_dropout=0.5)
    for rewards in ([], judged(policy, adapter)):
        critic = critic_of(policy, rewards).train()
        scalars.stir(critic, seed=1)
        assert torch.equal(critic(BATCH, PLAIN), critic(BATCH, PLAIN))


def test_a_4_bit_backbone_is_held_once(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    quantised = {"load_in_4bit": True, "lora_target_modules": "all-linear"}
    base = tiny.saved(tmp_path / "base", hidden_size=64, intermediate_size=128)
    policy = scalars.policy(base, **quantised)
    rewards = judged(policy, scalars.reward_model(tmp_path / "adapter", base, lora=True))
    critic = critic_of(policy, rewards)
    before = score(policy.model, BATCH).logps.detach()
    added = scalars.held(critic).keys() - scalars.held(policy.model).keys()
    buffers = {one.untyped_storage().data_ptr() for one in critic.buffers()}
    assert added <= {one.data_ptr() for one in critic.own().values()} | buffers
    expected = [one - scalars.ZERO.bias for one in readings(rewards[0])]
    assert critic(BATCH, PLAIN)[BATCH.mask].tolist() == pytest.approx(expected, abs=1e-4)
    (critic(BATCH, PLAIN) - 1.0).square().sum().backward()
    assert gradients(critic) == critic.own().keys()
    assert not gradients(policy.model)
    assert torch.equal(score(policy.model, BATCH).logps.detach(), before)
