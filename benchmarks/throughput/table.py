"""Markdown from records. Nothing in a table was typed by hand, and a side that failed stays in it with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import RESULTS
from benchmarks.throughput.numbers import Summary, machine_rate, summaries
from benchmarks.throughput.record import RECORDS

#: Losses shown step by step, at most.
_SHOWN = 8
Cell = Callable[[Summary], str]


def newest(folder: Path = RESULTS) -> str:
    """The tables of the records in a folder: for each machine and model the last time each case was measured."""
    records = list(RECORDS.everything(folder).values())
    return tables(records) if records else "Nothing has been measured yet.\n"


def tables(records: Sequence[Mapping[str, Any]]) -> str:
    """Tables of some records. A case that was measured again under the same conditions is shown once, the last time."""
    taken: set[tuple[str, ...]] = set()
    parts = []
    for record in sorted(records, key=lambda record: str(record["started"]), reverse=True):
        where = _conditions(record)
        cases = [case for case in record["cases"] if (*where, case["name"]) not in taken]
        taken |= {(*where, case["name"]) for case in cases}
        if cases:
            parts.append("\n".join(_section(record, cases)))
    return "\n".join(parts)


def _conditions(record: Mapping[str, Any]) -> tuple[str, ...]:
    machine, setup = record["machine"], record["setup"]
    made = record["models"].get("made", {}).get("name", "")
    return tuple(str(item) for item in (machine["name"], machine["threads"], made, sorted(setup.items())))


def _section(record: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    machine, setup, versions = record["machine"], record["setup"], record["versions"]
    threads = f", {machine['threads']} threads" if machine["kind"] == "cpu" else ""
    extra = [name for name in ("load_in_4bit", "checkpointing") if setup[name]]
    extra += [str(setup["attn_implementation"])] if setup["attn_implementation"] else []
    yield f"### {', '.join([machine['name'] + threads, setup['dtype'], *extra])}"
    yield ""
    rate = machine_rate(record, setup["dtype"])
    git = record["git"] or {"commit": "unknown", "dirty": False}
    shown = ["torch", "transformers", "trl", "peft", *(["bitsandbytes"] if setup["load_in_4bit"] else [])]
    yield (
        f"{record['started'][:10]}, xpo at {git['commit'][:10]}{' with changes' if git['dirty'] else ''}, "
        + ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
        + (f". Large matrix products: {rate / 1e9:,.0f} GFLOP/s" if rate else "")
        + f". {record['repeats']} repeats, {record['warmup']} step before the timed ones."
    )
    yield ""
    found = {case["name"]: summaries(record, case) for case in cases}
    for case in cases:
        yield from _case(record, case, found[case["name"]])
    yield from _across(found)


def _case(record: Mapping[str, Any], case: Mapping[str, Any], sides: Mapping[str, Summary]) -> Iterator[str]:
    model, data = record["models"][case["model"]], record["data"][case["material"]]
    work = case["work"]
    per_step = sum(step["tokens"] for step in work) / len(work)
    yield f"**{case['title']}** (`{case['name']}`)"
    yield ""
    yield (
        f"{model['name']}, {_size(model['parameters'])} parameters, "
        f"{'LoRA of rank ' + str(record['setup']['rank']) if case['lora'] else 'all trained'}; {data['name']}, "
        f"{case['batch']} rows and {per_step:,.0f} useful tokens a step."
    )
    yield ""
    columns = _columns(sides)
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for side in sides.values():
        if side.failed is not None:
            cells = [side.title, f"failed: {_plain(side.failed)}", *[""] * (len(columns) - 2)]
        else:
            cells = [cell(side) for cell in columns.values()]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for side in sides.values():
        yield from (f"{side.title}: {note}." for note in side.notes)
    good = [side for side in sides.values() if side.failed is None]
    if good:
        yield "Loss: " + "; ".join(f"{side.title} {_losses(side.losses)}" for side in good) + "."
        yield ""


def _columns(sides: Mapping[str, Summary]) -> dict[str, Cell]:
    """Header -> cell, without columns that no side has anything to say in."""
    every: dict[str, Cell] = {
        "side": lambda side: side.title,
        "rows/s": lambda side: _number(side.rows),
        "useful tokens/s": lambda side: _number(side.tokens),
        "s a step, median (range)": lambda side: (
            f"{_number(side.step)} ({_number(side.fastest)} to {_number(side.slowest)})"
        ),
        "against TRL": lambda side: _times(side.speed.get("trl")),
        "against padded": lambda side: _times(side.speed.get("padded")),
        "peak memory, GB (before step 1)": lambda side: (
            "" if side.memory is None else f"{side.memory / 1e9:.2f} ({(side.before or 0) / 1e9:.2f})"
        ),
        "peak GPU memory, GB": lambda side: "" if side.device is None else f"{side.device / 1e9:.2f}",
        "share of matrix rate": lambda side: "" if side.share is None else f"{100 * side.share:.1f} %",
        "largest loss difference to TRL": lambda side: _small(side.difference.get("trl")),
        "largest loss difference to padded": lambda side: _small(side.difference.get("padded")),
        "s before step 1": lambda side: _number(side.setup),
        "training, s": lambda side: "" if side.accuracy is None else _number(side.training),
        "held-out accuracy": lambda side: "" if side.accuracy is None else f"{100 * side.accuracy:.1f} %",
    }
    good = [side for side in sides.values() if side.failed is None]
    told = {name: cell for name, cell in every.items() if any(cell(side) for side in good)}
    return told if len(told) > 1 else {"side": every["side"], "result": lambda side: ""}


def _across(found: Mapping[str, Mapping[str, Summary]]) -> Iterator[str]:
    """What only two cases together say."""
    warm, simpo = found.get("dpo-chat", {}).get("warm"), found.get("simpo", {}).get("tree")
    if warm is not None and simpo is not None and warm.failed is None and simpo.failed is None:
        ratio = sum(warm.steps) / len(warm.steps) / (sum(simpo.steps) / len(simpo.steps))
        yield f"A step of DPO with a warm reference cache takes {ratio:.2f} times as long as one of SimPO."
        yield ""


def _losses(losses: Sequence[float]) -> str:
    if len(losses) <= _SHOWN:
        return ", ".join(f"{loss:.6f}" for loss in losses)
    return f"{losses[0]:.6f} at the first and {losses[-1]:.6f} at the last of {len(losses)} steps"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value else "0"


def _size(parameters: int) -> str:
    return f"{parameters / 1e6:,.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:,.0f} k"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"


def _small(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
