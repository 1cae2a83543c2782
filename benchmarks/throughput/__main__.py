"""``python -m benchmarks.throughput``: measure, or write the tables of records."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.records import RESULTS
from benchmarks.throughput.cases import CASES, SIDES, USUAL
from benchmarks.throughput.record import RECORDS
from benchmarks.throughput.table import tables
from xpo.errors import XpoError


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["table"]:
            return _table(words[1:])
        from benchmarks.throughput.run import run  # imports what takes seconds
        from benchmarks.throughput.wanted import Wanted

        args = vars(_parser().parse_args(words))
        with tempfile.TemporaryDirectory() as temporary:
            work = args.pop("work") or temporary
            wanted = Wanted(work=Path(work).resolve(), **args)
            print(tables([run(wanted)]))
    except XpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _table(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput table", description="Tables of records.")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD")
    print(tables([RECORDS.read(path) for path in parser.parse_args(words).records]))
    return 0


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = [word for word in text.split(",") if word]
        unknown = [word for word in chosen if word not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown) or 'name'}; there are {', '.join(known)}")
        return chosen

    return names


def _parser() -> argparse.ArgumentParser:
    from benchmarks.throughput.model import SIZES

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description="Train the same steps with TRL and with xpo's layouts, each in a fresh process, and record time, "
        "memory and losses. `python -m benchmarks.throughput table RECORD...` writes the tables of records.",
    )
    add = parser.add_argument
    add("--cases", type=_names([*CASES]), default=[*CASES], help=f"some of {', '.join(CASES)}; all if not given")
    add("--sides", type=_names([*SIDES]), default=[*USUAL], help=f"some of {', '.join(SIDES)} ({', '.join(USUAL)})")
    add("--steps", type=int, default=3, help="timed steps, after those that warm up (%(default)s)")
    add("--trl-steps", type=int, help="timed steps of TRL, where it is slow; speeds are compared on the same steps")
    add("--warmup", type=int, default=1, help="steps before the timed ones (%(default)s)")
    add("--repeats", type=int, default=2, help="runs of each side, in turn (%(default)s)")
    add("--threads", type=int, help="threads of each process; left to the libraries if not given")
    add("--pairs", help="chat pairs (prompt, chosen, rejected); made up if not given")
    add("--long-pairs", help="long chat pairs; made up if not given")
    add("--plain-pairs", help="pairs for the epoch of a small model; xpo's testbed if not given")
    add("--small-model", help="model of that epoch; xpo's testbed model if not given")
    add("--size", choices=[*SIZES], default="40m", help="size of the model that is made (%(default)s)")
    add("--model", help="directory of another model, in place of one that is made")
    add("--device", default="cpu", help="cpu, or cuda (%(default)s)")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the weights (%(default)s)")
    add("--load_in_4bit", action="store_true", help="4-bit weights below the adapters")
    add("--attn_implementation", help="as for transformers; its own choice if not given")
    add("--gradient_checkpointing", action="store_true", help="on every side; off on every side if not given")
    add("--max_length", type=int, default=1024, help="longest row that takes part, in tokens (%(default)s)")
    add("--seed", type=int, default=42, help="of rows, order and adapters (%(default)s)")
    add("--timeout", type=float, default=7200, help="seconds after which a run has failed (%(default)s)")
    add("--output", type=Path, default=RESULTS, help="where the record goes (benchmarks/results)")
    add("--work", help="where model, rows and logs go, to be kept; a temporary directory if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
