"""``check_algorithm``: does an algorithm keep the promises that the loop, and the people who use it, rely on?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from xpo.api.algorithm import Algorithm
from xpo.testing import conduct, declared, effects, gradients, invariance, promises, purity
from xpo.testing.case import Case
from xpo.testing.experience import experience
from xpo.testing.feedback import feedback
from xpo.testing.layout import layout
from xpo.testing.logged import metrics
from xpo.testing.precision import precision
from xpo.testing.processes import processes
from xpo.testing.reference import reference
from xpo.testing.report import NOT_REACHED, Check, Cross, NotApplicable, Report, told
from xpo.testing.subject import Subject
from xpo.testing.tokens import tokens
from xpo.testing.vectors import read_cases, vectors

#: The checks, in the order in which they are made; the first sentence of each is what it means.
CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "declaration": declared.declaration,
    "needs": declared.needs,
    "collate": purity.collation,
    "finite loss": conduct.finite_loss,
    "gradient": gradients.gradient,
    "feedback": feedback,
    "direction": promises.direction,
    "reference": reference,
    "sum or average": tokens,
    "value at reference": promises.value_at_reference,
    "gradient stays": gradients.gradient_stays,
    "every token": gradients.every_token,
    "padding": invariance.padding,
    "prompts": invariance.prompts,
    "row order": invariance.row_order,
    "batch split": invariance.batch_split,
    "processes": processes,
    "experience": experience,
    "layout": layout,
    "extremes": conduct.extremes,
    "precision": precision,
    "settings": effects.settings,
    "state": purity.state,
    "purity": purity.purity,
    "metrics": metrics,
}
VECTORS = "vectors"
#: Without these the others have nothing to look at.
FIRST = ("declaration", "needs", "collate", "finite loss", "gradient")


def check_algorithm(cls: type[Algorithm[Any]], cases: str | Path | Iterable[Case] | None = None) -> Report:
    """Try an algorithm on made-up data and models, and report what holds and what does not.

    In a test of one's own package::

        def test_conformance():
            check_algorithm(MyMethod).require()

    Args:
        cls: the algorithm; it need not be installed.
        cases: test vectors, or a JSON file of them, of which those are run that the class claims in ``golden``.
    """
    given = read_cases(cases) if isinstance(cases, (str, Path)) else cases
    report = Report(str(getattr(cls, "name", getattr(cls, "__name__", cls))))
    subject = Subject(cls)
    checks = {**CHECKS, VECTORS: lambda subject: vectors(subject, given)}
    with _one_thread():
        for name, check in checks.items():
            broken = next((one.name for one in report.crosses if one.name in FIRST), None)
            if broken is not None:
                report.checks.append(Check(name, "n/a", f"{NOT_REACHED}: '{broken}' comes first"))
            else:
                report.checks.append(outcome(name, check, subject))
    return report


def outcome(name: str, check: Callable[[Subject], str | None], subject: Subject) -> Check:
    """Make one check."""
    try:
        return Check(name, "pass", check(subject) or "")
    except NotApplicable as reason:
        return Check(name, "n/a", str(reason))
    except Cross as reason:
        return Check(name, "fail", str(reason))
    except Exception as error:  # an algorithm may fail in any way there is
        return Check(name, "fail", f"it raises {told(error)}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
