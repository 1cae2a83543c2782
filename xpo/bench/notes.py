"""What a reader of the table should know beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpo.bench.scores import ACCURACY, WINS, Column


def notes_of(records: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    """What the table does not show and the numbers depend on."""
    cells = [cell for cell in records["cells"] if cell["status"] == "done"]
    missing = sum(cell["status"] == "missing" for cell in records["cells"])
    found = [*records["notes"], *records["start"].get("notes", ())]
    if missing:
        found.append(f"not finished: {missing} of {len(records['cells'])} cells have not been run")
    if ACCURACY not in columns and cells:
        found.append("no preference accuracy: no preferences are held out")
    if WINS not in columns and cells:
        found.append("no win rate: nobody says what samples are worth (--eval_reward, --eval_judge)")
    unjudged = sum(cell["examined"]["test"].get("unjudged", 0) for cell in cells)
    if unjudged:
        found.append(f"the judge had no verdict on {unjudged} samples, which count as half a win")
    measured = records["start"]["examined"]["test"].get("measured", {})
    single = [column.title for column in columns if len(measured.get(column.key, ())) == 1]
    if single:
        found.append(f"one number a model: intervals and tests of {', '.join(single)} are about other seeds alone")
    budget = records["shared"]["budget_tokens"]
    short = [] if budget is None else [name_of(cell) for cell in cells if cell["tokens"] < budget]
    if short:
        found.append(f"ended before the budget of {budget:,} tokens, by --max_steps: {', '.join(short)}")
    for name, kinds in (
        ("versions of xpo", {cell["xpo_version"] for cell in cells}),
        ("devices", {cell["device"]["name"] for cell in cells}),
    ):
        if len(kinds) > 1:
            found.append(f"cells ran on several {name}: {', '.join(sorted(kinds))}")
    if len(records["seeds"]) == 1:
        found.append("one seed: intervals and tests are about other prompts, and say nothing of other seeds")
    return found


def name_of(cell: Mapping[str, Any]) -> str:
    """A cell as people call it."""
    return ", ".join(filter(None, [cell["method"], cell["setting"], f"seed {cell['seed']}"]))
