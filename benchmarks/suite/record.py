"""Records: the ``records.json`` of a suite as it was, packed. They are added and never edited."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

from benchmarks.records import RESULTS, Record, unused
from xpo.bench.store import FORMAT, RECORDS
from xpo.errors import SettingError
from xpo.train.output import replacing

_NAME = re.compile(r"zoo-(?P<day>\d{4}-\d{2}-\d{2})(?:-(?P<number>\d+))?\.json\.gz")


def keep(suite: Path, folder: Path = RESULTS, day: date | None = None) -> Path:
    """Add the records of a suite to a folder, under a name of their own; the name.

    Raises:
        SettingError: there are no records of a suite.
    """
    record = _checked(suite / RECORDS, _text(suite / RECORDS))
    # The tables are made of the rest, by the code of the day on which they are shown.
    body = json.dumps({key: value for key, value in record.items() if key != "table"}, ensure_ascii=False)
    path = unused(folder, f"zoo-{day or datetime.now(UTC).date()}", ".json.gz")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(body.encode(), mtime=0))
    return path


def read(path: Path) -> Record:
    """A record from its file."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, ValueError, EOFError) as error:
        raise SettingError(f"{path}: cannot be read as a record of a suite ({error})") from None
    return _checked(path, text)


def files(folder: Path = RESULTS) -> list[Path]:
    """The files of all records of a folder, oldest first."""
    found = [(match, path) for path in folder.glob("zoo-*.json.gz") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda one: (one[0]["day"], int(one[0]["number"] or 1)))]


def picture(path: Path) -> Path:
    """Where the figure of a record is."""
    return path.with_name(path.name.removesuffix(".json.gz") + ".svg")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise SettingError(f"{path}: not there; run the suite first (make bench)") from None


def _checked(path: Path, text: str) -> Record:
    try:
        record: Record = json.loads(text)
    except ValueError as error:
        raise SettingError(f"{path}: cannot be read as a record of a suite ({error})") from None
    if record.get("benchmark") != "xpo bench" or record.get("format") != FORMAT:
        raise SettingError(f"{path}: not a record of a suite, or of another version of xpo bench")
    return record
