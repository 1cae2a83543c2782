"""A measured process: ``python -m benchmarks.rollouts.worker JOB`` runs one job and writes down what it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.rollouts.clock import Clock
from benchmarks.rollouts.job import Job


def main() -> None:
    """Train. Only the library that trains is imported."""
    job = Job.load(Path(sys.argv[1]))
    from benchmarks.throughput.stamps import Stamps
    from xpo.compat import quiet

    quiet()
    stamps, clock = Stamps.install(), Clock()
    if job.library == "trl":
        from benchmarks.rollouts import theirs

        theirs.train(job, clock)
    else:
        from benchmarks.rollouts import ours

        ours.train(job, clock)
    result = {**stamps.result(), "sampling": clock.steps(stamps.began, stamps.ends)}
    Path(job.result).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
