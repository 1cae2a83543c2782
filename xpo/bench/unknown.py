"""What to say of a name that no method knows as a setting: a suite has names of its own that may have been meant."""

from __future__ import annotations

from collections.abc import Mapping

from xpo.bench.options import NAMES
from xpo.errors import did_you_mean
from xpo.train.sources import Given
from xpo.train.trl_flags import ALIASES, FOREIGN
from xpo.train.vocabulary import Vocabulary


def what_was_meant(given: Given, words: Mapping[str, Vocabulary]) -> str | None:
    """A message about a setting for all methods that is none; None where training has its own to say.

    Args:
        words: what the suite calls each method -> the settings that it has.
    """
    if any(_understood(given.name, some) for some in words.values()):
        return None
    if isinstance(given.value, Mapping) and given.name in words:
        return f"{given.label}: settings of one method stand below 'methods:', as in methods: {{{given.name}: ...}}"
    owner, dot, _ = given.name.rpartition(".")
    settings = {key for some in words.values() for key in _settings(some)}
    if dot and not any(key.startswith(f"{owner}.") for key in settings):
        own = [f"{name}.{key}" for name, some in words.items() for key in _settings(some)]
        hint = did_you_mean(given.spell(given.name), map(given.spell, own))
        return f"{given.label}: {owner} is not among --algos, which are {', '.join(words)}.{hint}"
    names = [given.spell(name) for name in dict.fromkeys((*NAMES, *sorted(settings), *ALIASES))]
    hint = did_you_mean(given.spell(given.name), names)
    return (
        f"{given.label} is not a setting of xpo bench or xpo train.{hint} `xpo bench --help` and `xpo train --help` "
        "list what there is"
    )


def _settings(words: Vocabulary) -> set[str]:
    """The settings there are, as people write them: those of the parts of a sum with a dot."""
    return {name for name in (*words.slots, *words.algorithm.settings()) if "__" not in name}


def _understood(name: str, words: Vocabulary) -> bool:
    """Whether a method has the setting, or there is something to say of it: it is another's, or another program's."""
    bare = name.removeprefix("no_")
    if any(words.resolve(one) in words.slots or one in FOREIGN for one in (name, bare)):
        return True
    if name in words.algorithm.accepts or any(key.endswith(f".{name}") for key in words.algorithm.settings()):
        return True
    return any(name in (*entry.cls.settings(), *entry.cls.aliases) for entry in words.registry.algorithms.values())
