"""Whether a package goes with this xpo. pip asks the same when it installs one, and can be told to go on anyway."""

from __future__ import annotations

import re
from importlib.metadata import Distribution

import xpo


def unmet(package: Distribution | None) -> str | None:
    """Why ``package`` does not go with the xpo that runs; None where it does, or does not say."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in (package.requires if package is not None else None) or ():
        if not re.match(r"\s*xpo(?![\w.-])", line, re.IGNORECASE):
            continue
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            return f"what it needs, '{line}', cannot be read; correct the dependencies in its pyproject.toml"
        here = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if here and not asked.specifier.contains(xpo.__version__, prereleases=True):
            return (
                f"it needs xpo{asked.specifier}, and this is xpo {xpo.__version__}; install another version of one of "
                "the two"
            )
    return None
