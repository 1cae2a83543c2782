"""Judges: who prefers one completion to another, found by name and asked in one form, whatever kind they are."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.api.hookspecs import JudgeFunction
from xpo.errors import FeedbackError, SettingError, did_you_mean
from xpo.feedback.imports import imported
from xpo.feedback.judge_functions import FunctionJudge, usable
from xpo.feedback.judge_http import HttpJudge, Server
from xpo.feedback.judge_models import classifies, model_judge
from xpo.feedback.language_model import LanguageModel, LanguageModelJudge
from xpo.feedback.questions import Asker, JudgeOptions, Question, worded
from xpo.feedback.rubric import RubricJudge
from xpo.feedback.tally import Tally
from xpo.models.load import Policy

__all__ = ["RUBRIC", "SERVED", "Judge", "JudgeOptions", "Question", "find_judge"]

#: What a judge can be, for messages.
_POSSIBLE = (
    "module:function, file.py:function, the directory of a preference model, of a reward model or of a language "
    "model, openai:MODEL with --judge_url, self, or rubric: before one of the last three"
)
#: What comes before the name of a language model that writes reviews.
RUBRIC = "rubric:"
#: What comes before the name of a model behind a server.
SERVED = "openai:"
_SELF = "self"


@dataclass
class Judge:
    """Says how likely one completion is to be preferred to another.

    Attributes:
        name: for messages.
        ask: answers questions in words.
        both_orders: ask each question twice, with the two in either place, and take the mean.
        tally: what was asked so far on this rank, and what came of it.
        tokenizer: the policy's; :meth:`bind` sets it.
    """

    name: str
    ask: Asker
    both_orders: bool = False
    tally: Tally = field(default_factory=Tally)
    tokenizer: PreTrainedTokenizerBase | None = None

    def bind(self, model: torch.nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take up the policy and its tokenizer. Call it before the first question, and again for another model.

        Args:
            model: the policy without distributed wrapper; None where there is none yet, as long as it is not the judge.
        """
        self.tokenizer = tokenizer
        self.ask.bind(model, tokenizer)

    def compare(self, questions: Sequence[Question]) -> list[float | None]:
        """For each question the probability that the first is preferred; None where there is no verdict.

        All questions are asked in one batch. Completions that read alike are even, at 0.5, without being asked about.

        Raises:
            FeedbackError: the judge cannot be reached at all, raises, or returns what is no probability.
        """
        if self.tokenizer is None:
            raise FeedbackError(f"judge '{self.name}' has no tokenizer to read completions with; call bind() first")
        words = worded(questions, self.tokenizer)
        asked = [index for index, one in enumerate(words) if one.first != one.second]
        verdicts: list[float | None] = [0.5] * len(questions)
        self.tally.identical += len(questions) - len(asked)
        if not asked:
            return verdicts
        sides = [words[index] for index in asked]
        if self.both_orders:
            sides += [one.turned() for one in sides]
        started = time.perf_counter()
        answers = self.ask(sides)
        self.tally.seconds += time.perf_counter() - started
        self.tally.read += answers.read
        self.tally.written += answers.written
        values = self._checked(answers.values, len(sides))
        for place, index in enumerate(asked):
            turned = values[len(asked) + place] if self.both_orders else None
            lengths = len(questions[index].first.ids), len(questions[index].second.ids)
            verdicts[index] = self.tally.add(values[place], turned, lengths)
        return verdicts

    def _checked(self, values: Sequence[float | str], count: int) -> Sequence[float | str]:
        if len(values) != count:
            raise FeedbackError(f"judge '{self.name}' returned {len(values)} verdicts for {count} questions")
        for index, value in enumerate(values):
            if not isinstance(value, str) and not (math.isfinite(value) and 0.0 <= value <= 1.0):
                raise FeedbackError(
                    f"judge '{self.name}' returned {value} for question {index}; a verdict is the probability that "
                    "the first is preferred, from 0 to 1, or None"
                )
        return values


def find_judge(
    spec: str | JudgeFunction | object,
    known: Mapping[str, JudgeFunction],
    config: ModelConfig,
    options: JudgeOptions,
    policy: Policy | None = None,
) -> Judge:
    """The judge that ``spec`` names.

    Args:
        spec: a function, an object with TRL's ``judge()``, or a name: ``self``, ``openai:MODEL``, ``rubric:`` before
            one of these or before a language model, a plugin's judge, ``module:function``, ``file.py:function``, or a
            model: one that was trained as a preference model, a reward model, or a language model that is asked.
        known: the judges that plugins bring.
        config: how models are loaded.
        policy: what a model that is an adapter on the same base may share its weights with.

    Raises:
        SettingError: there is no such judge, or an option does not go with it.
        ModelError: a model cannot be loaded.
    """
    if not isinstance(spec, str):
        name = getattr(spec, "__name__", type(spec).__name__)
        return _by_function(name, spec, options)
    asks = spec.removeprefix(RUBRIC)
    if asks != spec:
        ask: Asker = RubricJudge(_generator(asks, config, options), options)
    elif spec.startswith(SERVED):
        ask = HttpJudge(_server(spec, options), options)
    elif spec == _SELF:
        ask = LanguageModelJudge(LanguageModel(seed=options.seed), options)
    elif spec in known:
        return _by_function(spec, known[spec], options)
    elif ":" in spec and not Path(spec).exists():
        module, _, function = spec.rpartition(":")
        return _by_function(function, imported(module, function, "judge", usable), options)
    elif Path(spec).is_dir() or "/" in spec:
        ask = model_judge(spec, config, options, policy)
    else:
        names = ", ".join(sorted(known)) or "none"
        likely = [*known, _SELF]
        raise SettingError(
            f"judge '{spec}' is unknown.{did_you_mean(spec, likely)} Known are: {names}; or give {_POSSIBLE}"
        )
    if options.url is not None and not asks.startswith(SERVED):
        raise SettingError(f"--judge_url is for --judge openai:MODEL, and '{spec}' asks no server")
    return Judge(Path(spec).name if Path(spec).is_dir() else spec, ask, ask.both_orders)


def _by_function(name: str, function: Any, options: JudgeOptions) -> Judge:
    for flag, value in (("judge_url", options.url), ("judge_template", options.template)):
        if value is not None:
            raise SettingError(f"--{flag} is for language models, and judge '{name}' is a function")
    return Judge(name, FunctionJudge(name, function))


def _server(spec: str, options: JudgeOptions) -> Server:
    model = spec.removeprefix(SERVED)
    if not model:
        raise SettingError("--judge openai: names no model; give openai:MODEL, as the server calls it")
    return Server.of(model, options)


def _generator(spec: str, config: ModelConfig, options: JudgeOptions) -> Server | LanguageModel:
    """What writes the reviews of a rubric."""
    if spec.startswith(SERVED):
        return _server(spec, options)
    if spec == _SELF:
        return LanguageModel(seed=options.seed)
    if not Path(spec).is_dir() and "/" not in spec:
        raise SettingError(
            f"'{RUBRIC}{spec}' names no language model.{did_you_mean(spec, [_SELF])} Give {RUBRIC}self, "
            f"{RUBRIC}openai:MODEL, or {RUBRIC} before a directory or hub id"
        )
    if classifies(spec, config):
        raise SettingError(f"'{RUBRIC}{spec}': that model gives a number and writes no review; use --judge {spec}")
    return LanguageModel.load(spec, config, options.seed)
