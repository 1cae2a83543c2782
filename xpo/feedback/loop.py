"""What TRL hands to reward functions beside the data: ``trainer_state``, ``log_metric`` and ``log_extra``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xpo.api.groups import Completion, Group
from xpo.errors import FeedbackError

STATE = "trainer_state"
#: Keywords that are no columns of the data.
NAMES = frozenset({STATE, "log_metric", "log_extra"})


@dataclass
class Loop:
    """The loop that completions are rewarded in, as reward functions see it.

    Attributes:
        state: gives the state of the trainer, a ``transformers.TrainerState``; None where nothing is trained.
        metrics: numbers by name that functions had logged of the completions that were rewarded last.
        columns: values by column that they told of each of those completions.
    """

    state: Callable[[], Any] | None = None
    metrics: dict[str, list[float]] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    _rows: Sequence[tuple[Group, Completion]] = field(default=(), repr=False)

    def begin(self, rows: Sequence[tuple[Group, Completion]]) -> None:
        """Forget what was told of other completions."""
        self.metrics, self.columns, self._rows = {}, {}, rows

    def given(self, name: str, function: Callable[..., Any]) -> dict[str, Any]:
        """The keywords that a function takes of those there are.

        Raises:
            FeedbackError: it needs the state of a trainer, and there is none.
        """
        takes, needs = _asked(function)
        if self.state is None and STATE in needs:
            raise FeedbackError(
                f"reward '{name}' asks for {STATE}, which there is only where samples are trained on; give it a "
                f"default: {STATE}=None"
            )
        there: dict[str, Any] = {
            "log_metric": lambda metric, value: self._log_metric(name, metric, value),
            "log_extra": lambda column, values: self._log_extra(name, column, values),
        }
        if self.state is not None:
            there[STATE] = self.state()
        return {key: value for key, value in there.items() if key in takes}

    def told(self, group: Group, completion: Completion) -> Mapping[str, Any]:
        """What functions told of a completion by column, if it is one of those that were rewarded last."""
        for place, (of, one) in enumerate(self._rows):
            if (of.row, one.ids) == (group.row, completion.ids):
                return {column: values[place] for column, values in self.columns.items()}
        return {}

    def _log_metric(self, reward: str, name: str, value: Any) -> None:
        try:
            self.metrics.setdefault(str(name), []).append(float(value))
        except (TypeError, ValueError) as error:
            raise FeedbackError(f"reward '{reward}': log_metric('{name}', ...) takes a number: {error}") from error

    def _log_extra(self, reward: str, column: str, values: Sequence[Any]) -> None:
        found = list(values)
        if len(found) != len(self._rows):
            raise FeedbackError(
                f"reward '{reward}': log_extra('{column}', ...) has {len(found)} values for {len(self._rows)} "
                "completions"
            )
        self.columns[str(column)] = found


def _asked(function: Callable[..., Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a function takes, and those of them that it cannot be called without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return frozenset(), frozenset()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        takes = NAMES
    else:
        takes = NAMES & {one.name for one in parameters if one.kind is not one.POSITIONAL_ONLY}
    return takes, NAMES & {one.name for one in parameters if one.default is one.empty}
