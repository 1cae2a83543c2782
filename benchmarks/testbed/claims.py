"""What each experiment claims, side by side: the numbers that decide, and whether it held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.testbed.numbers import (
    Run,
    Side,
    after,
    beyond,
    change,
    difference,
    mean,
    pooled,
    ranked,
    ranked_better,
    runs_of,
)
from xpo.train.intervals import Estimate

HELD, NOT, CONTRARY = "held", "not held", "not held, the contrary"
#: Growth of the perplexity of retained facts that still counts as keeping them.
KEPT = 1.05
REWARD = "mean reward"
WINS = "win rate against the start"
KL = "KL to the start"
ACCURACY = "preference accuracy (implicit reward)"


@dataclass(frozen=True)
class Judged:
    """A line of a table.

    Attributes:
        title: the side.
        seeds: how many runs it rests on.
        cells: header -> text.
        verdict: one of the words above; empty for a side that the others are compared with.
        failed: why there are no numbers.
        order: lines are sorted by it.
    """

    title: str
    seeds: int = 0
    cells: Mapping[str, str] = field(default_factory=dict)
    verdict: str = ""
    failed: str | None = None
    order: float = 0.0


def judged(record: Mapping[str, Any], name: str) -> list[Judged]:
    """The lines of an experiment of a record; sides that never ran are left out."""
    sides = record["experiments"][name]["sides"]
    runs = {side["title"]: runs_of(record, side) for side in sides}
    good = {title: [run for run in some if "failed" not in run] for title, some in runs.items()}
    lines = list(_JUDGES[name]([side for side in sides if good[side["title"]]], good))
    bad = [(title, some[0]["failed"]) for title, some in runs.items() if some and not good[title]]
    return [
        *sorted(lines, key=lambda line: line.order),
        *(Judged(title, failed=why, verdict="failed") for title, why in bad),
    ]


def verdict(found: Estimate) -> str:
    """Held if the whole interval is above zero."""
    return HELD if found.low > 0 else CONTRARY if found.high < 0 else NOT


def shown(found: Estimate, digits: int = 2, scale: float = 1.0, sign: bool = True) -> str:
    """``+0.50 [0.40, 0.60]``."""
    value, low, high = (
        f"{scale * one:{'+' if sign and first else ''}.{digits}f}" for first, one in zip((1, 0, 0), found, strict=True)
    )
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"


Runs = Mapping[str, Sequence[Run]]


def _raised(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    for side in sides:
        mine = runs[side["title"]]
        found = pooled([change(run, REWARD) for run in mine])
        cells = {
            "data": side["data"],
            "reward before": f"{mean(mine, REWARD, 'before'):.2f}",
            "change": shown(found),
            "each seed": ", ".join(f"{change(run, REWARD).value:+.2f}" for run in mine),
            "pairs in true order": f"{100 * mean(mine, ACCURACY):.1f} %",
            "KL, nats": f"{mean(mine, KL):.1f}",
            "tokens": f"{mean(mine, 'mean length'):.1f}",
        }
        yield Judged(side["title"], len(mine), cells, verdict(found), order=-found.value)


def _raised_online(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    for side in sides:
        mine = runs[side["title"]]
        wins = pooled([after(run, WINS) for run in mine])
        cells, better = {"reward before": "", "after": "", "change": "", "each seed": ""}, beyond(wins, 0.5)
        if all(REWARD in run["rows"] for run in mine):  # a judge is instead of it
            better = pooled([change(run, REWARD) for run in mine])
            cells = {
                "reward before": f"{mean(mine, REWARD, 'before'):.2f}",
                "after": shown(pooled([after(run, REWARD) for run in mine]), sign=False),
                "change": shown(better),
                "each seed": ", ".join(f"{change(run, REWARD).value:+.2f}" for run in mine),
            }
        cells |= {
            "wins against the start": shown(wins, 1, 100, sign=False) + " %",
            "KL to the start, nats": shown(pooled([after(run, KL) for run in mine]), 1, sign=False),
            "tokens": f"{mean(mine, 'mean length'):.1f}",
        }
        yield Judged(side["title"], len(mine), cells, verdict(better), order=-wins.value)


def _longer_lists(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    two_of = {side["algo"]: runs[side["title"]] for side in sides if side["settings"]}
    for side in sides:
        if side["settings"] or side["algo"] not in two_of:
            continue
        two, four = two_of[side["algo"]], runs[side["title"]]
        better = {name: ranked_better(four, two, name) for name in ("ndcg", "accuracy")}
        rewards = [pooled([change(run, REWARD) for run in some]) for some in (four, two)]
        cells = {
            "nDCG from 2": f"{ranked(two, 'ndcg').value:.3f}",
            "from 4": f"{ranked(four, 'ndcg').value:.3f}",
            "nDCG, 4 less 2": shown(better["ndcg"], 3),
            "pairs in true order, 4 less 2": shown(better["accuracy"], 1, 100) + " %",
            "reward, 4 less 2": shown(difference(*rewards)),
        }
        yield Judged(
            side["algo"], min(len(two), len(four)), cells, verdict(better["ndcg"]), order=-better["ndcg"].value
        )


def _shorter(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    lengths = {side["title"]: pooled([after(run, "mean length") for run in runs[side["title"]]]) for side in sides}
    base = lengths.get("dpo")
    for number, side in enumerate(sides):
        mine = runs[side["title"]]
        less = None if base is None or side["title"] == "dpo" else difference(base, lengths[side["title"]])
        cells = {
            "tokens before": f"{mean(mine, 'mean length', 'before'):.1f}",
            "after": shown(lengths[side["title"]], 1, sign=False),
            "shorter than dpo by": "" if less is None else shown(less, 1),
            "change of reward": shown(pooled([change(run, REWARD) for run in mine])),
            "KL, nats": f"{mean(mine, KL):.1f}",
        }
        yield Judged(side["title"], len(mine), cells, "" if less is None else verdict(less), order=number)


def _against_dpo(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    base = runs.get("dpo", ())
    for number, side in enumerate(sides):
        mine = runs[side["title"]]
        first = side["title"] == "dpo"
        better = ranked_better(mine, base, "accuracy")
        rewards = [pooled([change(run, REWARD) for run in some]) for some in (mine, base)]
        cells = {
            "pairs in true order": f"{100 * ranked(mine, 'accuracy').value:.1f} %",
            "more than dpo": "" if first else shown(better, 1, 100) + " %",
            "change of reward": shown(rewards[0]),
            "more than dpo's": "" if first else shown(difference(*rewards)),
            "KL, nats": f"{mean(mine, KL):.1f}",
        }
        yield Judged(side["title"], len(mine), cells, "" if first else verdict(better), order=number)


def _forgot(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    for number, side in enumerate(sides):
        mine = runs[side["title"]]
        found = {name: pooled([_nll(run, name) for run in mine]) for name in mine[0]["forgetting"]}
        least = min(found[name].low for name in found if name.startswith("forget"))
        most = max(found[name].value for name in found if name.startswith("retain"))
        plain = side["algo"] == "gradient_ascent" and not side["settings"]
        kept = most <= math.log(KEPT)
        good = least > 0 and kept != plain
        start = mine[0]["forgetting"]
        cells = {f"NLL to {name}": f"{start[name]['before']:.3f} {shown(rise, 3)}" for name, rise in found.items()}
        cells["perplexity of retained facts"] = f"x {math.exp(min(most, 700)):.3g}"
        cells["reward of reviews"] = shown(pooled([change(run, REWARD) for run in mine]))
        yield Judged(side["title"], len(mine), cells, HELD if good else NOT, order=number)


def _nll(run: Run, name: str) -> Estimate:
    found = run["forgetting"][name]
    return Estimate(found["after"] - found["before"], *found["interval_change"])


def _reached(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    for number, side in enumerate(sides):
        mine = runs[side["title"]]
        name = next(name for name in ("accuracy", "rewards/accuracies") if name in mine[0]["rows"])
        found, top = pooled([after(run, name) for run in mine]), side["ceiling"]
        steps, best = max(mine[0]["curve"], key=lambda point: point[1])
        cells = {
            "steps": str(mine[0]["steps"]),
            "accuracy after": shown(found, 1, 100, sign=False) + " %",
            "while training": " ".join(f"{100 * value:.0f}" for _, value in mine[0]["curve"]),
            "best": f"{100 * best:.1f} % at {steps:.0f}",
            "true reward, expected": f"{100 * top['expected']:.1f} %",
            "true reward, here": f"{100 * top['here']:.1f} %",
        }
        yield Judged(side["title"], len(mine), cells, HELD if found.high >= top["expected"] else NOT, order=number)


def _finite(sides: Sequence[Side], runs: Runs) -> Iterator[Judged]:
    for number, side in enumerate(sides):
        mine = runs[side["title"]]
        losses = mine[0]["losses"]
        rows = mine[0]["rows"]
        names = (ACCURACY, "accuracy", "rewards/accuracies")
        row = next((rows[name] for name in names if name in rows and rows[name]["after"] is not None), None)
        fine = all(loss is not None for run in mine for loss in run["losses"])
        cells = {
            "data": str(side["settings"]["dataset"]),
            "loss": " to ".join("not finite" if loss is None else f"{loss:.4g}" for loss in (losses[0], losses[-1])),
            "held-out accuracy": "" if row is None else f"{100 * row['before']:.1f} to {100 * row['after']:.1f} %",
        }
        done = len(losses) == mine[0]["steps"]
        yield Judged(side["title"], len(mine), cells, HELD if fine and done else NOT, order=number)


_JUDGES: Mapping[str, Callable[[Sequence[Side], Runs], Iterator[Judged]]] = {
    "raise": _raised,
    "online": _raised_online,
    "lists": _longer_lists,
    "length": _shorter,
    "imbalance": _raised,
    "noise": _against_dpo,
    "forget": _forgot,
    "reward": _reached,
    "real": _finite,
}
