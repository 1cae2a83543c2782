"""What a trained policy still knows: the NLL a token of every fact, in the wordings of training and in another one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.testbed.ranking import groups_of, scores
from xpo.testbed import model_path
from xpo.train.intervals import mean_interval, paired_interval

#: Name in the tables -> split of the facts.
WORDINGS = {"trained": "train", "held out": "test"}


def forgetting(folder: Path) -> dict[str, dict[str, Any]]:
    """``forget, trained`` and so on: mean NLL before and after, and the change with its interval over the facts."""
    found: dict[str, dict[str, Any]] = {}
    before, after = _known(model_path()), _known.__wrapped__(folder)
    for name, old in before.items():
        change = paired_interval(old, after[name])
        found[name] = {
            "rows": len(old),
            "before": mean_interval(old).value,
            "after": mean_interval(after[name]).value,
            "interval_change": change.interval,
        }
    return found


@lru_cache(maxsize=1)
def _known(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for wording, split in WORDINGS.items():
        groups = groups_of("forget", split)
        for group, logp in zip(groups, scores(folder, groups, per_token=True), strict=True):
            found.setdefault(f"{group.completions[0].role}, {wording}", []).append(-logp)
    return found
