"""From opinions to the table: a line for each scorer, a column for each subset and mean, and what equals the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from xpo.assess.columns import Column, columns_of, marks_of
from xpo.assess.items import Items
from xpo.assess.length import LengthCheck, Lengths, check_length, longest_wins
from xpo.assess.opinions import Opinion, agreed, value_of
from xpo.assess.position import PositionCheck, check_position
from xpo.assess.position import say as order_decides
from xpo.assess.sections import Section
from xpo.assess.subsets import WHOLE
from xpo.train.marked import Number


@dataclass(frozen=True)
class Line:
    """A scorer in the table.

    Attributes:
        name, how, reference: who, and how it scores.
        numbers: by column.
        counts: subset -> items with an opinion.
        ties: preferences it does not decide.
        undecided: preferences without an opinion.
        of: all preferences.
        length, position: the checks; ``position`` is None where the order cannot matter.
        baseline: it stands there for comparison, and is never marked.
    """

    name: str
    how: str
    reference: str | None
    numbers: Mapping[str, Number]
    counts: Mapping[str, int]
    ties: int
    undecided: int
    of: int
    length: LengthCheck
    position: PositionCheck | None = None
    model: str | None = None
    unread: Mapping[str, int] = field(default_factory=dict)
    baseline: bool = False


@dataclass(frozen=True)
class Summary:
    """All that is shown.

    Attributes:
        columns: means first, then sections, then subsets.
        lines: the scorers in the order they were named, then the one that knows nothing but length.
        counts: subset -> items, those of subsets without a preference included, at 0.
        unit: what lengths are counted in.
        notes: what a reader should know.
    """

    columns: Sequence[Column]
    lines: Sequence[Line]
    counts: Mapping[str, int]
    unit: str
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for ``eval.json``."""
        return {
            "columns": [{"key": column.key, "title": column.title} for column in self.columns],
            "lines": [plain(asdict(line)) for line in self.lines],
            "subsets": dict(self.counts),
            "length_unit": self.unit,
            "notes": list(self.notes),
        }


def summarise(
    opinions: Sequence[Opinion], items: Items, lengths: Lengths, unit: str, sections: Sequence[Section]
) -> Summary:
    """The table of what scorers say."""
    counts = {item.subset: 0 for item in items.items} | dict.fromkeys(items.empty, 0)
    for item in items.items:
        counts[item.subset] += 1
    columns = columns_of([name for name, count in counts.items() if count], sections)
    values = {opinion.name: values_of(opinion, items) for opinion in opinions}
    marks = {column.key: marks_of(column, values) for column in columns}
    lines = [
        replace(
            line, numbers={key: replace(one, mark=marks[key].get(line.name, "")) for key, one in line.numbers.items()}
        )
        for line in (_line(opinion, items, lengths, columns) for opinion in opinions)
    ]
    baseline = replace(_line(longest_wins(items.items, lengths), items, lengths, columns), baseline=True)
    notes = [line for opinion in opinions for line in opinion.lines]
    notes += [f"subset {name} has no preference in {some} rows and is left out" for name, some in items.empty.items()]
    notes += [note for line in lines for note in _notes(line, opinions, items)]
    return Summary(columns, [*lines, baseline], counts, unit, notes)


def values_of(opinion: Opinion, items: Items) -> dict[str, dict[int, float]]:
    """Agreement with each item there is an opinion on, by subset."""
    found: dict[str, dict[int, float]] = {item.subset: {} for item in items.items}
    for item in items.items:
        value = value_of(opinion.margins(item))
        if value is not None:
            found[item.subset][item.number] = value
    return found


def _line(opinion: Opinion, items: Items, lengths: Lengths, columns: Sequence[Column]) -> Line:
    values = values_of(opinion, items)
    margins = [margin for item in items.items for margin in opinion.margins(item)]
    asked = [one for some in opinion.asked.values() for one in some]
    return Line(
        opinion.name,
        opinion.how,
        opinion.reference,
        {column.key: Number.of(column.estimate(values)) for column in columns},
        {name: len(some) for name, some in values.items()},
        sum(margin == 0 for margin in margins),
        sum(margin is None for margin in margins),
        len(margins),
        check_length(opinion, items.items, lengths),
        check_position(asked) if opinion.ordered else None,
        opinion.model,
        dict(opinion.unread),
    )


def _notes(line: Line, opinions: Sequence[Opinion], items: Items) -> list[str]:
    """Sentences about a line."""
    opinion = next(one for one in opinions if one.name == line.name)
    notes = []
    if line.undecided:
        reasons = ", ".join(f"{count} {reason}" for reason, count in line.unread.items())
        notes.append(f"{line.name}: no opinion on {line.undecided} of {line.of} preferences ({reasons})")
    for name in dict.fromkeys(item.subset for item in items.items):
        margins = [one for item in items.items if item.subset == name for one in opinion.margins(item)]
        known = [agreed(one) for one in margins if one is not None]
        where = f"subset {name}" if name != WHOLE else "the data"
        if known and set(known) == {0.5}:
            notes.append(f"{line.name} decides nothing in {where}: all {len(known)} preferences are ties")
        if not known:
            notes.append(f"{line.name} has no opinion in {where}")
    if line.length.verdict:
        notes.append(line.length.verdict)
    return [*notes, *order_decides(line.name, line.position)]


def plain(value: Any) -> Any:
    """JSON values: what is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value
