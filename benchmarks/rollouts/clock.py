"""What sampling takes: a function that is called for it, timed from outside, the same on every side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Clock:
    """When sampling began, how long it took and how many tokens it made; those after an end are not counted."""

    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def around(self, function: Callable[..., Any], tokens: Callable[..., int]) -> Callable[..., Any]:
        """``function``, timed; ``tokens`` counts what a call made, from its result and its arguments."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.calls.append((began, time.perf_counter() - began, tokens(result, *args, **kwargs)))
            return result

        return timed

    def steps(self, began: float, ends: list[float]) -> list[dict[str, float]]:
        """Seconds and tokens of each step. What was sampled before training is of none.

        Args: when training began, and the seconds from then to the end of each step.
        """
        starts = [0.0, *ends[:-1]]
        return [
            {
                "seconds": sum(seconds for at, seconds, _ in self.calls if start <= at - began < end),
                "tokens": sum(made for at, _, made in self.calls if start <= at - began < end),
            }
            for start, end in zip(starts, ends, strict=True)
        ]
