"""``run.json``: everything a run was and found out, and the metric history beside it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from xpo.errors import SettingError
from xpo.train.output import RUN, write_text

Interval = tuple[float, float]

SECRET = re.compile(r"(hub|auth|access|api)_(token|key)$|password|secret", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One line of the table before / after.

    Attributes:
        name: what was measured.
        before, after: under the start and under the trained policy; None (or NaN) when not measured.
        unit: ``"%"`` for a share in [0, 1], ``"bytes"``, or a word such as ``"nats"``.
        better: the direction that is an improvement, if one is.
        interval_before, interval_after, interval_change: 95% intervals; the last of the paired difference.
        note: shown under the table, such as why a number is missing and how to get it.
    """

    name: str
    before: float | None
    after: float | None
    unit: str = ""
    better: Literal["up", "down"] | None = None
    interval_before: Interval | None = None
    interval_after: Interval | None = None
    interval_change: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """A prompt and its completions before and after training."""

    prompt: str
    before: str
    after: str


@dataclass
class Cost:
    """What the run cost. Apart from ``metrics``, because times and memory differ from one run to the next.

    Attributes:
        reference_scored, reference_known: completions that the reference scored while training on this rank, and
            those whose log-probabilities were in the cache.
        sampling: of runs that sample while training, over all ranks: ``prompts``, ``dropped`` (prompts with nothing to
            learn from), ``tokens``, ``seconds`` (of the slowest rank), ``tokens_per_second``, and ``judging_seconds``
            of rewards, judges and the scores of the policy that sampled.
    """

    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    reference_scored: int | None = None
    reference_known: int | None = None
    sampling: dict[str, float] | None = None


@dataclass
class RunRecord:
    """The record of a run. Two runs of the same settings on the same machine have equal ``metrics`` and ``comparison``.

    Attributes:
        supplier: package that brought the algorithm.
        algorithm_settings: the algorithm's own; ``settings`` holds everything, by section.
        model: ``name``, ``parameters``, ``trainable``, ``dtype``, ``quantization``, ``adapter`` (None: full weights),
            ``fingerprint``, ``embedded`` (True for the testbed's), ``auto_class`` if not ``AutoModelForCausalLM``.
        reference: which reference was used, in words; None when the algorithm has none.
        engine: ``layout``, ``head`` and ``lines`` about what could not be used.
        data: ``origin`` (hub id, file or name), ``embedded`` (True for xpo's own testbed: its rows may be shown),
            ``kind``, ``fingerprint``, ``rows``, ``groups``, ``dropped``, ``lines``, ``survey`` (what rows are like).
        started, finished: ISO 8601 times; ``finished`` is None while the run is on its way or when it died.
        metrics: final numbers by name, all deterministic.
        comparison: the table before / after.
        notes: what a reader should know: what was off and what people do about it, numbers that were not finite.
    """

    xpo_version: str
    algorithm: str
    supplier: str = ""
    algorithm_settings: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    model: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    device: dict[str, Any] = field(default_factory=dict)
    started: str | None = None
    finished: str | None = None
    output_dir: str = ""
    metrics: dict[str, float | None] = field(default_factory=dict)
    comparison: list[Row] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Valid JSON: numbers that are not finite become null and are named in ``notes``, secrets are left out."""
        odd: dict[str, str] = {}
        body = {f.name: _plain(getattr(self, f.name), f.name, odd) for f in dataclasses.fields(self)}
        body["notes"] = [*body["notes"], *(f"{where} was {what}, written as null" for where, what in odd.items())]
        return json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``run.json`` whole or not at all; on rank 0 only."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunRecord:
        """Read a record from its file or from the output directory. Fields of other versions of xpo are ignored."""
        file = Path(path)
        if file.is_dir():
            file = file / RUN
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SettingError(f"{file}: there is no record of a run here; give the --output_dir of a run") from None
        except (OSError, ValueError) as error:
            raise SettingError(f"{file}: cannot be read as the record of a run ({error})") from error
        if not isinstance(body, dict) or not {"xpo_version", "algorithm"} <= body.keys():
            raise SettingError(f"{file}: not a record of xpo; give the --output_dir of a run")
        body["comparison"] = [_known(Row, _intervals(row)) for row in body.get("comparison", [])]
        body["samples"] = [_known(Sample, sample) for sample in body.get("samples", [])]
        body["cost"] = _known(Cost, body.get("cost", {}))
        record: RunRecord = _known(cls, body)
        return record


def write_history(log_history: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write the metric history, one JSON object a line; on rank 0 only. What is not finite is null and named."""
    lines = []
    for entry in log_history:
        odd: dict[str, str] = {}
        line = {str(key): _plain(value, str(key), odd) for key, value in entry.items()}
        if odd:
            line["not_finite"] = odd
        lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(path, "".join(lines))


def _plain(value: Any, where: str, odd: dict[str, str]) -> Any:
    """``value`` as JSON can hold it; collects in ``odd`` the places of numbers that are not finite."""
    if isinstance(value, Enum):
        return _plain(value.value, where, odd)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        odd[where] = str(value)
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            str(key): "***" if item and SECRET.search(str(key)) else _plain(item, f"{where}.{key}", odd)
            for key, item in value.items()
        }
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", odd) for index, item in enumerate(value)]
    if getattr(value, "size", None) == 1 or (hasattr(value, "numel") and value.numel() == 1):
        return _plain(value.item(), where, odd)  # a NumPy or torch scalar
    return str(value)


def _known(kind: type[Any], body: Mapping[str, Any]) -> Any:
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in body.items() if key in names})


def _intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    read = dict(row)
    for key in ("interval_before", "interval_after", "interval_change"):
        ends = read.get(key)
        read[key] = tuple(ends) if ends and None not in ends else None
    return read
