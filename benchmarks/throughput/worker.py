"""A measured process: ``python -m benchmarks.throughput.worker JOB`` runs one job and writes down what it was."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.throughput.job import Job


def main() -> None:
    """Train, then measure what the machine can do. The clock starts before anything large is imported, and only the
    library that trains is imported before it has.
    """
    started = time.perf_counter()
    job = Job.load(Path(sys.argv[1]))
    from benchmarks.throughput.stamps import Stamps

    stamps = Stamps.install()
    said = {}
    if job.library == "trl":
        from benchmarks.throughput import theirs

        theirs.train(job)
    else:
        from benchmarks.throughput import ours

        said = ours.train(job)
    result = {**stamps.result(), **said, "before_training": stamps.began - started}

    from benchmarks.throughput.machine import matrix_rate

    result["matrix_rate"] = matrix_rate(job.setup.device, job.setup.dtype)
    if job.held_out is not None:
        from benchmarks.throughput.referee import accuracy

        result["accuracy"] = accuracy(job.model, job.output, job.held_out)
    Path(job.result).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
