"""The first-party algorithms: one file, one algorithm, found through the entry point a stranger's package would use."""

from __future__ import annotations

from typing import Any

from xpo import Algorithm, hookimpl
from xpo_zoo.labels.kto import KTO
from xpo_zoo.pairs.dpo import DPO
from xpo_zoo.pairs.simpo import SimPO
from xpo_zoo.rollouts.rloo import RLOO


@hookimpl
def xpo_algorithms() -> list[type[Algorithm[Any]]]:
    """Every algorithm of the zoo, in the order they are listed."""
    return [DPO, SimPO, KTO, RLOO]
