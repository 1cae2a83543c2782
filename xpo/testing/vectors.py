"""The check against numbers worked out beforehand: test vectors of a file that the algorithm claims."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from xpo.errors import PluginError
from xpo.testing.case import Case
from xpo.testing.golden import run_case_with
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import Subject

#: dtype -> tolerance of the loss and of the gradient; relative to the largest value in float32.
TOLERANCES = {torch.float64: (1e-10, 1e-7), torch.float32: (2e-5, 1e-4)}


def read_cases(path: str | Path) -> list[Case]:
    """The cases of a file: a JSON list, or a mapping with the list as ``cases``.

    Raises:
        PluginError: it is not there, or is no such file.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PluginError(f"the test vectors in '{path}' cannot be read: {error}") from error
    found = found.get("cases") if isinstance(found, Mapping) else found
    if not isinstance(found, list) or any(not isinstance(one, Mapping) or "expected" not in one for one in found):
        raise PluginError(f"'{path}' holds no test vectors; it must be a JSON list of cases with 'loss' and 'expected'")
    return found


def vectors(subject: Subject, cases: Iterable[Case] | None) -> str:
    """Loss, gradient and metrics are those of the test vectors, in float64 and float32."""
    cls = subject.cls
    if cases is None:
        raise NotApplicable("no test vectors were given")
    own = [case for case in cases if case["loss"] in (*cls.golden, *cls.functions)]
    if not own:
        raise NotApplicable("none of the test vectors is claimed in `golden` or `functions`")
    for case in own:
        for dtype in TOLERANCES:
            if reason := _wrong(subject, case, dtype):
                raise Cross(f"{case.get('id', case['loss'])} in {str(dtype).removeprefix('torch.')}: {reason}")
    return f"{len(own)} cases"


def _wrong(subject: Subject, case: Case, dtype: torch.dtype) -> str | None:
    """How a case comes out differently than expected, or None."""
    cls, expected = subject.cls, case["expected"]
    loss, gradient = TOLERANCES[dtype]
    if case["loss"] in cls.functions:
        made: Mapping[str, Any] = cls.functions[case["loss"]](**case.get("hyper", {}), **case["data"])
        return _outputs(made, expected["outputs"], loss)
    found = run_case_with(cls, case, dtype=dtype)
    if case.get("kind") == "function":
        return _outputs(found["outputs"], expected["outputs"], loss)
    exact = dtype == torch.float64
    if not _close(found["loss"], expected["loss"], loss, 1.0 if exact else None):
        return f"the loss is {found['loss']:.12g}, expected {expected['loss']:.12g}"
    for name, values in expected["grad"].items():
        scale = None if exact else max([1e-3, *map(abs, _flat(values))])
        if not _close(found["grad"].get(name), values, gradient, scale):
            return f"the gradient of {name} is not as expected, though the loss is; look for a missing detach()"
    for name, value in expected.get("metrics", {}).items() if exact else ():
        mean = sum(_flat([value])) / len(_flat([value]))
        if name in found["metrics"] and not _close(found["metrics"][name], mean, 1e-9, None):
            return f"the metric {name} is {found['metrics'][name]:.12g}, expected {mean:.12g}"
    return None


def _outputs(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> str | None:
    wrong = [name for name, value in expected.items() if not _close(found.get(name), value, tolerance, None)]
    return f"{wrong[0]} is {found.get(wrong[0])}, expected {expected[wrong[0]]}" if wrong else None


def _close(found: Any, expected: Any, tolerance: float, scale: float | None) -> bool:
    """Equality within ``tolerance``, times the ``scale`` or else the number that is expected."""
    if isinstance(expected, Mapping):
        return all(_close(found.get(key), value, tolerance, scale) for key, value in expected.items())
    if isinstance(expected, Sequence):
        return len(found) == len(expected) and all(
            _close(one, other, tolerance, scale) for one, other in zip(found, expected, strict=True)
        )
    if found is None or expected is None:
        return found is expected
    return abs(float(found) - float(expected)) <= tolerance * (
        max(1.0, abs(float(expected))) if scale is None else scale
    )


def _flat(values: Any) -> list[float]:
    return [number for value in values for number in _flat(value)] if isinstance(values, Sequence) else [float(values)]
