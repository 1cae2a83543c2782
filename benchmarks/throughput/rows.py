"""The rows of every case: read from the files given, or made up with the lengths of real chat data."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from benchmarks.throughput.cases import Case, Material
from xpo.data.sources import Rows, read
from xpo.errors import DataError
from xpo.plugins import load

Row = dict[str, Any]
COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Source:
    """Rows of pairs and where they are from. A record says name, number and digest, and never what a row says."""

    name: str
    sha256: str
    rows: Sequence[Mapping[str, Any]]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "rows": len(self.rows), "sha256_of_rows": self.sha256}


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution of lengths in words, by its mean and the spread of the logarithm."""

    mean: float
    spread: float
    most: int

    def draw(self, rng: random.Random) -> int:
        centre = log(self.mean) - self.spread**2 / 2
        return min(max(round(rng.lognormvariate(centre, self.spread)), 2), self.most)


#: Prompt, chosen and rejected. Chat is as in the harmless half of hh-rlhf: prompts of 106 tokens in the mean and 248 at
#: the 90th percentile, answers of 41 and 51. Long is as in mixes of instruction data.
MADE_UP: Mapping[str, tuple[Lengths, Lengths, Lengths]] = {
    "chat": (Lengths(106, 1.2, 700), Lengths(41, 0.8, 250), Lengths(51, 0.8, 250)),
    "long": (Lengths(430, 0.6, 560), Lengths(316, 0.4, 420), Lengths(338, 0.4, 420)),
}
_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


def source(material: Material, path: str | None, rows: int) -> Source:
    """The pairs of a material: of the file at ``path``, or made up; of the testbed where a real model is trained."""
    if path is not None:
        found, name = read(path), Path(path).name
        missing = [column for column in COLUMNS if column not in found.columns]
        if missing:
            raise DataError(
                f"{name} has no column {', '.join(missing)}; the benchmark takes pairs: {', '.join(COLUMNS)}"
            )
    elif material == "plain":
        testbed = load().dataset("testbed")
        assert testbed is not None
        function, spec = testbed
        found, name = Rows.of(function(spec, "pairs", "train")), "xpo's testbed"
    else:
        found, name = Rows.of(made_up(material, rows)), f"made up, {material}"
    return Source(name, found.fingerprint, found.rows)


def made_up(material: str, count: int, seed: int = 0) -> list[Row]:
    """Chat pairs of made-up words. A frequent word becomes one token, so words are about as many as tokens."""
    rng = random.Random(f"{material} {seed}")
    words = ["".join(rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2, 3)))) for _ in range(4000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]

    def say(lengths: Lengths) -> str:
        return " ".join(rng.choices(words, weights, k=lengths.draw(rng)))

    prompt, chosen, rejected = MADE_UP[material]
    return [
        {
            "prompt": [{"role": "user", "content": f"{number} {say(prompt)}"}],
            "chosen": [{"role": "assistant", "content": say(chosen)}],
            "rejected": [{"role": "assistant", "content": say(rejected)}],
        }
        for number in range(count)
    ]


def rows_of(case: Case, pairs: Sequence[Mapping[str, Any]], seed: int) -> list[Row]:
    """The pairs as the rows of a case, one for each pair."""
    if case.kind == "labels":
        # One side of every pair, in turn: two rows of one prompt in a batch would be each other's KL completion in one
        # library and not in the other.
        return [
            {"prompt": pair["prompt"], "completion": pair[("chosen", "rejected")[number % 2]], "label": number % 2 == 0}
            for number, pair in enumerate(pairs)
        ]
    if case.kind == "lists":
        return _lists(pairs, case.completions, random.Random(f"lists {seed}"))
    return [{name: pair[name] for name in COLUMNS} for pair in pairs]


def _lists(pairs: Sequence[Mapping[str, Any]], size: int, rng: random.Random) -> list[Row]:
    """Each prompt with its own two answers and those of the pairs after it, in an order that means nothing."""
    rows = []
    for number, pair in enumerate(pairs):
        near = (pairs[(number + step) % len(pairs)] for step in range((size + 1) // 2))
        answers = [one[name] for one in near for name in ("chosen", "rejected")][:size]
        scores = [float(score) for score in rng.sample(range(100), size)]
        rows.append({"prompt": pair["prompt"], "completions": answers, "scores": scores})
    return rows


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)
