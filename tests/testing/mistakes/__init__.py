"""Plausible mistakes in methods of strangers, by what goes wrong: mistake -> class, check, and words of the message."""

from __future__ import annotations

from tests.testing.mistakes.building import Mistake
from tests.testing.mistakes.conduct import CONDUCT
from tests.testing.mistakes.declared import DECLARED
from tests.testing.mistakes.references import REFERENCES
from tests.testing.mistakes.remarked import REMARKED
from tests.testing.mistakes.rows import ROWS
from tests.testing.mistakes.signs import SIGNS
from tests.testing.mistakes.sums import SUMS

__all__ = ["REMARKED", "WRONG"]

WRONG: dict[str, Mistake] = {**SIGNS, **REFERENCES, **SUMS, **CONDUCT, **DECLARED, **ROWS}
