"""The testbed's door: its data and its reward come through the entry point a stranger's package would use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpo.api.hookspecs import DatasetSource, RewardFunction, hookimpl
from xpo.errors import DataError
from xpo.testbed.knobs import parse
from xpo.testbed.pool import rows
from xpo.testbed.reward import testbed_reward


def testbed_rows(spec: str, kind: str, split: str) -> list[dict[str, Any]]:
    """Rows of ``kind`` for a spec such as ``testbed:noise=0.3``."""
    try:
        return rows("prompts" if kind == "rollouts" else kind, split, parse(spec))
    except ValueError as error:
        raise DataError(str(error)) from error


@hookimpl
def xpo_datasets() -> Mapping[str, DatasetSource]:
    """``--dataset testbed``, with knobs after a colon."""
    return {"testbed": testbed_rows}


@hookimpl
def xpo_rewards() -> Mapping[str, RewardFunction]:
    """``--reward testbed``: the known reward."""
    return {"testbed": testbed_reward}
