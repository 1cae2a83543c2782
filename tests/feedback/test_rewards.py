"""Rewards: where they come from, how they add up, and what is said when a function misbehaves."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from xpo import Completion, FeedbackError, Group, SettingError
from xpo.feedback.rewards import Reward, find_rewards, score_completions
from xpo.train.settings import ModelSettings

CONFIG = ModelSettings()
GROUPS = [
    Group([1, 2], row=0, source={"prompt": "w1 w2", "level": 3}),
    Group([5], row=1, source={"prompt": "w5", "level": 8}),
]
COMPLETIONS = [[Completion([3, tiny.EOS]), Completion([0, 4])], [Completion([6, 7, tiny.EOS]), Completion([tiny.EOS])]]


def scored(*functions: Any, weights: Sequence[float] | None = None) -> list[list[float]]:
    rewards = find_rewards(list(functions), weights, {}, CONFIG)
    return score_completions(rewards, GROUPS, COMPLETIONS, tiny.tokenizer())


def test_a_function_sees_prompts_texts_ids_and_columns_one_a_completion() -> None:
    seen: dict[str, Any] = {}

    def look(**given: Any) -> list[int]:
        seen.update(given)
        return [1, 2, 3, 4]

    assert scored(look) == [[1.0, 2.0], [3.0, 4.0]]
    assert seen["prompts"] == ["w1 w2", "w1 w2", "w5", "w5"]
    assert seen["completions"] == ["w3", "w0 w4", "w6 w7", ""]
    assert seen["completion_ids"] == [completion.ids for some in COMPLETIONS for completion in some]
    assert seen["level"] == [3, 3, 8, 8]
    assert "prompt" not in seen


def test_conversations_get_messages() -> None:
    seen: dict[str, Any] = {}
    group = Group([1], source={"prompt": [{"role": "user", "content": "w1"}]})
    reward = Reward("look", lambda **given: seen.update(given) or [0.0])
    score_completions([reward], [group], [[Completion([3])]], tiny.tokenizer())
    assert seen["prompts"] == [[{"role": "user", "content": "w1"}]]
    assert seen["completions"] == [[{"role": "assistant", "content": "w3"}]]


def test_weights_and_no_opinion() -> None:
    a = lambda **_: [1, None, 3, 4]  # noqa: E731
    b = lambda **_: [10, 20, None, 40]  # noqa: E731
    assert scored(a, b) == [[11, 20], [3, 44]]
    assert scored(a, b, weights=[2.0, -0.5]) == [[-3, -10], [6, -12]]
    with pytest.raises(SettingError, match="--reward_weights has 1 numbers for 2 rewards"):
        scored(a, b, weights=[1.0])


def test_tensors_count_as_numbers() -> None:
    assert scored(lambda **_: torch.tensor([1.0, 2.0, 3.0, 4.0])) == [[1, 2], [3, 4]]


def raising(**_: Any) -> list[float]:
    raise KeyError("answer")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, "reward 'raising' raised KeyError: 'answer'"),
        (lambda **_: [1.0, 2.0], "returned 2 numbers for 4 completions"),
        (lambda **_: [1.0, math.nan, 2.0, 3.0], "returned nan for completion 1; rewards must be finite"),
        (lambda **_: [1.0, 2.0, 2.0, -math.inf], "returned -inf for completion 3"),
        (lambda **_: [None, 1, None, 2], "no reward function scored 2 of 4 completions"),
        (lambda **_: [None] * 4, "no reward function scored 4 of 4 completions"),
        (lambda **_: None, "must return a list of numbers"),
        (lambda **_: 1.0, "must return a list of numbers"),
        (lambda **_: ["high"] * 4, "must return a list of numbers"),
        (lambda prompts: [1.0] * 4, "raised TypeError"),
    ],
)
def test_what_a_function_does_wrong_is_said_by_its_name(function: Any, message: str) -> None:
    with pytest.raises(FeedbackError) as error:
        scored(function)
    assert message in str(error.value)


def test_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def long(completions, **_):\n    return [len(c) for c in completions]\n\nvalue = 3\n"
    (tmp_path / "my_rewards.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    known = {"brought": lambda **_: [0.0] * 4}
    specs = ["brought", "my_rewards:long", f"{tmp_path / 'my_rewards.py'}:long", len]
    found = find_rewards(specs, [1, 2, 3, 4], known, CONFIG)
    assert [(reward.name, reward.weight) for reward in found] == [("brought", 1), ("long", 2), ("long", 3), ("len", 4)]
    assert score_completions(found[1:2], GROUPS, COMPLETIONS, tiny.tokenizer()) == [[4, 10], [10, 0]]
    sys.modules.pop("my_rewards", None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("brougt", "Did you mean 'brought'?"),
        ("nowhere.at.all:f", "nowhere"),
        ("/no/such/file.py:f", "/no/such/file.py"),
        ("math:nothing", "nothing"),
        ("math:pi", "pi"),
        ("broken.py:f", "broken.py"),
    ],
)
def test_specs_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(SettingError, match=message.replace("?", r"\?")):
        find_rewards([spec], None, {"brought": lambda **_: []}, CONFIG)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    tiny.classifier(4).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def by_hand(judge: Path, text: str) -> float:
    from transformers import LlamaForSequenceClassification

    model = LlamaForSequenceClassification.from_pretrained(judge).eval()
    rows = tiny.tokenizer()(text)["input_ids"]
    with torch.no_grad():
        hidden = model.model(torch.tensor([rows])).last_hidden_state
        return float(model.score(hidden)[0, -1, 0])


@pytest.mark.parametrize("pad", ["<pad>", "</s>", "w0"])
def test_a_reward_model_reads_the_last_token_whatever_the_padding_is(judge: Path, tmp_path: Path, pad: str) -> None:
    """Texts of different length in one batch, some of which end with the padding token itself."""
    tiny.classifier(4).save_pretrained(tmp_path)
    tiny.tokenizer(pad=pad).save_pretrained(tmp_path)
    (reward,) = find_rewards([str(tmp_path)], [0.5], {}, CONFIG)
    assert reward.name == tmp_path.name
    prompts = ["w1 w2 ", "w3 ", "w4 w5 w6 ", "w7 "]
    texts = ["w0", "w1 </s>", "w2 </s> </s> w0 w0", "w0 w9 </s> w30 w31 w32"]
    assert reward.function(prompts=prompts, completions=texts) == pytest.approx(
        [by_hand(judge, prompt + text) for prompt, text in zip(prompts, texts, strict=True)], abs=1e-4
    )


def test_a_reward_model_needs_a_chat_template_for_conversations(judge: Path) -> None:
    (reward,) = find_rewards([str(judge)], None, {}, CONFIG)
    conversation = [[{"role": "user", "content": "w1"}]], [[{"role": "assistant", "content": "w3"}]]
    with pytest.raises(FeedbackError, match="no chat template"):
        reward.function(prompts=conversation[0], completions=conversation[1])
