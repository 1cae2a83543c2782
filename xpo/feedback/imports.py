"""Functions of the user's own, named ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpo.errors import SettingError, did_you_mean


def imported(module: str, name: str, what: str, usable: Callable[[object], bool] = callable) -> Any:
    """What is called ``name`` in a module, or in a file whose name ends in ``.py``.

    Args:
        what: ``reward`` or ``judge``, for messages.
        usable: whether a thing of that name is one; a function, unless told otherwise.

    Raises:
        SettingError: the module cannot be imported, or has nothing of the kind by that name.
    """
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module).stem, module)
            if spec is None or spec.loader is None or not Path(module).is_file():
                raise FileNotFoundError(f"there is no file '{module}'")
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise SettingError(f"{what} '{module}:{name}' cannot be imported: {error}") from error
    found = getattr(loaded, name, None)
    if not usable(found):
        raise SettingError(f"'{module}' has no function '{name}'.{did_you_mean(name, vars(loaded))}")
    return found
