"""Made-up completions, put into a cache and looked for in it."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from xpo.models import shards
from xpo.models.cache import LogpCache, identify, key

ONE, TWO = identify("one"), identify("two")
# Forked, so that what a test has changed holds in the process too.
fork = multiprocessing.get_context("fork")


def opened(root: Path | None, identity: str = ONE, limit: int = 10**9, **describe: str) -> LogpCache:
    return LogpCache(identity, folder=root, limit_bytes=limit, describe=describe)


def number(index: int) -> bytes:
    return key([index], [1, 2, 3])


def value(index: int) -> torch.Tensor:
    """Log-probabilities of some completion: their number and values differ from one to the next."""
    rng = random.Random(index)
    return torch.tensor([-rng.expovariate(0.1) for _ in range(rng.randint(0, 30))])


def fill(root: Path, which: Iterable[int], identity: str = ONE, **settings: Any) -> None:
    """Write completions, one file for all of them."""
    filled = opened(root, identity, **settings)
    for index in which:
        filled.put(number(index), value(index))
    filled.close()
    assert not filled.problems


def held(root: Path, which: Iterable[int], identity: str = ONE) -> set[int]:
    """The completions that are there; those that are have the right numbers."""
    reader = opened(root, identity)
    found = {index: reader.get(number(index)) for index in which}
    there = {index: logps for index, logps in found.items() if logps is not None}
    assert all(torch.equal(logps, value(index)) for index, logps in there.items())
    reader.close()
    return set(there)


def files(root: Path, ending: str = shards.SHARD) -> list[Path]:
    return sorted(root.rglob(f"*{ending}"))


def in_processes(work: Callable[[int], None], count: int) -> None:
    processes = [fork.Process(target=work, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
