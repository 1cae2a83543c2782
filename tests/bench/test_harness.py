"""The lm-evaluation-harness as an evaluator: against log-likelihoods by hand where it is installed, else a stand-in."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.bench.conftest import Here, suite
from tests.bench.test_worker import COMMON
from xpo import Examined
from xpo.bench import harness
from xpo.bench.harness import Asked, parse
from xpo.errors import SettingError

#: Questions with two answers each, of different lengths.
QUESTIONS = [
    {"question": f"w{n} w{n + 1}", "choices": [f"w{n + 9}", f"w{n + 3} w{n + 4} w2"], "answer": n % 2} for n in range(9)
]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """No task is remembered from another test."""
    for one in (harness._tasks, harness._manager):
        one.cache_clear()
    yield
    for one in (harness._tasks, harness._manager):
        one.cache_clear()


def examined(argument: str) -> Examined:
    return Examined(tiny.model(), tiny.tokenizer(), [], [], [], torch.device("cpu"), 0, argument)


def test_an_argument_is_read() -> None:
    assert parse("arc_easy") == Asked(("arc_easy",))
    assert parse("a+b:limit=5:fewshot=0:metric=acc:include_path=/x/y:chat=true:batch=2") == Asked(
        ("a", "b"), 5, 0, "acc", "/x/y", True, 2
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "it names no task; write lm-eval:TASK"),
        ("a+", "it names no task"),
        ("a+a", "it names a twice"),
        ("a:limt=3", r"'limt=3' makes no sense there\. Did you mean 'limit'\?"),
        ("a:limit", "'limit' makes no sense there"),
        ("a:limit=1:limit=2", "'limit=2' makes no sense there"),
        ("a:limit=0", "limit=0 must be a whole number"),
        ("a:chat=yes", "chat=yes must be true or false"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(argument: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse(argument)


def test_without_the_library_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(
        SettingError, match=r"evaluator 'lm-eval:arc_easy' of xpo .* it needs lm-eval, .*: pip install lm-eval"
    ):
        suite(f"--algos dpo --evaluators lm-eval:arc_easy --output_dir {tmp_path / 'one'}")
    assert not (tmp_path / "one").exists()


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


class Task:
    def __init__(self, **metrics: Any) -> None:
        self.metrics = metrics

    def aggregation(self) -> dict[str, Any]:
        return self.metrics

    def higher_is_better(self) -> dict[str, bool]:
        return {"acc": True, "acc_norm": True, "perplexity": False}


class Library:
    """As much of the harness as is used: a group of two tasks, and one that no mean is taken of."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.tasks = {
            "first": {"first": Task(acc=mean, acc_norm=mean)},
            "both": {"one": Task(acc=mean, acc_norm=mean), "two": Task(acc=mean)},
            "odd": {"odd": Task(mcc=len, words=mean)},
            "offline": {},
        }

    def manager(self, include_path: str | None) -> Any:
        def load(names: list[str]) -> Any:
            if names == ["offline"]:
                raise ConnectionError("no\nnetwork")
            return {"tasks": self.tasks[names[0]]}

        self.include_path = include_path
        return SimpleNamespace(all_tasks=list(self.tasks), load=load)

    def simple_evaluate(self, **settings: Any) -> Any:
        self.calls.append(settings)
        return {
            "samples": {
                "first": [{"doc_id": n, "filter": "none", "acc_norm": n % 2, "acc": 0} for n in (3, 0, 2, 1)],
                "one": [
                    {"doc_id": n, "filter": kind, "acc": float(kind == "strict")}
                    for n in range(2)
                    for kind in ("strict", "loose")
                ],
                "two": [{"doc_id": 0, "filter": "none", "acc": 0.0}],
                "odd": [{"doc_id": 0, "filter": "none", "words": 7}],
            }
        }


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    names = (
        "lm_eval",
        "lm_eval.tasks",
        "lm_eval.api",
        "lm_eval.api.metrics",
        "lm_eval.models",
        "lm_eval.models.huggingface",
    )
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["lm_eval"])["simple_evaluate"] = made.simple_evaluate
    vars(sys.modules["lm_eval.tasks"])["TaskManager"] = made.manager
    vars(sys.modules["lm_eval.api.metrics"])["mean"] = mean
    vars(sys.modules["lm_eval.models.huggingface"])["HFLM"] = SimpleNamespace
    monkeypatch.setattr(harness, "version", lambda name: "0")
    return made


def test_a_task_or_a_group_is_a_column_of_documents_in_their_order(library: Library) -> None:
    argument = "first+both:limit=4:fewshot=2:include_path=/mine:chat=true"
    first, both = harness.columns(argument)
    assert (first.key, first.title, first.better, first.share) == ("first", "first, acc_norm", "up", True)
    assert (both.key, both.title) == ("both", "both, acc")  # not all of the group have acc_norm
    assert both.note == "lm-eval 0, 2 tasks, 2 examples, at most 4 documents of each task, chat template"
    assert harness.measure(examined(argument)) == {"first": [0.0, 1.0, 0.0, 1.0], "both": [1.0, 1.0, 0.0]}
    assert library.include_path == "/mine"
    [call, _] = library.calls
    assert {call[f"{name}_seed"] for name in ("random", "numpy_random", "torch_random", "fewshot_random")} == {0}
    assert (call["tasks"], call["limit"], call["num_fewshot"], call["apply_chat_template"]) == (["first"], 4, 2, True)
    assert call["model"].pretrained.config.vocab_size == tiny.SIZE


def test_metrics_are_means_over_documents(library: Library) -> None:
    with pytest.raises(SettingError, match=r"odd has no metric acc_norm or acc or exact_match .*:metric=NAME of words"):
        harness.columns("odd")
    with pytest.raises(SettingError, match="odd has no metric mcc that is a mean over documents"):
        harness.columns("odd:metric=mcc")
    [column] = harness.columns("odd:metric=words")
    assert (column.title, column.better, column.share) == ("odd, words", None, False)
    assert harness.measure(examined("odd:metric=words")) == {"odd": [7.0]}


def test_a_task_that_is_not_there_is_said(library: Library) -> None:
    with pytest.raises(SettingError, match=r"lm-eval has no task 'frst'\. Did you mean 'first'\?"):
        harness.columns("frst")
    with pytest.raises(SettingError, match="the data of task 'offline' cannot be had: no network"):
        harness.columns("offline")


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The argument for a task of our own, of the real library."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    plain = importlib.import_module("lm_eval.tasks").TaskManager
    # Thousands of files are not looked through here.
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager", lambda include_path: plain(include_path=include_path, include_defaults=False)
    )
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    metrics = "".join(
        f"  - {{metric: {name}, aggregation: mean, higher_is_better: true}}\n" for name in ("acc", "acc_norm")
    )
    (folder / "questions.yaml").write_text(
        "task: Questions.A\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'questions.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
        f"metric_list:\n{metrics}"
    )
    return f"Questions.A:include_path={folder}"


def right(model: torch.nn.Module, per_character: bool) -> list[float]:
    """Whether the right answer of each question is the likelier one, a character where they are compared so."""
    found = []
    for row in QUESTIONS:
        prompt = [tiny.WORDS.index(word) for word in str(row["question"]).split()]
        scores = []
        for choice in row["choices"]:  # type: ignore[attr-defined]  # a list of texts
            ids = [tiny.WORDS.index(word) for word in choice.split()]
            with torch.no_grad():
                logps = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
            total = sum(logps[len(prompt) + place - 1, token].item() for place, token in enumerate(ids))
            scores.append(total / len(choice) if per_character else total)
        found.append(float(scores.index(max(scores)) == row["answer"]))
    return found


def test_scores_are_those_of_log_likelihoods_by_hand(questions: str) -> None:
    [column] = harness.columns(questions)
    assert (column.key, column.title, column.better) == ("questions_a", "Questions.A, acc_norm", "up")
    by_hand = {per: right(tiny.model(), per) for per in (False, True)}
    assert by_hand[False] != by_hand[True]
    assert harness.measure(examined(questions)) == {"questions_a": by_hand[True]}
    assert harness.measure(examined(f"{questions}:metric=acc")) == {"questions_a": by_hand[False]}
    assert harness.measure(examined(f"{questions}:limit=4")) == {"questions_a": by_hand[True][:4]}


def test_a_suite_has_the_task_as_a_column(
    questions: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    words = f"--model model --dataset pairs.jsonl --reward mine.py:short {COMMON} --output_dir {tmp_path / 'one'}"
    found = suite(f"--algos dpo --max_steps 1 --evaluators lm-eval:{questions} {words}", Here())
    assert found.failures == []
    body = json.loads((tmp_path / "one/records.json").read_text())
    assert body["start"]["examined"]["test"]["measured"] == {"questions_a": right(tiny.model(), True)}
    assert [column.title for column in found.columns][-1] == "Questions.A, acc_norm"
