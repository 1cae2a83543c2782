"""``python -m benchmarks.frontier``: train and measure, or write the tables or figures of records."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frontier.figure import draw
from benchmarks.frontier.methods import BEST_OF, SWEEPS
from benchmarks.frontier.record import RECORDS
from benchmarks.frontier.table import tables
from benchmarks.records import RESULTS
from xpo.errors import SettingError, XpoError


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] in (["table"], ["figure"]):
            return _again(words[0], words[1:])
        args = _parser().parse_args(words)
        unknown = [name for name in args.methods if name not in (*SWEEPS, BEST_OF)]
        if unknown:
            raise SettingError(f"no method {', '.join(unknown)} here; there are {', '.join((*SWEEPS, BEST_OF))}")
        from benchmarks.frontier.run import run  # imports what takes seconds

        with tempfile.TemporaryDirectory() as temporary:
            run(args.methods, args.seeds, args.output, Path(args.work or temporary).resolve(), args.resume)
    except XpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _again(what: str, words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.frontier {what}")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD")
    for path in parser.parse_args(words).records:
        if what == "table":
            print(tables(RECORDS.read(path)))
        else:
            draw(RECORDS.read(path), path.with_suffix(".svg"))
            print(path.with_suffix(".svg"))
    return 0


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _seeds(text: str) -> list[int]:
    return [int(word) for word in _names(text)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frontier",
        description="Train methods on the testbed with several weights of the tie to the start, and record reward and "
        "KL along the way. `python -m benchmarks.frontier table RECORD...` writes the tables of records, `figure` in "
        "place of `table` draws them.",
    )
    add = parser.add_argument
    add("--methods", type=_names, default=[*SWEEPS, BEST_OF], help=f"of {', '.join((*SWEEPS, BEST_OF))}, by comma")
    add("--seeds", type=_seeds, default=[0, 1, 2], help="of training, by comma (0,1,2)")
    add("--output", type=Path, default=RESULTS, help="where a new record goes (benchmarks/results)")
    add("--resume", type=Path, metavar="RECORD", help="go on with a record; what it has is not done again")
    add("--work", help="where models and logs go, to be kept; a temporary directory if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
