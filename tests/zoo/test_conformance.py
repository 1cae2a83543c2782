"""Every algorithm of the zoo passes the kit that a stranger's would be held against."""

from __future__ import annotations

import pytest

from xpo.plugins import load
from xpo.testing import check_algorithm

OWN = [entry.cls for entry in load().algorithms.values() if entry.supplier.distribution == "xpo"]


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.name)
def test_conformance(cls: type) -> None:
    check_algorithm(cls).require()
