"""Made-up records for the page, in every state a suite can be in, and a reader of what the page says."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from xpo.bench.page.document import page
from xpo.bench.summary import summarise

PROMPTS = 12
MACHINE = {
    "xpo_version": "1.0",
    "versions": {"torch": "2.0", "trl": "1.0"},
    "device": {"name": "a CPU", "kind": "cpu", "cores": 2},
}
#: What must stay text wherever it comes from.
HOSTILE = "</script><img src=x onerror=window.hacked=1>\"'&amp; <b>"
COMPLETIONS = (HOSTILE, "one line\n\tand another\n\n🙂", "مرحبا بالعالم", "")


def split(key: str, good: float, kl: float, rewards: bool = True, judged: bool = True) -> dict[str, Any]:
    """Numbers of a cell, the same for the same key."""
    rng = random.Random(key)
    found = [rng.gauss(good, 1) for _ in range(PROMPTS)]
    return {
        "rewards": found if rewards else [],
        "lengths": [rng.randint(20, 40) for _ in found],
        "finished": [number != 1 for number in range(PROMPTS)],
        **({"wins": [float(value > 0) for value in found]} if judged else {}),
        "kl": [rng.gauss(kl, kl / 3) for _ in found],
        "agreed": [float(rng.random() < 0.6) for _ in found],
        "texts": list(COMPLETIONS),
    }


def curve(key: str, points: int = 8) -> dict[str, Any]:
    rng = random.Random(key)
    steps = [5 * (number + 1) for number in range(points)]
    return {"steps": steps, "values": [math.exp(-step / 20) + rng.gauss(0, 0.05) for step in steps]}


def cell(method: str, seed: int, setting: str = "", good: float = 0.5, **options: Any) -> dict[str, Any]:
    key = f"{method} {setting} {seed}"
    kl = random.Random(method).uniform(0.5, 6)
    validation = options.pop("validation", False)
    points = options.pop("points", 8)
    parts = ["test", "validation"] if validation else ["test"]
    return {
        **about(method, seed, setting),
        "status": "done",
        "steps": 3,
        "tokens": 1200,
        "trainable": 1000,
        "examined": {part: split(f"{key} {part}", good, kl, **options) for part in parts},
        "cost": {
            "seconds": 2.0 + seed,
            "tokens_per_second": 600.0,
            "peak_memory_bytes": 5 * 2**20,
            "peak_gpu_memory_bytes": None,
        },
        "git": {"commit": "abc", "dirty": False},
        "curves": {name: curve(f"{key} {name}", points) for name in ("loss", "grad_norm", "rewards/accuracies")},
        **MACHINE,
    }


def about(method: str, seed: int, setting: str = "") -> dict[str, Any]:
    return {
        "method": method,
        "algo": "some",
        "point": {},
        "settings": {},
        "seed": seed,
        "setting": setting,
        "folder": f"cells/{seed}",
        "log": f"cells/{seed}/log.txt",
        "command": ["xpo", "train", "--algo", method, "--seed", str(seed)],
    }


def failed(method: str, seed: int, why: str = "ValueError: no", setting: str = "") -> dict[str, Any]:
    body = {"reason": why, "status": 1, "signal": None, "out_of_memory": False}
    return {**about(method, seed, setting), "status": "failed", "failed": body}


def missing(method: str, seed: int) -> dict[str, Any]:
    return {**about(method, seed), "status": "missing"}


def records(cells: Sequence[Mapping[str, Any]], rewards: bool = True, **shared: Any) -> dict[str, Any]:
    start = split("start", 0.0, 0.001, rewards, judged=False)
    start["prompts"] = [f"Prompt {number}: {HOSTILE}" for number in range(len(COMPLETIONS))]
    seen = {"test": start, **({"validation": start} if shared.get("validation") else {})}
    return {
        "benchmark": "xpo bench",
        "format": 1,
        "methods": {one["method"]: one["algo"] for one in cells},
        "seeds": sorted({one["seed"] for one in cells}),
        "shared": {
            "model_name_or_path": None,
            "dataset_name": None,
            "examined_by": {"reward": ["testbed"] if rewards else None, "judge": None, "reward_weights": None},
            "eval_prompts": PROMPTS,
            "eval_tokens": 64,
            "budget_tokens": None,
            "validation": False,
            **shared,
        },
        "data": "d" * 64,
        "notes": [f"a note of {HOSTILE}"],
        "start": {"model": "e" * 64, "data": "d" * 64, "examined": seen, **MACHINE},
        "cells": list(cells),
    }


def few() -> dict[str, Any]:
    """Whole, part, failed and missing methods, two seeds, one with a name that is an attack."""
    names = {"alpha": 1.0, "beta": 0.6, HOSTILE: 0.2, "delta": -0.3}
    done = [cell(name, seed, good=good) for name, good in names.items() for seed in (0, 1)]
    done[3] = failed("beta", 1, f"RuntimeError: {HOSTILE}")
    bad = [failed("gamma", seed, "out of memory: ended by SIGKILL") for seed in (0, 1)]
    return records([*done, *bad, missing("later", 0), missing("later", 1)])


def many(methods: int = 60, seeds: int = 3, points: int = 120) -> dict[str, Any]:
    """As many methods as there are."""
    names = [f"method {number:02}" for number in range(methods - 1)] + ["a-name-without-a-break-" * 4]
    cells = [
        cell(name, seed, good=random.Random(name).uniform(-1, 2), points=points)
        for name in names
        for seed in range(seeds)
    ]
    return records(cells)


def grid() -> dict[str, Any]:
    """Two settings of a method, one of another, which is called by two names."""
    cells = [
        cell("twice", seed, setting, good, validation=True)
        for setting, good in (("beta=0.1", 0.1), ("beta=0.5", 1.0))
        for seed in (0, 1)
    ]
    return records([*cells, *(cell("once", seed, good=0.4, validation=True) for seed in (0, 1))], validation=True)


STATES = {
    "few": few,
    "one seed": lambda: records([cell(name, 0, good=good) for name, good in (("alpha", 1.0), ("beta", 0.2))]),
    "long name": lambda: records([cell("unbreakable" * 12, 0, good=1.0), cell("beta", 0, good=0.2)]),
    "all failed": lambda: records([failed(name, seed) for name in ("alpha", "beta") for seed in (0, 1)]),
    "nothing finished": lambda: records([missing("alpha", 0), missing("beta", 0)]),
    "no rewards": lambda: records(
        [cell(name, seed, rewards=False) for name in ("alpha", "beta") for seed in (0, 1)], rewards=False
    ),
    "nobody judges": lambda: records(
        [cell(name, seed, rewards=False, judged=False) for name in ("alpha", "beta") for seed in (0, 1)], rewards=False
    ),
    "grid": grid,
    "old": lambda: records(
        [{name: part for name, part in cell("alpha", seed).items() if name != "curves"} for seed in (0, 1)]
    ),
    "many": lambda: many(points=12),
}


def drawn(body: Mapping[str, Any]) -> str:
    return page(summarise(body), body)


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    inside: list[Element | str] = field(default_factory=list)

    def all(self, name: str = "", **wanted: str) -> list[Element]:
        """Elements within, of a name and with attributes (``class_``: one of its classes)."""
        return [one for one in self.walk() if name in ("", one.name) and one.fits(wanted)]

    def one(self, name: str = "", **wanted: str) -> Element:
        [found] = self.all(name, **wanted)
        return found

    def walk(self) -> Iterator[Element]:
        for part in self.inside:
            if isinstance(part, Element):
                yield part
                yield from part.walk()

    def fits(self, wanted: Mapping[str, str]) -> bool:
        for key, value in wanted.items():
            mine = self.attributes.get(key.rstrip("_").replace("_", "-"))
            if mine is None or (value not in mine.split() if key == "class_" else value != mine):
                return False
        return True

    @property
    def text(self) -> str:
        """All that is said, without what only a voice says."""
        if "aside" in self.attributes.get("class", ""):
            return ""
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)


class Reader(HTMLParser):
    """A page as elements; every element must be closed, in its turn."""

    VOID = ("meta", "input", "br")

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attrs}) == len(attrs), (tag, attrs)
        made = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].inside.append(made)
        if tag not in self.VOID:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def read(text: str) -> Element:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1
    return reader.root
