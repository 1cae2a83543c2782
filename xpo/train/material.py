"""The data of a run: what it learns from, what is held out, and what the user should know about both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group, Kind
from xpo.data.prepare import Prepared, prepare
from xpo.data.sources import Rows, read, splits
from xpo.errors import DataError, SettingError
from xpo.plugins import Registry
from xpo.train.settings import EMBEDDED, Settings

#: Held-out rows that the table at the end looks at, at most.
COMPARED = 500
#: Rows of each kind whose likelihood it looks at, at most.
TOLD = 200


@dataclass(frozen=True)
class Material:
    """Groups to learn from, groups held out, and where they came from.

    Attributes:
        train, held_out: groups of the algorithm's kind; held-out ones are evaluated while training.
        compared: held-out groups with known preferences, for the table at the end.
        prompts: held-out prompts to sample for.
        told: groups whose likelihood is looked at: rows to forget and to retain, or held-out demonstrations.
        beside: sets of which a row is trained on beside every row, and the same of held-out rows.
        origin, fingerprint: of the training rows.
        rows: rows read for training.
        embedded: whether this is xpo's own testbed.
        lines: what happened to the rows.
    """

    train: list[Group]
    held_out: list[Group]
    compared: list[Group]
    prompts: list[Group]
    origin: str
    fingerprint: str
    rows: int
    embedded: bool
    lines: list[str]
    told: Sequence[Group] = ()
    beside: tuple[list[list[Group]], list[list[Group]]] = ([], [])


def gather(
    settings: Settings, algorithm: Algorithm[Any], registry: Registry, tokenizer: PreTrainedTokenizerBase
) -> Material:
    """Read, convert and tokenise the data of a run."""
    kind = settings.kind
    source = settings.source("dataset_name")
    source = EMBEDDED if source is None else source
    brought = isinstance(source, str) and registry.dataset(source) is not None
    embedded = settings.testbed_data
    test = settings.run.dataset_test_split
    rows = _rows(source, kind, settings.run.dataset_train_split, settings, registry)
    evaluation = settings.source("eval_dataset")
    held: Rows | None = None
    if evaluation is not None:
        held = _rows(evaluation, kind, _only(evaluation, settings, registry), settings, registry)
    elif brought or test in _splits(source, settings):
        held = _rows(source, kind, test, settings, registry)
    size = settings.run.eval_size
    if size is not None and held is not None:
        raise SettingError(f"--eval_size holds rows out, but there are held-out rows already ({held.origin}); drop one")
    if size is not None:
        rows, held = hold_out(rows, size, settings.training.seed)
    if held is None and settings.training.eval_strategy != "no":
        raise SettingError(
            f"--eval_strategy asks for evaluation, but {rows.origin} has no '{test}' split; pass --eval_dataset or "
            "--eval_size"
        )
    train = _prepared(rows, algorithm, settings, tokenizer)
    evaluated = _prepared(held, algorithm, settings, tokenizer) if held is not None else None
    lines = [f"data: {rows.origin}, {len(rows)} rows, {len(train.groups)} {kind} to learn from", *train.lines()]
    if held is not None and evaluated is not None:
        lines += [f"held out: {held.origin}, {len(evaluated.groups)} groups", *evaluated.lines()]
    # Prompts alone, as methods that sample hold out, prefer nothing.
    compared = [group for group in evaluated.groups if group.completions][:COMPARED] if evaluated else []
    if embedded:  # every algorithm is examined by the true order of the same completions, however it was taught
        truth = _rows(f"{EMBEDDED}:temperature=0", "lists", test, settings, registry)
        compared = _as(truth, "lists", settings, tokenizer).groups
    own, retained = _apart(train.groups, rows.origin)
    retained += _retained(settings, registry, tokenizer, lines)
    held_own, held_retained = _apart(evaluated.groups, None) if evaluated else ([], [])
    held_retained = held_retained or (retained if held_own else [])
    replayed = _replayed(settings, registry, tokenizer, lines)
    return Material(
        train=own,
        held_out=held_own,
        compared=compared,
        # Of the embedded data the same prompts under the same numbers, whatever kind the algorithm learns from.
        prompts=_prompts(compared if embedded else evaluated.groups if evaluated else []),
        origin=rows.origin,
        fingerprint=rows.fingerprint,
        rows=len(rows),
        embedded=embedded,
        lines=lines,
        # What is to be forgotten is what is trained on; no other row says whether it was.
        told=[*own[:TOLD], *retained[:TOLD]] if kind == "forget" else held_own if kind == "demonstrations" else [],
        beside=(
            [some for some in (retained, replayed) if some],
            [some for some in (held_retained, replayed) if some and held_own],
        ),
    )


def _apart(groups: list[Group], origin: str | None) -> tuple[list[Group], list[Group]]:
    """Rows to train on, and those to retain, which ride beside them."""
    retained = [group for group in groups if group.completions and group.completions[0].role == "retain"]
    if not retained:
        return groups, []
    own = [group for group in groups if group.completions[0].role != "retain"]
    if not own and origin is not None:
        raise DataError(f"{origin}: all {len(groups)} rows are to be retained, and none is to be forgotten")
    return own, retained


def _retained(
    settings: Settings, registry: Registry, tokenizer: PreTrainedTokenizerBase, lines: list[str]
) -> list[Group]:
    """Rows to retain that are a data set of their own."""
    source = settings.source("retain_dataset")
    if source is None:
        return []
    rows = _rows(source, "demonstrations", settings.run.dataset_train_split, settings, registry)
    found = _as(rows, "demonstrations", settings, tokenizer)
    lines += [f"retain: {rows.origin}, {len(rows)} rows, one beside every row to forget", *found.lines()]
    return _as_role(found.groups, "retain")


def _as_role(groups: Sequence[Group], role: str) -> list[Group]:
    return [replace(group, completions=[replace(one, role=role) for one in group.completions]) for group in groups]


def _replayed(
    settings: Settings, registry: Registry, tokenizer: PreTrainedTokenizerBase, lines: list[str]
) -> list[Group]:
    """Demonstrations to learn again beside the data."""
    source = settings.source("replay_dataset")
    if source is None:
        return []
    rows = _rows(source, "demonstrations", settings.run.replay_split, settings, registry)
    found = _as(rows, "demonstrations", settings, tokenizer)
    lines += [f"replay: {rows.origin}, {len(rows)} rows, one beside every row of a step", *found.lines()]
    return _as_role(found.groups, "replay")


def hold_out(rows: Rows, size: float | int, seed: int) -> tuple[Rows, Rows]:
    """Split rows by prompt, so that no held-out prompt is trained on."""
    by_prompt: dict[str, list[int]] = {}
    for index, row in enumerate(rows.rows):
        by_prompt.setdefault(str(row.get("prompt", index)), []).append(index)
    wanted = round(size * len(rows)) if size < 1 else int(size)
    if not 0 < wanted < len(rows) or len(by_prompt) < 2:
        raise SettingError(
            f"--eval_size {size} of {len(rows)} rows ({len(by_prompt)} prompts) leaves nothing to train or evaluate on"
        )
    keys = list(by_prompt)
    random.Random(seed).shuffle(keys)
    held: list[int] = []
    for key in keys[:-1]:
        if len(held) >= wanted:
            break
        held += by_prompt[key]
    out = set(held)
    kept = [index for index in range(len(rows)) if index not in out]
    return rows.select(kept), rows.select(sorted(out), " (held out)")


def _rows(source: Any, kind: Kind, split: str, settings: Settings, registry: Registry) -> Rows:
    if not isinstance(source, str):
        return Rows.of(source, split=split)
    if (plugin := registry.dataset(source)) is not None:
        function, spec = plugin
        return Rows.of(function(spec, kind, split), f"{source}[{split}]")
    return read(source, split=split, config=settings.run.dataset_config)


def _splits(source: Any, settings: Settings) -> list[str]:
    if isinstance(source, str):
        return splits(source, settings.run.dataset_config)
    return list(source) if hasattr(source, "keys") else []


def _only(source: Any, settings: Settings, registry: Registry) -> str:
    """The split of a separate evaluation source: its test split if it has one, else all it has."""
    if isinstance(source, str) and registry.dataset(source) is not None:
        return settings.run.dataset_test_split
    known = _splits(source, settings)
    return settings.run.dataset_test_split if settings.run.dataset_test_split in known else "train"


def _prepared(
    rows: Rows, algorithm: Algorithm[Any], settings: Settings, tokenizer: PreTrainedTokenizerBase
) -> Prepared:
    if settings.source("retain_dataset") is not None and not {"split"} & set(rows.columns):
        found = _as(rows, "demonstrations", settings, tokenizer)
        return replace(found, groups=_as_role(found.groups, "forget"))
    return _as(
        rows,
        settings.kind,
        settings,
        tokenizer,
        extras=algorithm.extras,
        columns=algorithm.columns,
        scored=algorithm.needs.scores,
    )


def _as(rows: Rows, kind: Kind, settings: Settings, tokenizer: PreTrainedTokenizerBase, **wanted: Any) -> Prepared:
    return prepare(
        rows,
        kind,
        tokenizer,
        max_length=settings.run.max_length,
        max_prompt_length=settings.run.max_prompt_length,
        pairing=settings.run.lists_to_pairs,
        forget_column=settings.run.forget_column if kind == "forget" else None,
        **wanted,
    )


def _prompts(groups: Sequence[Group]) -> list[Group]:
    """Each held-out prompt once, without completions."""
    found: dict[tuple[int, ...], Group] = {}
    for group in groups:
        found.setdefault(tuple(group.prompt_ids), Group(group.prompt_ids, row=group.row, source=group.source))
    return list(found.values())
