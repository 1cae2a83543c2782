"""``--evaluators lm-eval:TASKS``: tasks of EleutherAI's lm-evaluation-harness as columns, for those who install it.

It comes through the entry point that a stranger's package would use. The argument is
``TASK[+TASK...][:NAME=VALUE...]``, such as ``lm-eval:arc_easy+hellaswag:limit=200:fewshot=5``; a task, a group of them
or a tag is a column, whose scores are those of its documents, in their order.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from typing import Any

from xpo.api.evaluation import Column, Evaluator, Examined
from xpo.api.hookspecs import hookimpl
from xpo.errors import SettingError, did_you_mean

#: What is shown of a task that has several, unless the user says.
METRICS = ("acc_norm", "acc", "exact_match")
#: Those that are shares.
_SHARES = {*METRICS, "acc_bytes", "acc_mutual_info"}
_FORM = (
    "write lm-eval:TASK or lm-eval:TASK+TASK:NAME=VALUE, NAME one of limit, fewshot, metric, include_path, chat, batch"
)


@dataclass(frozen=True)
class Asked:
    """What the argument says.

    Attributes:
        tasks: names of tasks, groups and tags.
        limit: documents of each task, at most.
        fewshot: examples in the prompt; the task's own number if not given.
        metric: what is shown, by the name the harness has for it.
        include_path: a directory with tasks of one's own.
        chat: prompts are put into the chat template.
        batch: prompts computed at once.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    fewshot: int | None = None
    metric: str | None = None
    include_path: str | None = None
    chat: bool = False
    batch: int = 8


def parse(argument: str) -> Asked:
    """Read an argument.

    Raises:
        SettingError: it cannot be read.
    """
    first, *rest = argument.split(":")
    tasks = [name.strip() for name in first.split("+")]
    if not all(tasks):
        raise SettingError(f"it names no task; {_FORM}")
    if twice := sorted({name for name in tasks if tasks.count(name) > 1}):
        raise SettingError(f"it names {', '.join(twice)} twice")
    known = [one.name for one in fields(Asked)][1:]
    values: dict[str, Any] = {}
    for part in rest:
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in known or not equals or not text or name in values:
            raise SettingError(f"'{part}' makes no sense there.{did_you_mean(name, known)} Please {_FORM}")
        values[name] = _value(name, text)
    return Asked(tuple(tasks), **values)


def _value(name: str, text: str) -> Any:
    if name == "chat":
        if text not in ("true", "false"):
            raise SettingError(f"chat={text} must be true or false")
        return text == "true"
    if name in ("limit", "fewshot", "batch"):
        if not text.isdecimal() or (int(text) < 1 and name != "fewshot"):
            raise SettingError(f"{name}={text} must be a whole number")
        return int(text)
    return text


def columns(argument: str) -> list[Column]:
    """A column for each task, group or tag. Reads the tasks and their data, so that what is missing is known at once.

    Raises:
        SettingError: the harness is not installed, has no such task, or its metric is no mean over documents.
    """
    asked = parse(argument)
    found = []
    for name in asked.tasks:
        tasks = _tasks(asked, name)
        metric = _metric(asked, name, tasks)
        better = {task.higher_is_better().get(metric) for task in tasks.values()}
        facts = [
            f"lm-eval {version('lm_eval')}",
            *([f"{len(tasks)} tasks"] if len(tasks) > 1 else []),
            *([f"{asked.fewshot} examples"] if asked.fewshot is not None else []),
            *([f"at most {asked.limit} documents of each task"] if asked.limit is not None else []),
            *(["chat template"] if asked.chat else []),
        ]
        found.append(
            Column(
                re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-"),
                f"{name}, {metric}",
                {True: "up", False: "down"}.get(better.pop()) if len(better) == 1 else None,  # type: ignore[arg-type]  # of two texts
                share=metric in _SHARES,
                digits=1 if metric in _SHARES else 3,
                note=", ".join(facts),
            )
        )
    return found


def measure(examined: Examined) -> Mapping[str, Sequence[float]]:
    """Scores of a model: of each document of a task, in the order of the data."""
    asked, library = parse(examined.argument), _library()
    model = importlib.import_module("lm_eval.models.huggingface").HFLM(
        pretrained=examined.model, tokenizer=examined.tokenizer, batch_size=asked.batch
    )
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    found = {}
    for name, column in zip(asked.tasks, columns(examined.argument), strict=True):
        tasks = _tasks(asked, name)
        metric = _metric(asked, name, tasks)
        told = library.simple_evaluate(
            model=model,
            tasks=[name],
            task_manager=_manager(asked.include_path),
            num_fewshot=asked.fewshot,
            limit=asked.limit,
            apply_chat_template=asked.chat,
            bootstrap_iters=0,  # the table has intervals of its own
            log_samples=True,
            **dict.fromkeys(seeds, examined.seed),
        )
        found[column.key] = [score for task in tasks for score in _scores(told["samples"][task], metric)]
    return found


def _scores(samples: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """A score a document. Where answers are read in several ways, by filters, the first that the task names counts."""
    ordered = sorted(samples, key=lambda one: int(one["doc_id"]))  # stable
    return [float(one[metric]) for one in ordered if one["filter"] == samples[0]["filter"]]


def _metric(asked: Asked, name: str, tasks: Mapping[str, Any]) -> str:
    """The metric that is shown of some tasks: one that all have, and that is the mean over documents."""
    mean = importlib.import_module("lm_eval.api.metrics").mean
    there = [
        {metric for metric, aggregate in task.aggregation().items() if aggregate is mean} for task in tasks.values()
    ]
    common = set.intersection(*there)
    for metric in METRICS if asked.metric is None else (asked.metric,):
        if metric in common:
            return metric
    raise SettingError(
        f"{name} has no metric {asked.metric or ' or '.join(METRICS)} that is a mean over documents; choose one with "
        f":metric=NAME of {', '.join(sorted(common)) or 'another task'}"
    )


@cache
def _tasks(asked: Asked, name: str) -> Mapping[str, Any]:
    """The tasks that a name stands for, with their data."""
    manager = _manager(asked.include_path)
    if name not in manager.all_tasks:
        raise SettingError(f"lm-eval has no task '{name}'.{did_you_mean(name, manager.all_tasks)} `lm-eval ls tasks`")
    try:
        found: Mapping[str, Any] = manager.load([name])["tasks"]
    except Exception as error:  # a hub that cannot be reached, a file that is not there, a task that is broken
        raise SettingError(f"the data of task '{name}' cannot be had: {' '.join(str(error).split())}") from error
    return found


@cache
def _manager(include_path: str | None) -> Any:
    _library()
    return importlib.import_module("lm_eval.tasks").TaskManager(include_path=include_path)


def _library() -> Any:
    try:
        found = importlib.import_module("lm_eval")
        importlib.import_module("lm_eval.models.huggingface")
    except ImportError as error:
        raise SettingError(f"it needs lm-eval, which cannot be imported ({error}): pip install lm-eval") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of what is meant here
    return found


@hookimpl
def xpo_evaluators() -> Mapping[str, Evaluator]:
    """``--evaluators lm-eval:TASKS``."""
    return {"lm-eval": Evaluator(columns, measure)}
