"""The rows to label: prompts to sample for, or prompts whose completions are there and only want judging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.rows import Row
from xpo.data.sources import Rows, read
from xpo.errors import DataError
from xpo.label.settings import LabelSettings
from xpo.plugins import Registry
from xpo.train.settings import EMBEDDED


@dataclass(frozen=True)
class Source:
    """What is labelled.

    Attributes:
        rows: the rows as they were read.
        prompts: a checked row for each of them, with the completions it holds; pairs of one text are left out.
        sampled: whether completions are still to be sampled.
        lines: what happened to the rows.
    """

    rows: Rows
    prompts: list[Row]
    sampled: bool
    lines: list[str]


def read_source(settings: LabelSettings, registry: Registry) -> Source:
    """Read and check the rows; those with chosen and rejected, or with completions, need no sampling.

    Raises:
        DataError: there is no such data, it has no prompts, or a row is not what it must be.
    """
    rows = _rows(settings, registry)
    limit = settings.own.limit
    if limit is not None and limit < len(rows):
        rows = rows.select(range(limit))
    there, counts = set(rows.columns), Counts()
    if {"chosen", "rejected"} <= there:
        prompts = canonical(rows, "pairs", counts)
    elif "completions" in there:
        prompts = _lists(rows, counts)
    else:
        detect(rows.columns, want="rollouts", origin=rows.origin)
        if "prompt" not in there:
            raise DataError(f"{rows.origin} has no column 'prompt'; it has {', '.join(rows.columns)}")
        return Source(rows, canonical(rows, "rollouts", counts), True, counts.lines())
    return Source(rows, prompts, False, counts.lines())


def _rows(settings: LabelSettings, registry: Registry) -> Rows:
    name, split = settings.run.dataset_name or EMBEDDED, settings.run.dataset_train_split
    plugin = registry.dataset(name)
    if plugin is None:
        return read(name, split=split, config=settings.run.dataset_config)
    function, spec = plugin
    return Rows.of(function(spec, "rollouts", split), f"{name}[{split}]")


def _lists(rows: Rows, counts: Counts) -> list[Row]:
    """Lists whose scores, if there are any, are nobody's concern: they are to be judged anew."""
    blank = Rows([_unscored(row) for row in rows.rows], rows.origin, rows.parts, rows.numbers)
    found = canonical(blank, "lists", counts)
    for row in found:
        row.source = rows.rows[row.index]
    return found


def _unscored(row: Mapping[str, Any]) -> dict[str, Any]:
    said = row.get("completions")
    return {**row, "scores": [0.0] * (len(said) if isinstance(said, list) else 1)}
