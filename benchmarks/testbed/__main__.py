"""``python -m benchmarks.testbed``: train and measure, or write the tables of records."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import RESULTS
from xpo.errors import SettingError, XpoError


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["table"]:
            return _table(words[1:])
        args = _parser().parse_args(words)
        from benchmarks.testbed.experiments import Real, experiments  # imports what takes seconds
        from benchmarks.testbed.run import run

        real = Real(args.model, args.pairs, args.labels, args.lists, args.forget, args.forget_column)
        wanted = experiments(args.algos, real)
        if args.experiments is not None:
            unknown = [name for name in args.experiments if name not in wanted]
            if unknown:
                raise SettingError(
                    f"no runs for {', '.join(unknown)}; there are {', '.join(wanted)} (real: give --model)"
                )
            wanted = {name: wanted[name] for name in args.experiments}
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(args.work or temporary).resolve()
            work.mkdir(parents=True, exist_ok=True)
            run(wanted, args.seeds, args.output, work, args.resume)
    except XpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _table(words: Sequence[str]) -> int:
    from benchmarks.testbed.record import RECORDS
    from benchmarks.testbed.table import tables

    parser = argparse.ArgumentParser(prog="python -m benchmarks.testbed table", description="Tables of records.")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD")
    print("\n".join(tables(RECORDS.read(path)) for path in parser.parse_args(words).records))
    return 0


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seeds(text: str) -> list[int]:
    return [int(word) for word in _names(text)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.testbed",
        description="Train methods on the testbed, one run after the other, and record what became of the known "
        "reward. `python -m benchmarks.testbed table RECORD...` writes the tables of records.",
    )
    add = parser.add_argument
    add("--experiments", type=_names, help="some of them, by comma; all if not given")
    add("--algos", type=_names, help="the runs of some methods only, by comma")
    add("--seeds", type=_seeds, default=[0, 1, 2], help="of training, by comma (0,1,2)")
    add("--output", type=Path, default=RESULTS, help="where a new record goes (benchmarks/results)")
    add("--resume", type=Path, metavar="RECORD", help="go on with a record; what it has is not done again")
    add("--work", help="where models and logs go, to be kept; a temporary directory if not given")
    add("--model", help="real model, for the experiment on real data")
    for kind in ("pairs", "labels", "lists", "forget"):
        add(f"--{kind}", help=f"real {kind} for it; its methods are left out if not given")
    add("--forget-column", help="column of them that says which rows to forget")
    return parser


if __name__ == "__main__":
    sys.exit(main())
