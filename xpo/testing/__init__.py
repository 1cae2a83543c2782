"""Public test tools: prove that an algorithm computes what its equation says."""

from xpo.testing.golden import run_case

__all__ = ["run_case"]
