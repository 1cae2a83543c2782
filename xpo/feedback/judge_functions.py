"""Judges that are Python: functions in xpo's signature, and objects with TRL's interface of pairwise judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpo.errors import FeedbackError, SettingError
from xpo.feedback.questions import Answers, Asker, Wording
from xpo.feedback.waiting import called

#: What TRL's judges return: the place of the better one, or -1 for a question that failed. It must never be counted
#: with, for 1 - (-1) is no place.
_PLACES = {0: 1.0, 1: 0.0, -1: None}

_RESERVED = {"prompt", "prompts", "completions"}


def usable(found: object) -> bool:
    """Whether a thing can be asked."""
    return callable(found) or callable(getattr(found, "judge", None))


class FunctionJudge(Asker):
    """``f(prompts, completions, **columns)``, or the ``judge()`` of an object; asked once, in the order there is."""

    def __init__(self, name: str, function: Any) -> None:
        if isinstance(function, type) or not usable(function):
            found = f"the class {function.__name__}" if isinstance(function, type) else repr(function)
            raise SettingError(
                f"judge '{name}' is {found}; give a function, or an object with a method judge(prompts, completions)"
            )
        self.name, self.function = name, function

    def __call__(self, questions: Sequence[Wording]) -> Answers:
        values = self._called(questions)
        try:
            return Answers(["no verdict" if value is None else float(value) for value in values])
        except (TypeError, ValueError) as error:
            raise FeedbackError(f"judge '{self.name}' must return a list of probabilities: {error}") from error

    def _called(self, questions: Sequence[Wording]) -> Any:
        prompts = [one.prompt for one in questions]
        judge = getattr(self.function, "judge", None)
        try:
            if callable(judge):
                pairs = [[one.first, one.second] for one in questions]
                return map(self._verdict, judge(prompts=prompts, completions=pairs, shuffle_order=False))
            names = sorted({key for one in questions for key in one.source} - _RESERVED)
            columns = {name: [one.source.get(name) for one in questions] for name in names}
            both = [(one.first, one.second) for one in questions]
            return called(self.function, prompts=prompts, completions=both, **columns)
        except Exception as error:  # a stranger's code may raise anything; the message must name it
            raise FeedbackError(f"judge '{self.name}' raised {type(error).__name__}: {error}") from error

    def _verdict(self, place: Any) -> float | None:
        if place not in _PLACES:
            raise FeedbackError(
                f"judge '{self.name}' returned {place!r}; judge() returns 0 or 1, the place of the better one, or -1"
            )
        return _PLACES[place]
