"""``python -m benchmarks.rollouts``: measure, or write the tables of records."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import RESULTS
from benchmarks.rollouts.cases import CASES
from benchmarks.rollouts.job import Work
from benchmarks.rollouts.record import RECORDS
from benchmarks.rollouts.table import WARMUP, tables
from xpo.errors import SettingError, XpoError


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["table"]:
            return _table(words[1:])
        args = _parser().parse_args(words)
        if args.steps <= WARMUP:
            raise SettingError(f"--steps {args.steps}: the first {WARMUP} warm up and are not counted; give more")
        from benchmarks.rollouts.run import run  # imports what takes seconds
        from xpo.compat import no_bars, quiet

        quiet()
        no_bars()
        work = Work(args.prompts, args.samples, args.tokens, args.steps)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(args.work or temporary).resolve()
            print(tables(run(args.cases or [*CASES], args.model, work, args.repeats, args.output, folder)))
    except XpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _table(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts table", description="Tables of records.")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD")
    print("\n".join(tables(RECORDS.read(path)) for path in parser.parse_args(words).records))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollouts",
        description="Take the same steps of training on sampled completions on each side, in turn and each run in a "
        "fresh process. `python -m benchmarks.rollouts table RECORD...` writes the tables of records.",
    )
    usual = Work()
    add = parser.add_argument
    add("--cases", nargs="+", choices=[*CASES], help="some of them; all if not given")
    add("--model", help="directory of a model; xpo's testbed model if not given")
    add("--steps", type=int, default=usual.steps, help=f"of each run, of which {WARMUP} warm up (%(default)s)")
    add("--prompts", type=int, default=usual.prompts, help="of a step (%(default)s)")
    add("--samples", type=int, default=usual.samples, help="of each prompt (%(default)s)")
    add("--tokens", type=int, default=usual.tokens, help="longest completion (%(default)s)")
    add("--repeats", type=int, default=3, help="runs of each side, in turn (%(default)s)")
    add("--output", type=Path, default=RESULTS, help="where the record goes (benchmarks/results)")
    add("--work", help="where logs go, to be kept; a temporary directory if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
