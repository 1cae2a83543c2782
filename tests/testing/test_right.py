"""Methods of strangers that are right, and mostly not what one expects: the kit finds no fault in them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.strangers import RIGHT
from tests.testing.unusual import UNUSUAL
from xpo import Algorithm
from xpo.testing import check_algorithm


@pytest.mark.parametrize("cls", [*RIGHT, *UNUSUAL], ids=lambda cls: cls.__name__)
def test_what_is_right_passes(cls: type[Algorithm[Any]]) -> None:
    check_algorithm(cls).require()
