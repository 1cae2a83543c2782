"""``xpo new``: a package of one's own, with a method that works, to be made into another."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from xpo.api.groups import COLUMNS, KINDS


def run(argv: list[str]) -> int:
    """Write the package and say what to do with it; the exit status."""
    parser = argparse.ArgumentParser(
        "xpo new",
        description="Write a package with a method of your own: a loss that works, its test, and the entry point by "
        "which xpo finds it. docs/tutorial.md goes on from there.",
    )
    parser.add_argument("name", metavar="NAME", help="what the method is to be called, such as my_method")
    parser.add_argument(
        "--data",
        default="pairs",
        metavar="KIND",
        help="what it learns from [pairs]: " + "; ".join(f"{kind} ({COLUMNS[kind]})" for kind in KINDS),
    )
    parser.add_argument("--directory", metavar="DIR", help="the folder to make [NAME, with - for _]")
    args = parser.parse_args(argv)
    from xpo.scaffold.names import Names
    from xpo.scaffold.package import render, write

    names = Names.of(args.name)
    folder = Path(names.distribution if args.directory is None else args.directory)
    contents = render(names, args.data)
    write(contents, folder)
    print(f"wrote {folder}: {', '.join(contents)}\n\nnext:")
    print(f"  pip install -e {shlex.quote(_path(folder))}")
    print(f"  xpo check {names.method}")
    print(f"  xpo train --algo {names.method} --output_dir runs/{names.method}")
    return 0


def _path(folder: Path) -> str:
    # pip takes a bare word for the name of a package.
    return str(folder) if folder.is_absolute() or folder.parts[0] in (".", "..") else f"./{folder}"
