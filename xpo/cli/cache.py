"""``xpo cache``: the reference log-probabilities on the disk, and removing them."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xpo.errors import SettingError, XpoError, did_you_mean

if TYPE_CHECKING:
    from xpo.models.store import Stored

#: As much of an identity as tells one from another.
SHORT = 10


def run(argv: list[str]) -> int:
    """Print what is cached, or clear it; the exit status."""
    parser = argparse.ArgumentParser("xpo cache", description="Show or clear cached reference log-probs.")
    parser.add_argument("action", nargs="?", choices=["clear"], metavar="clear", help="remove what is cached, or some:")
    parser.add_argument("--model", metavar="NAME", help="clear only this model: its name, or how its identity begins")
    parser.add_argument("--older_than", metavar="DAYS", help="clear only what was not used for so many days")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.action is None and (args.model is not None or args.older_than is not None):
        raise SettingError("--model and --older_than choose what to clear: `xpo cache clear --model NAME`")
    from xpo.models.store import cache_root

    root = cache_root()
    if args.action is None:
        _show(root, args.json)
        return 0
    freed = _clear(root, args.model, None if args.older_than is None else _days(args.older_than))
    print(json.dumps({"folder": str(root), "freed": freed}) if args.json else f"freed {size(freed)} in {root}")
    return 0


def size(number: int) -> str:
    """Bytes as people read them."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _show(root: Path, as_json: bool) -> None:
    from xpo.models.store import cache_limit, contents

    stored, limit = contents(root), cache_limit()
    total = sum(one.size for one in stored)
    if as_json:
        rows = [
            {
                "model": one.model,
                "identity": one.identity,
                "completions": one.completions,
                "tokens": one.tokens,
                "bytes": one.size,
                "last_used": datetime.fromtimestamp(one.used, UTC).isoformat(timespec="seconds"),
            }
            for one in stored
        ]
        print(json.dumps({"folder": str(root), "bytes": total, "limit": limit, "caches": rows}, indent=2))
        return
    from xpo.cli.console import console
    from xpo.train.tables import table

    if stored:
        cells = [
            (
                one.model,
                one.identity[:SHORT],
                f"{one.completions:,}",
                f"{one.tokens:,}",
                size(one.size),
                datetime.fromtimestamp(one.used).strftime("%Y-%m-%d %H:%M"),
            )
            for one in stored
        ]
        console().print(table(("model", "identity", "completions", "tokens", "size", "last used"), cells))
    used = f"{size(total)} of {size(limit)}" if stored else f"nothing is cached yet; the limit is {size(limit)}"
    print(f"{root}: {used}")


def _clear(root: Path, model: str | None, days: float | None) -> int:
    from xpo.models.store import clear, contents

    if model is None:
        return clear(root, None, days)
    return sum(clear(root, one.identity, days) for one in _matching(contents(root), model))


def _matching(stored: list[Stored], model: str) -> list[Stored]:
    """The caches of a model: several when it was used in several ways, or changed since."""
    named = [one for one in stored if one.model == model]
    found = named or [one for one in stored if one.identity.startswith(model.lower())]
    if not found:
        known = sorted({one.model for one in stored} | {one.identity[:SHORT] for one in stored})
        raise XpoError(f"nothing is cached of '{model}'.{did_you_mean(model, known)} `xpo cache` lists what is")
    if len(found) > 1 and not named:
        raise XpoError(f"several identities begin with '{model}'; `xpo cache` lists them: give more of one")
    return found


def _days(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise SettingError(f"--older_than is '{text}', which is no number of days; give one such as 30")
    return number
