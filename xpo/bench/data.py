"""The data of a suite: what every method trains on, and the held-out prompts and preferences all are examined on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group, Kind
from xpo.data.convert import convert
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.prepare import prepare
from xpo.data.sources import Rows, read, splits
from xpo.errors import DataError, SettingError
from xpo.plugins import Registry
from xpo.train.material import COMPARED, hold_out
from xpo.train.settings import EMBEDDED, Settings, embedded

#: Seed of what is held out and how it is halved: the same rows for every seed of training.
SPLIT_SEED = 0
#: Rows that are converted to find out whether a method can learn from the data.
_TRIED = 50


@dataclass(frozen=True)
class Part:
    """Held-out material to examine on.

    Attributes:
        compared: groups whose completions are known to be better and worse.
        prompts: prompts to sample for, each once.
        told: what became of the rows that all held-out material was made of, a sentence each.
    """

    compared: list[Group]
    prompts: list[Group]
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Sources:
    """The rows as they were read.

    Attributes:
        train: what training is given: rows, or the name of a set that a plugin brings.
        learned: rows of it to check methods against.
        test, validation: held-out rows; validation ones where the data has such a split of its own.
        fingerprint: of all of them.
    """

    train: Rows | str
    learned: Rows
    test: Rows
    validation: Rows | None
    fingerprint: str


def sources(settings: Settings, registry: Registry) -> Sources:
    """Read the data of a suite.

    Raises:
        DataError, SettingError: it cannot be read, or nothing of it is held out.
    """
    name, run = settings.run.dataset_name or EMBEDDED, settings.run
    brought = registry.dataset(name)
    validation = None
    if brought is not None:
        for flag in ("eval_size", "eval_dataset"):
            if getattr(run, flag) is not None:
                raise SettingError(f"--{flag} has no effect here: {name} has held-out rows of its own; drop it")
        function, spec = brought
        learned = Rows.of(function(spec, "pairs", run.dataset_train_split), name)
        truth = f"{EMBEDDED}:temperature=0" if embedded(name) else spec
        # However a method of the testbed was taught, it is examined by the true order of the same completions.
        kind: Kind = "lists" if embedded(name) else "pairs"
        test = Rows.of(function(truth, kind, run.dataset_test_split), f"{name}[{run.dataset_test_split}]")
        if embedded(name):
            validation = Rows.of(function(truth, kind, "validation"), f"{name}[validation]")
        return Sources(name, learned, test, validation, _digest(learned, test, *([validation] if validation else [])))
    rows = read(name, split=run.dataset_train_split, config=run.dataset_config)
    held: Rows | None = None
    if run.eval_dataset is not None:
        there = splits(run.eval_dataset, run.dataset_config)
        split = run.dataset_test_split if run.dataset_test_split in there else "train"
        held = read(run.eval_dataset, split=split, config=run.dataset_config)
    elif run.dataset_test_split in splits(name, run.dataset_config):
        held = read(name, split=run.dataset_test_split, config=run.dataset_config)
    if run.eval_size is not None:
        if held is not None:
            raise SettingError(
                f"--eval_size holds rows out, but there are held-out rows already ({held.origin}); drop one"
            )
        rows, held = hold_out(rows, run.eval_size, SPLIT_SEED)
    if held is None:
        raise SettingError(
            f"{rows.origin} has no '{run.dataset_test_split}' split, and methods are compared on what they have not "
            "seen: pass --eval_size 0.1 or --eval_dataset"
        )
    return Sources(rows, rows, held, None, _digest(rows, held))


def check_method(name: str, cls: type[Algorithm[Any]], samples: bool, found: Sources) -> None:
    """Refuse a method that cannot learn from the data.

    Args:
        samples: it learns from samples, and needs prompts alone.

    Raises:
        DataError: it cannot; the message names it.
    """
    if isinstance(found.train, str):
        return  # a plugin makes rows of the kind that is asked for
    rows = found.learned.select(range(min(_TRIED, len(found.learned))))
    want: Kind = "rollouts" if samples else cls.data
    scored = cls.needs.scores and not samples
    counts = Counts()
    try:
        have = detect(rows.columns, want=want, scored=scored, origin=rows.origin)
        extras = {} if samples else cls.extras
        some = canonical(rows, have, counts, extras=extras, columns=cls.columns, scored=scored and have == want)
        convert(some, have, want, counts, scored=scored, origin=rows.origin)
    except DataError as error:
        raise DataError(f"{name} cannot learn from this data: {error}") from None


def parts(
    found: Sources, settings: Settings, tokenizer: PreTrainedTokenizerBase, suite: Mapping[str, Any]
) -> Mapping[str, Part]:
    """Split name -> what is examined there: ``test``, and ``validation`` where settings are chosen.

    Args:
        suite: the shared conditions; ``eval_prompts`` and ``validation`` of them.
    """
    test, told = _groups(found.test, settings, tokenizer)
    both = {"test": test}
    if suite["validation"] and found.validation is not None:
        both["validation"], _ = _groups(found.validation, settings, tokenizer)
    elif suite["validation"]:
        both["validation"], both["test"] = halves(test)
    return {name: _part(groups, suite["eval_prompts"], told) for name, groups in both.items()}


def halves(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Split groups by prompt, every other one in an order that the prompts alone decide.

    Raises:
        SettingError: there is a single prompt.
    """
    keys = sorted({_key(group) for group in groups})
    if len(keys) < 2:
        raise SettingError(
            "--grid chooses settings on one half of the held-out prompts and reports on the other, and there is one "
            "prompt; hold out more"
        )
    first = set(keys[::2])
    chosen = [group for group in groups if _key(group) in first]
    return chosen, [group for group in groups if _key(group) not in first]


def _key(group: Group) -> str:
    return hashlib.sha256(" ".join(map(str, group.prompt_ids)).encode()).hexdigest()


def _part(groups: Sequence[Group], count: int, told: Sequence[str]) -> Part:
    """The preferences among held-out groups, and some of their prompts."""
    once: dict[tuple[int, ...], Group] = {}
    for group in groups:
        once.setdefault(tuple(group.prompt_ids), Group(group.prompt_ids, row=group.row, source=group.source))
    return Part([group for group in groups if group.completions][:COMPARED], list(once.values())[:count], told)


def _groups(rows: Rows, settings: Settings, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Group], Sequence[str]]:
    """Held-out rows as what they are by themselves, and what became of them."""
    try:
        kind = detect(rows.columns, origin=rows.origin)
    except DataError:
        kind = detect(rows.columns, want="demonstrations", origin=rows.origin)
    found = prepare(
        rows, kind, tokenizer, max_length=settings.run.max_length, max_prompt_length=settings.run.max_prompt_length
    )
    return found.groups, [f"{rows.origin}: {line}" for line in found.counts.lines()]


def _digest(*some: Rows) -> str:
    return hashlib.sha256(" ".join(rows.fingerprint for rows in some).encode()).hexdigest()
