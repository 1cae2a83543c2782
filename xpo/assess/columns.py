"""The columns of the table: shares of subsets put together, and the marks of those that agree most often."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xpo.assess.sections import Section
from xpo.assess.shares import paired_p, share_of, together
from xpo.assess.subsets import WHOLE
from xpo.train.intervals import Estimate
from xpo.train.marked import marks

Values = Mapping[str, Mapping[int, float]]  # subset -> item -> agreement
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Column:
    """A share of the table.

    Attributes:
        key: its name in files.
        title: its name for people.
        weigh: from the items of each subset to the share that each subset has in the column.
        pooled: every item counts the same, whatever subset it is of.
    """

    key: str
    title: str
    weigh: Callable[[Counts], Mapping[str, float]]
    pooled: bool = False

    def estimate(self, values: Values) -> Estimate:
        """The share and its interval; NaN where there is nothing."""
        if self.pooled:
            return share_of([one for some in values.values() for one in some.values()])
        shares = {name: share_of(list(some.values())) for name, some in values.items() if some}
        return together(shares, self.weigh({name: len(some) for name, some in values.items() if some}))

    def p(self, one: Values, other: Values) -> float:
        """Of the test that two scorers agree equally often, on the items both have an opinion on."""
        differences = {
            name: [value - other[name][item] for item, value in some.items() if item in other[name]]
            for name, some in one.items()
        }
        if self.pooled:
            differences = {WHOLE: [value for some in differences.values() for value in some]}
        there = {name: len(some) for name, some in differences.items() if some}
        weights = {WHOLE: 1.0} if self.pooled and there else self.weigh(there)
        return paired_p(differences, weights) if weights else math.nan


def columns_of(subsets: Sequence[str], sections: Sequence[Section]) -> list[Column]:
    """Overall means, sections, subsets."""
    found = [Column("mean_over_all", "all", lambda counts: {}, pooled=True)]
    if len(subsets) > 1:
        found.append(Column("mean_of_subsets", "mean of subsets", _evenly))
    if sections:
        found += [Column(f"section/{one.name}", one.name, one.weights) for one in sections]
        found.append(Column("mean_of_sections", "mean of sections", lambda counts: _of_sections(sections, counts)))
    if len(subsets) > 1:
        found += [Column(f"subset/{name}", name, _only(name)) for name in subsets]
    return found


def _only(name: str) -> Callable[[Counts], Mapping[str, float]]:
    return lambda counts: {name: 1.0} if name in counts else {}


def _evenly(counts: Counts) -> dict[str, float]:
    return {name: 1 / len(counts) for name in counts}


def _of_sections(sections: Sequence[Section], counts: Counts) -> dict[str, float]:
    there = [weights for one in sections if (weights := one.weights(counts))]
    found: dict[str, float] = {}
    for weights in there:
        for name, weight in weights.items():
            found[name] = found.get(name, 0.0) + weight / len(there)
    return found


def marks_of(column: Column, values: Mapping[str, Values]) -> dict[str, str]:
    """The best of a column, and those that a paired test cannot tell from it; nothing of a single scorer."""
    means = {name: column.estimate(some).value for name, some in values.items()}
    means = {name: mean for name, mean in means.items() if math.isfinite(mean)}
    if len(means) < 2:
        return {}
    return marks(means, lambda one, other: column.p(values[one], values[other]))
