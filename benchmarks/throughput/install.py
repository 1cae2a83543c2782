"""The listwise method as a package of a user's own, installed for the benchmark alone."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.throughput.cases import LISTWISE
from xpo.plugins import load


def install(site: Path) -> None:
    """Put a package that names the method in its entry points into ``site``, and make it known to this process."""
    info = site / "xpo_throughput_benchmark-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xpo-throughput-benchmark\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[xpo]\n{LISTWISE} = benchmarks.throughput.plackett_luce\n")
    if str(site) not in sys.path:
        sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    load.cache_clear()
