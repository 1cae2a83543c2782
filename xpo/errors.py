"""The errors a user may meet. Every message says what is wrong, where, and what to do next.

The command line turns an ``XpoError`` into one message and exit status 2; from Python it is an ordinary exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XpoError(Exception):
    """Base of every error that is about the user's input or surroundings rather than about a fault in xpo."""


class SettingError(XpoError):
    """A flag, a configuration file or a combination of settings cannot be honoured."""


class DataError(XpoError):
    """A data source, a row or a column is not what the algorithm needs."""


class ModelError(XpoError):
    """A model or tokenizer cannot be loaded or does not fit the data."""


class PluginError(XpoError):
    """A plugin is missing, broken or breaks its contract."""


class FeedbackError(XpoError):
    """A reward function or reward model returned something that cannot be used."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'simpo'?"`` when ``known`` holds something close to ``name``, else the empty string.

    The dashes before a flag are no likeness.
    """
    bare = {word.lstrip("-"): word for word in known}
    close = difflib.get_close_matches(name.lower().lstrip("-"), bare, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(bare[match]) for match in close)}?" if close else ""
