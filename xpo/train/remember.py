"""The reference cache of a run: what it is known by, what of the run's data it holds, and when it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from xpo.api.algorithm import Needs
from xpo.api.groups import Group
from xpo.models.cache import LogpCache, cache_limit, cache_root, key
from xpo.models.reference import Reference
from xpo.train.settings import Settings


def remembering(
    reference: Reference | None, settings: Settings, needs: Needs, model: str
) -> tuple[Reference | None, LogpCache | None]:
    """The reference with the cache that the settings ask for, and that cache.

    What is sampled while training is scored once, a reference that moves is another one each time, and full
    distributions are not kept: none has a use for it.
    """
    where = settings.run.reference_cache
    if (
        reference is None
        or where == "off"
        or needs.vocabulary
        or settings.rollout is not None
        or settings.moves_reference
    ):
        return reference, None
    args = settings.training
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "as loaded"
    names = [reference.identity(precision=precision) if args.process_index == 0 else None]
    if args.world_size > 1:  # reading all weights takes seconds, and every rank has the same
        broadcast_object_list(names)
    if names[0] is None:
        return reference, None
    folder = cache_root() if where == "disk" else None
    cache = LogpCache(names[0], folder=folder, limit_bytes=cache_limit(), describe={"model": model})
    return replace(reference, cache=cache), cache


def known(cache: LogpCache | None, groups: Sequence[Group]) -> list[str]:
    """A line on how much of the data earlier runs have scored; none where it is nothing."""
    if cache is None:
        return []
    keys = [key(group.prompt_ids, completion.ids) for group in groups for completion in group.completions]
    found = sum(name in cache for name in keys)
    return [f"reference cache: {found:,} of {len(keys):,} completions known from earlier runs"] if found else []


class Write(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Writes at every checkpoint, and takes notice of what other processes wrote at every pass over the data."""

    def __init__(self, cache: LogpCache) -> None:
        self.cache = cache

    def on_save(self, *arguments: object, **keywords: object) -> None:
        self.cache.flush()

    def on_epoch_end(self, *arguments: object, **keywords: object) -> None:
        self.cache.refresh()


@contextmanager
def written(cache: LogpCache | None) -> Iterator[list[str]]:
    """Write what was computed however training ends. Yields a list that then holds what went wrong with the disk."""
    problems: list[str] = []
    try:
        yield problems
    finally:
        if cache is not None:
            cache.flush()
            problems += cache.problems
