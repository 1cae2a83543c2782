"""A case made ready: which rows in which order, and what every step has to do."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from benchmarks.throughput.cases import Case
from benchmarks.throughput.flops import Work, work
from benchmarks.throughput.rows import Row, Source, rows_of, write
from xpo.api.groups import Group
from xpo.data.prepare import prepare
from xpo.data.sources import Rows
from xpo.errors import DataError
from xpo.plugins import load


@dataclass(frozen=True)
class Plan:
    """What the runs of a case have in common.

    Attributes:
        rows: file of the rows, shuffled; every library takes them as they come.
        work: what each step has to do.
        held_out: tokens of held-out pairs, if any.
        left_out: rows of the material that are too long to take part.
    """

    rows: str
    work: Sequence[Work]
    held_out: str | None
    left_out: int

    def describe(self) -> dict[str, Any]:
        return {"left_out": self.left_out, "work": [asdict(step) for step in self.work]}


def plan(
    case: Case,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    steps: int,
    max_length: int,
    seed: int,
) -> Plan:
    """Choose the rows of ``steps`` steps, or of one epoch where the case holds rows out, and write them to ``folder``.

    Only rows that fit as they are take part: libraries cut too long ones in different ways.
    """
    rows = rows_of(case, source.rows, seed)
    fitting = _fitting(case, rows, tokenizer, max_length)
    order = list(fitting)
    random.Random(f"rows {seed}").shuffle(order)
    held: list[int] = []
    if case.hold_out:
        held, chosen = _held_out(rows, order, min(case.hold_out, len(order) // 5))
    else:
        chosen = _one_a_prompt(order, fitting)[: steps * case.batch]
        if len(chosen) < steps * case.batch:
            raise DataError(
                f"{source.name}: {case.name} takes {steps} steps of {case.batch} rows and finds {len(chosen)} that "
                f"fit into {max_length} tokens, each with a prompt of its own; give more rows or fewer --steps"
            )
    folder.mkdir(parents=True, exist_ok=True)
    algorithm = load().algorithm(case.algorithm).cls()
    batches = [chosen[first : first + case.batch] for first in range(0, len(chosen), case.batch)]
    return Plan(
        rows=write([rows[index] for index in chosen], folder / "rows.jsonl"),
        work=[work(algorithm.collate([fitting[index] for index in batch])) for batch in batches],
        held_out=_write_tokens([fitting[index] for index in held], folder / "held-out.json") if held else None,
        left_out=len(rows) - len(fitting),
    )


def _fitting(case: Case, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[int, Group]:
    """The rows that neither library would shorten, by their number."""
    kind = load().algorithm(case.algorithm).cls.data
    groups = prepare(Rows.of(rows), kind, tokenizer, max_length=None).groups
    return {
        group.row: group
        for group in groups
        if len(group.prompt_ids) + max(len(completion.ids) for completion in group.completions) <= max_length
    }


def _one_a_prompt(order: Sequence[int], groups: Mapping[int, Group]) -> list[int]:
    first: dict[tuple[int, ...], int] = {}
    for index in order:
        first.setdefault(tuple(groups[index].prompt_ids), index)
    return list(first.values())


def _held_out(rows: Sequence[Row], order: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """(rows to judge by, rows to learn from): no prompt is among both."""
    prompts: dict[str, list[int]] = {}
    for index in order:
        prompts.setdefault(json.dumps(rows[index]["prompt"], sort_keys=True), []).append(index)
    held: list[int] = []
    for some in prompts.values():
        if len(held) >= count:
            break
        held += some
    out = set(held)
    return held, [index for index in order if index not in out]


def _write_tokens(groups: Sequence[Group], path: Path) -> str:
    pairs = [
        {"prompt": group.prompt_ids, **{completion.role: completion.ids for completion in group.completions}}
        for group in groups
    ]
    path.write_text(json.dumps(pairs), encoding="utf-8")
    return str(path)
