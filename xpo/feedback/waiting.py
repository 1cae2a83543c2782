"""Functions of the user's that are coroutines: they wait together, on an event loop that stays for the next call.

A loop of its own, in a thread of its own, works within a notebook, whose loop is running already; and what a function
keeps open from one call to the next, such as a client of a server, belongs to the loop it was opened on.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether a call gives something to wait for: a function or a method with ``async``, or an object of that kind."""
    return any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004  # its own


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What some calls come to, each begun before any is waited for; an exception in the place of one that raised."""

    async def settle() -> list[Any]:
        return await asyncio.gather(*(_begun(call) for call in calls), return_exceptions=True)

    return asyncio.run_coroutine_threadsafe(settle(), _loop(os.getpid())).result()


def called(function: Callable[..., Any], **given: Any) -> Any:
    """What a function returns, waited for where it is a coroutine; what it raises is raised."""
    if not is_coroutine(function):
        return function(**given)
    [found] = together([partial(function, **given)])
    if isinstance(found, BaseException):
        raise found
    return found


async def _begun(call: Callable[[], Any]) -> Any:
    return await call()


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of a process: a fork takes the loop along, and not the thread that runs it."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=f"xpo-coroutines-{process}", daemon=True).start()
    return loop
