"""Whether a directory can be written, asked before anything is, so that nobody trains for hours to hear it cannot."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from xpo.errors import SettingError


def check_place(path: Path, *, replaced: bool = False) -> Path:
    """Refuse an output directory that cannot be made or written to, without leaving anything there.

    Args:
        path: the directory, there or not.
        replaced: another directory will take its place: then the one that holds it is written to.

    Returns:
        What there is of it: the directory itself, or the nearest one above.

    Raises:
        SettingError: a file is in the way, or there is no permission.
    """
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise SettingError(f"--output_dir {path}: {place} is not a directory; choose another --output_dir")
    written = path.parent if replaced and place == path else place
    if not os.access(written, os.W_OK | os.X_OK):
        raise SettingError(f"--output_dir {path}: {written} is not writable; choose another --output_dir")
    try:
        with tempfile.TemporaryFile(dir=written):  # leave is not all: some file systems take no files from anybody
            pass
    except OSError as error:
        raise SettingError(
            f"--output_dir {path}: {written} takes no files ({error.strerror}); choose another --output_dir"
        ) from error
    return place
