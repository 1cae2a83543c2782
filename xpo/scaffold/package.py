"""Write a package: all of its files or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

import xpo
from xpo.api.groups import COLUMNS, KINDS, Kind
from xpo.errors import SettingError, did_you_mean
from xpo.scaffold.names import Names


def render(names: Names, data: Kind) -> dict[str, str]:
    """The files of a new package: name -> content.

    Raises:
        SettingError: there is no such kind of data.
    """
    if data not in KINDS:
        raise SettingError(
            f"there is no kind of data '{data}'.{did_you_mean(data, KINDS)} The kinds are {', '.join(KINDS)}"
        )
    words = {
        "method": names.method,
        "cls": names.cls,
        "distribution": names.distribution,
        "version": xpo.__version__,
        "data": data,
        "columns": COLUMNS[data],
    }
    templates = {
        f"{names.method}.py": f"{data}.py.txt",
        f"test_{names.method}.py": f"{data}_test.py.txt",
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "readme.md.txt",
    }
    folder = files("xpo.scaffold") / "templates"
    return {
        name: Template((folder / template).read_text(encoding="utf-8")).substitute(words)
        for name, template in templates.items()
    }


def write(contents: Mapping[str, str], folder: Path) -> None:
    """Write files into a new folder, which appears when it is complete.

    Raises:
        SettingError: the folder is there already, or it cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise SettingError(f"there is a '{folder}' already; move it away, or give another --directory")
    if not folder.parent.is_dir():
        raise SettingError(f"the folder '{folder.parent}' does not exist; make it first, or give another --directory")
    unfinished = folder.parent / f".{folder.name}.{os.getpid()}"
    try:
        unfinished.mkdir()
        for name, content in contents.items():
            (unfinished / name).write_text(content, encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        raise SettingError(f"'{folder}' cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
