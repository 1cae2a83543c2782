"""Training: settings, the loop, rollouts and the record of a run.

``xpo.train(algo="simpo")`` runs one. The package itself is what gets called: importing any module of it binds the name
``xpo.train`` to the package, so a function of that name would be there or not depending on who imported what before.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

from xpo.compat import quiet


class _Train(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Train a policy; the arguments are those of :func:`xpo.train.run.train`."""
        quiet()
        from xpo.train.run import train

        return train(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        from xpo.train.run import train

        return inspect.signature(train)


sys.modules[__name__].__class__ = _Train
