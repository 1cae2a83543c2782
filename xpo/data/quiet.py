"""Keep ``datasets`` from writing to the terminal or to the user's cache while it reads."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets


@contextmanager
def quiet_datasets() -> Iterator[str]:
    """No progress bars, warnings or log lines inside; yields the path of a cache folder that vanishes afterwards."""
    bars = not datasets.are_progress_bars_disabled()
    level = datasets.logging.get_verbosity()
    # The hub's client tells of each retry; the one message at the end says what failed.
    client = logging.getLogger("huggingface_hub")
    client_level = client.level
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    client.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="xpo-") as cache, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield cache
    finally:
        client.setLevel(client_level)
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()
