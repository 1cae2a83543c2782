"""Which setting of a method is reported: the best on validation prompts, which the reported numbers never see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xpo.bench.records import done, settings_of
from xpo.bench.scores import main_column, table_of
from xpo.train.intervals import Estimate


@dataclass(frozen=True)
class Tried:
    """A setting of a method.

    Attributes:
        score: on validation prompts, mean over seeds; None where no cell is done, or nothing was to choose.
        seeds, of: cells that are done, and that there are.
        chosen: whether it is the one that is reported.
    """

    method: str
    setting: str
    score: Estimate | None
    seeds: int
    of: int
    chosen: bool


def tried(records: Mapping[str, Any], method: str) -> list[Tried]:
    """All settings of a method, and which is chosen.

    One whose cells failed in part is passed over as long as another is whole; the first of equals is taken.
    """
    names = settings_of(records, method)
    column = main_column(records)
    found = []
    for name in names:
        cells = done(records, method, name)
        every = sum(cell["method"] == method and cell["setting"] == name for cell in records["cells"])
        table = table_of(column, cells, records, "validation") if records["shared"]["validation"] else None
        found.append((name, None if table is None else column.estimate(table), len(cells), every))
    if len(names) == 1:
        best: str | None = names[0]
    else:
        whole = [one for one in found if one[1] is not None and one[2] == one[3]]
        some = whole or [one for one in found if one[1] is not None]
        best = max(some, key=lambda one: one[1].value if one[1] else 0.0)[0] if some else None
    return [Tried(method, name, score, count, every, name == best) for name, score, count, every in found]
