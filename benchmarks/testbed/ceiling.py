"""How often anybody can agree with the testbed's labeller: what a reward model could reach and no more."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean

from xpo.testbed import Knobs, rows
from xpo.testbed.reward import reward, text


def ceiling(kind: str, split: str = "test", knobs: Knobs | None = None) -> dict[str, float]:
    """Agreement of the true reward with the labeller on held-out comparisons.

    Args:
        kind: ``pairs``, or ``lists`` for all pairs of every list.

    Returns:
        ``expected``: over the labeller's draws, mean of sigmoid(|difference of rewards| / temperature).
        ``here``: on the very judgments that are held out.
    """
    knobs = knobs or Knobs()
    expected, here = [], []
    for row in rows(kind, split, knobs):
        said = [row["chosen"], row["rejected"]] if kind == "pairs" else row["completions"]
        views = [1.0, 0.0] if kind == "pairs" else row["scores"]
        true = [reward(text(row["prompt"]), text(one)) for one in said]
        for a, b in combinations(range(len(said)), 2):
            gap = true[a] - true[b]
            expected.append(1 / (1 + math.exp(-abs(gap) / knobs.temperature)))
            here.append(0.5 if gap == 0 else float((gap > 0) == (views[a] > views[b])))
    return {"expected": fmean(expected), "here": fmean(here), "comparisons": len(here)}
