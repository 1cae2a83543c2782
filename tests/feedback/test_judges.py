"""Judges: how they are found and asked, what becomes of their answers, and what is said when one misbehaves."""

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
from xpo.feedback.judges import Judge, JudgeOptions, Question, find_judge
from xpo.feedback.opinions import judge_average, preferred, rlaif_debias
from xpo.feedback.parsing import PAIR, choice, fill, points, read_template
from xpo.feedback.questions import Answers, Asker, Wording, plain
from xpo.feedback.tally import Tally
from xpo.train.settings import ModelSettings

CONFIG = ModelSettings()
OPTIONS = JudgeOptions()
ONE = Group([1, 2], row=0, source={"prompt": "w1 w2", "level": 3})
OTHER = Group([5], row=1, source={"prompt": "w5", "level": 8})
SHORT, LONG, EMPTY = Completion([3, tiny.EOS]), Completion([4, 0, 6, tiny.EOS]), Completion([tiny.EOS])
QUESTIONS = [Question(ONE, SHORT, LONG), Question(OTHER, LONG, EMPTY), Question(OTHER, EMPTY, SHORT)]


def found(spec: Any, known: dict[str, Any] | None = None, options: JudgeOptions = OPTIONS) -> Judge:
    judge = find_judge(spec, known or {}, CONFIG, options)
    judge.bind(None, tiny.tokenizer())
    return judge


class Scripted(Asker):
    """Answers by what the two texts are."""

    both_orders = True

    def __init__(self, answers: dict[tuple[str, str], float | str]) -> None:
        self.answers = answers
        self.calls: list[int] = []

    def __call__(self, questions: Sequence[Wording]) -> Answers:
        self.calls.append(len(questions))
        return Answers([self.answers[plain(one.first), plain(one.second)] for one in questions], 10, 2)


def scripted(answers: dict[tuple[str, str], float | str]) -> tuple[Judge, Scripted]:
    ask = Scripted(answers)
    return Judge("scripted", ask, True, tokenizer=tiny.tokenizer()), ask


def test_a_function_sees_prompts_pairs_of_texts_and_columns() -> None:
    seen: dict[str, Any] = {}

    def look(**given: Any) -> list[float | None]:
        seen.update(given)
        return [0.25, None, 1]

    judge = found(look)
    assert judge.compare(QUESTIONS) == [0.25, None, 1.0]
    assert judge.name == "look"
    assert not judge.both_orders
    assert seen == {
        "prompts": ["w1 w2", "w5", "w5"],
        "completions": [("w3", "w4 w0 w6"), ("w4 w0 w6", ""), ("", "w3")],
        "level": [3, 8, 8],
    }
    assert judge.tally.failed == {"no verdict": 1}


def test_conversations_get_messages() -> None:
    seen: dict[str, Any] = {}
    group = Group([1], source={"prompt": [{"role": "user", "content": "w1"}]})
    found(lambda **given: seen.update(given) or [0.5]).compare([Question(group, SHORT, LONG)])
    assert seen["prompts"] == [[{"role": "user", "content": "w1"}]]
    said = [[{"role": "assistant", "content": text}] for text in ("w3", "w4 w0 w6")]
    assert seen["completions"] == [tuple(said)]


def test_rows_without_a_prompt_have_theirs_decoded() -> None:
    seen: dict[str, Any] = {}
    found(lambda **given: seen.update(given) or [0.5]).compare([Question(Group([7, 8]), SHORT, LONG)])
    assert seen["prompts"] == ["w7 w8"]


class Ranker:
    """TRL's interface: the place of the better one, -1 for a failure."""

    def __init__(self, places: list[Any]) -> None:
        self.places = places
        self.given: dict[str, Any] = {}

    def judge(self, prompts: list[str], completions: list[list[str]], shuffle_order: bool = True) -> list[Any]:
        self.given = {"prompts": prompts, "completions": completions, "shuffle_order": shuffle_order}
        return self.places


def test_a_judge_with_the_interface_of_trl() -> None:
    ranker = Ranker([0, 1, -1])
    judge = found(ranker)
    assert judge.name == "Ranker"
    assert judge.compare(QUESTIONS) == [1.0, 0.0, None]
    assert ranker.given["completions"] == [["w3", "w4 w0 w6"], ["w4 w0 w6", ""], ["", "w3"]]
    # Shuffling is how a failure, -1, once became 1 - (-1) = 2.
    assert ranker.given["shuffle_order"] is False
    assert judge.tally.failed == {"no verdict": 1}
    with pytest.raises(FeedbackError, match="'Ranker' returned 2; judge"):
        found(Ranker([0, 2, 1])).compare(QUESTIONS)


def raising(**_: Any) -> list[float]:
    raise KeyError("answer")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, "judge 'raising' raised KeyError: 'answer'"),
        (lambda **_: [1.0, 0.0], "returned 2 verdicts for 3 questions"),
        (lambda **_: [0.5, math.nan, 0.5], "returned nan for question 1"),
        (lambda **_: [0.5, 0.5, 1.5], "returned 1.5 for question 2; a verdict is the probability"),
        (lambda **_: [-1, 0, 1], "returned -1.0 for question 0"),
        (lambda **_: None, "must return a list of probabilities"),
        (lambda **_: ["first"] * 3, "must return a list of probabilities"),
        (lambda prompts: [1.0] * 3, "raised TypeError"),
    ],
)
def test_what_a_function_does_wrong_is_said_by_its_name(function: Any, message: str) -> None:
    with pytest.raises(FeedbackError) as error:
        found(function).compare(QUESTIONS)
    assert message in str(error.value)


def test_tensors_count_as_numbers() -> None:
    assert found(lambda **_: torch.tensor([0.25, 0.5, 1.0])).compare(QUESTIONS) == [0.25, 0.5, 1.0]


def test_both_orders_are_asked_in_one_batch_and_averaged() -> None:
    judge, ask = scripted(
        {("w3", "w4 w0 w6"): 0.9, ("w4 w0 w6", "w3"): 0.4, ("w4 w0 w6", ""): 0.8, ("", "w4 w0 w6"): 0.7}
    )
    # (0.9 + 1 - 0.4) / 2, and (0.8 + 1 - 0.7) / 2: in the second the first place won twice.
    assert judge.compare(QUESTIONS[:2]) == pytest.approx([0.75, 0.55])
    assert ask.calls == [4]
    assert (judge.tally.in_both, judge.tally.flips) == (2, 1)
    assert (judge.tally.read, judge.tally.written) == (10, 2)


@pytest.mark.parametrize("missing", [("w3", "w4 w0 w6"), ("w4 w0 w6", "w3")])
def test_a_verdict_missing_in_one_order_is_none(missing: tuple[str, str]) -> None:
    answers: dict[tuple[str, str], float | str] = {("w3", "w4 w0 w6"): 0.9, ("w4 w0 w6", "w3"): 0.4}
    judge, _ = scripted({**answers, missing: "timeout"})
    assert judge.compare(QUESTIONS[:1]) == [None]
    assert judge.tally.failed == {"timeout": 1}
    assert judge.tally.in_both == 0


def test_completions_that_read_alike_are_even_and_nobody_is_asked() -> None:
    judge, ask = scripted({("w3", ""): 0.9, ("", "w3"): 0.1})
    same = Question(ONE, SHORT, Completion([3, tiny.EOS]))
    cut = Question(ONE, SHORT, Completion([3], finished=False))
    assert judge.compare([same, Question(ONE, SHORT, EMPTY), cut]) == [0.5, pytest.approx(0.9), 0.5]
    assert ask.calls == [2]
    assert (judge.tally.asked, judge.tally.identical) == (1, 2)
    assert judge.compare([same]) == [0.5]
    assert judge.compare([]) == []
    assert ask.calls == [2]


def test_a_judge_that_knows_no_tokenizer_says_so() -> None:
    judge = find_judge(lambda **_: [1.0], {}, CONFIG, OPTIONS)
    with pytest.raises(FeedbackError, match="bind"):
        judge.compare(QUESTIONS[:1])


def test_the_tally_finds_what_judges_are_biased_by() -> None:
    tally = Tally()
    assert tally.metrics() == {}
    assert tally.lines() == []
    assert tally.add(0.9, 0.2, (8, 3)) == pytest.approx(0.85)  # the longer first one wins in both orders
    assert tally.add(0.9, 0.8, (2, 5)) == pytest.approx(0.55)  # a flip, won by the shorter
    assert tally.add(0.1, 0.7, (4, 9)) == pytest.approx(0.2)  # the longer second one
    assert tally.add(0.6, 0.6, (7, 2)) == 0.5  # a flip without a winner
    assert tally.add(0.6, "timeout", (7, 2)) is None
    assert tally.metrics() == pytest.approx(
        {
            "judge/asked": 5,
            "judge/failed": 1 / 5,
            "judge/tokens": 0,
            "judge/seconds": 0,
            "judge/flip_rate": 2 / 4,
            "judge/longer_won": 2 / 3,
            "judge/length_gap": (5 - 3 + 5) / 3,
        }
    )
    text = "\n".join(tally.lines())
    for fact in ("5 questions", "1 timeout", "50% of 4", "67% of 3", "2.3 tokens longer"):
        assert fact in text, fact


def test_the_tally_of_a_line_of_the_log_begins_anew_and_that_of_the_run_goes_on() -> None:
    tally = Tally()
    tally.add("timeout", None, (1, 2))
    tally.read = 7
    tally.reset()
    assert tally.metrics() == {}
    tally.add(1.0, None, (2, 2))
    tally.add(0.0, None, (1, 4))
    tally.read += 5
    expected = {"judge/asked": 2, "judge/failed": 0, "judge/tokens": 5, "judge/seconds": 0}
    assert tally.metrics() == {**expected, "judge/longer_won": 1, "judge/length_gap": 1.5}
    assert (tally.asked, tally.failed, tally.read) == (3, {"timeout": 1}, 12)
    tally.add("timeout", None, (1, 2))
    assert tally.metrics()["judge/failed"] == pytest.approx(1 / 3)


def test_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
def first(prompts, **_):
    return [1.0 for _ in prompts]

class Places:
    def judge(self, prompts, completions, shuffle_order):
        return [1 for _ in prompts]

places = Places()
"""
    (tmp_path / "my_judges.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    known = {"brought": lambda prompts, **_: [0.5 for _ in prompts], "package:it": Ranker([0])}
    named = [found(spec, known) for spec in ("brought", "package:it", "my_judges:first", "my_judges:places")]
    named.append(found(f"{tmp_path / 'my_judges.py'}:first"))
    assert [judge.name for judge in named] == ["brought", "package:it", "first", "places", "first"]
    assert [judge.compare(QUESTIONS[:1]) for judge in named] == [[0.5], [1.0], [1.0], [0.0], [1.0]]
    sys.modules.pop("my_judges", None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("brougt", "Did you mean 'brought'?"),
        ("sefl", "Did you mean 'self'?"),
        ("nothing", "preference model"),
        ("nowhere.at.all:f", "judge 'nowhere.at.all:f' cannot be imported"),
        ("math:nothing", "nothing"),
        ("math:pi", "pi"),
        ("openai:gpt", "--judge_url is not given"),
        ("rubric:openai:gpt", "--judge_url is not given"),
        ("rubric:brought", "'rubric:brought' names no language model"),
        ("rubric:sefl", "Did you mean 'self'?"),
        (Ranker, "is the class Ranker; give a function, or an object"),
        (3, "judge 'int' is 3"),
    ],
)
def test_specs_that_lead_nowhere(spec: Any, message: str) -> None:
    with pytest.raises(SettingError) as error:
        found(spec, {"brought": lambda **_: []})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "spec", "message"),
    [
        ({"url": "localhost:8000"}, "openai:gpt", "--judge_url is 'localhost:8000'"),
        ({"url": "http://localhost:1"}, "openai:", "names no model"),
        ({"url": "http://localhost:1"}, "self", "--judge_url is for --judge openai:MODEL"),
        ({"url": "http://localhost:1"}, len, "--judge_url is for language models"),
        ({"template": "some.txt"}, len, "--judge_template is for language models"),
        ({"template": "/no/such/file"}, "self", "--judge_template /no/such/file cannot be read"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], spec: Any, message: str) -> None:
    with pytest.raises(SettingError) as error:
        found(spec, options=JudgeOptions(**options))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"), [("timeout", 0), ("timeout", math.nan), ("retries", -1), ("concurrency", 0)]
)
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=f"--judge_{name} is"):
        JudgeOptions(**{name: value})


def test_two_orders_of_log_probabilities() -> None:
    # By hand: exp(-0.2) / (exp(-0.2) + exp(-1.8)) = 1 / (1 + exp(-1.6)), and the same of the other order taken off 1.
    (p,) = rlaif_debias(order_ab=[[-0.2, -1.8]], order_ba=[[-1.1, -0.4]])["p_a"]
    assert p == pytest.approx((1 / (1 + math.exp(-1.6)) + 1 - 1 / (1 + math.exp(0.7))) / 2, abs=1e-12)
    # One who always says "1" prefers nobody.
    assert rlaif_debias(order_ab=[[-0.01, -9.0]], order_ba=[[-0.01, -9.0]])["p_a"] == pytest.approx([0.5])
    assert preferred(-900.0, -1.0) == pytest.approx(0.0)
    assert preferred(-1.0, -900.0) == 1.0


def test_what_could_not_be_read_is_left_out_of_a_mean_and_is_not_zero() -> None:
    samples = [[4.0, 5.0, 3.0], [None, 2.0, None], [None, None], []]
    assert judge_average(samples=samples) == {"scores": [4.0, 2.0, None, None]}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), (" 2\n", 0.0), ("", None), ("12", None), ("1 or 2", None), ("one", None), ("3", None), ("-1", None)],
)
def test_a_choice_is_1_or_2(text: str, value: float | None) -> None:
    assert choice(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It helps.\nScore: 4", 4.0),
        ("**Score:** 3.5", 3.5),
        ("score: 0.", 0.0),
        ("Score: 5/5", 5.0),
        ("Score: 2\n\nScore: 2", 2.0),
        ("Score: 2\n\nScore: 3", None),
        ("Score: 10", None),
        ("Score: 8/10", None),
        ("Score: 4/50", None),
        ("Score: -1", None),
        ("Score: 5.5", None),
        ("Score: N", None),
        ("Score: many, 3", None),
        ("4", None),
        ("I give 4 points", None),
        ("Underscore: 4", None),
        ("", None),
    ],
)
def test_points_are_read_strictly(text: str, value: float | None) -> None:
    assert points(text) == value


def test_a_template_must_name_what_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "question.txt"
    path.write_text("{prompt} -> {first}?")
    with pytest.raises(SettingError, match=r"lacks \{second\}; a question names \{prompt\}, \{first\}, \{second\}"):
        read_template(str(path), PAIR)
    path.write_text('Answer in JSON {"x": 1}: {prompt} {first} {second}')
    # Braces in the template and in the texts are text, and names in the texts are not filled in again.
    filled = fill(read_template(str(path), PAIR), prompt="{first}", first="{a} \\1", second="{prompt}")
    assert filled == 'Answer in JSON {"x": 1}: {first} {a} \\1 {prompt}'


def test_conversations_are_told_as_text() -> None:
    assert plain([{"role": "user", "content": "Hello"}]) == "Hello"
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert plain(turns) == "User: Hello\n\nAssistant: Hi"
