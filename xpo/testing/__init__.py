"""Public test tools: prove that an algorithm computes what its equation says, and keeps what the loop relies on."""

from xpo.testing.check import check_algorithm
from xpo.testing.golden import run_case
from xpo.testing.report import Check, Report

__all__ = ["Check", "Report", "check_algorithm", "run_case"]
