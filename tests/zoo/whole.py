"""Whole distributions over a small vocabulary, for the tests of the methods that read them."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.zoo.byhand import near

VOCABULARY = 4
LENGTHS = (3, 1, 2)
Logits = list[list[list[float]]]
Ids = list[list[int]]


def logits(seed: int, lengths: tuple[int, ...] = LENGTHS, scale: float = 2.0) -> Logits:
    rng = random.Random(seed)
    return [[[round(scale * rng.gauss(0, 1), 4) for _ in range(VOCABULARY)] for _ in range(n)] for n in lengths]


def tokens(seed: int, lengths: tuple[int, ...] = LENGTHS) -> Ids:
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) for _ in range(n)] for n in lengths]


def log_softmax(row: list[float]) -> list[float]:
    normaliser = math.log(sum(map(math.exp, row)))
    return [value - normaliser for value in row]


def logps(rows: list[list[float]], ids: list[int]) -> list[float]:
    return [log_softmax(row)[token] for row, token in zip(rows, ids, strict=True)]


def kl(rows: list[list[float]], ref_rows: list[list[float]]) -> float:
    """Sum over tokens of KL(ref || policy)."""
    total = 0.0
    for row, ref_row in zip(rows, ref_rows, strict=True):
        pairs = zip(log_softmax(row), log_softmax(ref_row), strict=True)
        total += sum(math.exp(ref) * (ref - own) for own, ref in pairs)
    return total


SHORT = (2, 3, 1)
CHOSEN, REJECTED = logits(1), logits(2, SHORT)
DATA: dict[str, Any] = {
    "chosen_ids": tokens(3),
    "rejected_ids": tokens(4, SHORT),
    "ref_chosen_logits": near(CHOSEN, 5, 1.5),
    "ref_rejected_logits": near(REJECTED, 6, 1.5),
}


def policy() -> dict[str, Any]:
    return {"chosen_logits": near(CHOSEN, 0, 0.0), "rejected_logits": near(REJECTED, 0, 0.0)}


def sides(found: dict[str, Any], read: Any) -> list[tuple[float, float]]:
    """``read(logits, reference logits, ids)`` of the chosen and of the rejected completion of each pair."""
    columns = [
        [
            read(*row)
            for row in zip(found[f"{role}_logits"], DATA[f"ref_{role}_logits"], DATA[f"{role}_ids"], strict=True)
        ]
        for role in ("chosen", "rejected")
    ]
    return list(zip(*columns, strict=True))


def ratio(rows: list[list[float]], ref_rows: list[list[float]], ids: list[int]) -> float:
    return sum(logps(rows, ids)) - sum(logps(ref_rows, ids))


def ratios(found: dict[str, Any]) -> list[tuple[float, float]]:
    return sides(found, ratio)


def kls(found: dict[str, Any]) -> list[tuple[float, float]]:
    return sides(found, lambda rows, ref_rows, ids: kl(rows, ref_rows))
