"""``python -m benchmarks.suite DIRECTORY``: keep the records of a suite, and draw their figure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import RESULTS
from benchmarks.suite.figure import draw
from benchmarks.suite.record import keep, picture, read
from xpo.errors import XpoError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suite",
        description="Add the records of a suite that `xpo bench` has run to benchmarks/results, with their figure.",
    )
    parser.add_argument("suite", type=Path, help="the --output_dir of the suite")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to add the record to")
    args = parser.parse_args(argv)
    try:
        path = keep(args.suite, args.results)
        draw(read(path), picture(path))
    except XpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path, picture(path), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
