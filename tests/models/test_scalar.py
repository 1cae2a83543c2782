"""Reward models and value models: what they read, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests import tiny
from xpo import Batch, Completion, Group
from xpo.feedback.rewards import find_rewards, score_completions
from xpo.models.critic import Critic
from xpo.models.guard import choose_engine
from xpo.models.layout import Tree, padded
from xpo.models.load import load_policy
from xpo.models.scoring import PLAIN, Engine, score
from xpo.models.zero import Zero
from xpo.train.settings import ModelSettings

ENGINES = {
    "plain": PLAIN,
    "padded": Engine(padded),
    "tree": Engine(Tree()),
    "branches": Engine(Tree(20.0), branches=True),
}
GROUPS = [
    Group([7, 0, 2], [Completion([5, 6, 8, tiny.EOS], "chosen"), Completion([5, 6], "rejected")], [(0, 1)]),
    Group([1], [Completion([tiny.EOS], "chosen"), Completion([0, 0, 0, 3, tiny.EOS], "rejected")], [(0, 1)]),
    Group([7, 0, 2, 4], [Completion([5, 6, 8], "chosen"), Completion([5, 6, 8, 9], "rejected")], [(0, 1)]),
]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_reward_is_read_at_the_last_token(engine: Engine) -> None:
    """Also where that is the EOS, which pads too, and where another completion goes on from it."""
    model = tiny.classifier().double()
    model.config.pad_token_id = tiny.EOS
    found = score(model, Batch.of(GROUPS, dtype=torch.float64), engine)
    assert found.rewards is not None
    assert torch.isnan(found.logps).all()
    rows = [(group.prompt_ids + one.ids) for group in GROUPS for one in group.completions]
    expected = [float(model.score(model.model(torch.tensor([row]))[0][0, -1])) for row in rows]
    assert found.rewards.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma2", "mistral", "gpt_neox", "phi3"])
def test_other_architectures_read_the_same_in_trees(kind: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    windows = {"sliding_window": 3} if kind in ("mistral", "gemma2") else {}
    grouped = {"num_key_value_heads": 2, "head_dim": 8} if kind in ("gemma2", "mistral", "qwen2") else {}
    config = AutoConfig.for_model(
        kind, vocab_size=64, num_labels=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes, **windows, **grouped
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    batch = Batch.of(GROUPS)
    expected = score(model, batch, PLAIN).rewards
    assert expected is not None
    assert len(set(expected.tolist())) == len(expected)
    engine, lines = choose_engine(model, GROUPS, "tree", torch.device("cpu"))
    assert (engine.layout, lines) == ("tree", [])
    found = score(model, batch, engine).rewards
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_trained_reward_model_loads_elsewhere_and_judges(tmp_path: Path, lora: bool) -> None:
    start = tiny.saved(tmp_path / "start")
    settings = ModelSettings(model_name_or_path=str(start), use_peft=lora, lora_r=4)
    policy = load_policy(settings, scalar=True)
    policy.model.eval()
    trained = [name for name, one in policy.model.named_parameters() if one.requires_grad]
    assert any("score" in name for name in trained)
    assert all("lora" in name or "score" in name for name in trained) == lora
    with torch.no_grad():
        for name, one in policy.model.named_parameters():
            if name in trained:
                one.add_(0.05 * torch.randn_like(one))
    groups = [Group([3, 4], [Completion([5, tiny.EOS]), Completion([6, 7, tiny.EOS])], source={"prompt": "w3 w4"})]
    expected = score(policy.model, Batch.of(groups), PLAIN).rewards
    assert expected is not None
    policy.model.save_pretrained(tmp_path / "out")
    tiny.tokenizer().save_pretrained(tmp_path / "out")
    Zero.of([0.25, 0.75]).save(tmp_path / "out")
    if not lora:
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
        assert again.config.num_labels == 1
        ids = torch.tensor([[3, 4, 6, 7, tiny.EOS]])
        assert float(again(ids).logits) == pytest.approx(float(expected[1]), abs=1e-5)
    reward = find_rewards([str(tmp_path / "out")], None, {}, ModelSettings())
    # Its texts end, as what it was trained on did, and demonstrations have reward 0.
    decoded = [[Completion([5]), Completion([6, 7])]]
    texts = score_completions(reward, [Group([3, 4], source={"prompt": "w3 w4 "})], decoded, tiny.tokenizer())
    assert texts[0] == pytest.approx([float(one) - 0.5 for one in expected], abs=1e-4)


def test_a_new_head_begins_with_rewards_one_apart(tmp_path: Path) -> None:
    start = tiny.saved(tmp_path, hidden_size=256, intermediate_size=64)
    torch.manual_seed(0)
    model = load_policy(ModelSettings(model_name_or_path=str(start)), scalar=True).model
    assert float(model.score.weight.std()) == pytest.approx(257**-0.5, rel=0.1)


def test_zero_is_the_mean_of_demonstrations(tmp_path: Path) -> None:
    zero = Zero.of([1.0, 2.0, 6.0])
    assert (zero.bias, zero.demonstrations) == (3.0, 3)
    assert zero.deviation == pytest.approx(7.0**0.5)
    zero.save(tmp_path)
    assert Zero.beside(str(tmp_path)) == zero
    assert Zero.beside(str(tmp_path / "elsewhere")) is None


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_critic_shares_what_is_frozen_and_nothing_else(tmp_path: Path, lora: bool) -> None:
    start = tiny.saved(tmp_path / "start")
    policy = load_policy(ModelSettings(model_name_or_path=str(start), use_peft=lora, lora_r=4)).model
    critic = Critic(policy)
    mine = {one.data_ptr() for one in policy.parameters()}
    frozen = {one.data_ptr() for one in policy.parameters() if not one.requires_grad}
    shared = {one.data_ptr() for one in critic.parameters()} & mine
    assert shared <= frozen
    assert bool(shared) == lora
    assert not {one.data_ptr() for one in critic.own().values()} & mine
    batch = Batch.of(GROUPS)
    values = critic(batch, PLAIN)
    assert not values.any()  # the head starts at 0
    torch.nn.init.normal_(critic.head.weight)
    values = critic(batch, PLAIN)
    assert torch.allclose(values, critic(batch, Engine(Tree(), branches=True)), atol=1e-5)
    assert values[~batch.mask].eq(0).all()
    # The first value knows the prompt and nothing of the completion.
    assert torch.allclose(values[0, 0], values[1, 0], atol=1e-6)
    assert not torch.allclose(values[0, 0], values[2, 0], atol=1e-3)
    values.sum().backward()
    assert all(one.grad is None for one in policy.parameters())
    assert any(one.grad is not None and one.grad.any() for name, one in critic.own().items() if "head" not in name)


def test_a_critic_is_saved_and_taken_up(tmp_path: Path) -> None:
    policy = tiny.model()
    one, other = Critic(policy), Critic(policy)
    with torch.no_grad():
        for parameter in one.own().values():
            parameter.add_(0.1)
    one.save(str(tmp_path))
    other.load(str(tmp_path))
    assert all(torch.equal(one.own()[name], value) for name, value in other.own().items())
