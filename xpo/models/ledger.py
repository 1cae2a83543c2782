"""The ledger: how many bytes tensors take from one operation to the next, by what they are for.

It watches operations, not an allocator, so it keeps its books of tensors without data too: what a pass through a model
would take is known without a byte of it being there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xpo.compat import TorchDispatchMode, tree_leaves

#: Says what a tensor is for, by its shape; the empty string where that is left to ``Ledger.during``.
Label = Callable[[Tensor], str]


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types it in part
    """Counts the bytes of all tensors that are made while it is active, each storage once, until they are gone.

    Attributes:
        parts: bytes held now, by part.
        highest: the same when the sum was highest since the last ``during``.
    """

    def __init__(self, label: Label) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.parts: dict[str, int] = {}
        self.highest: dict[str, int] = {}
        self._label = label
        self._part = ""
        self._held: dict[int, tuple[weakref.ref[Any], str, int]] = {}
        self._now = self._peak = 0

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Book what is made from here on as ``part``, unless its shape says otherwise, and begin a new peak."""
        before, self._part = self._part, part
        self._peak, self.highest = self._now, dict(self.parts)
        try:
            yield
        finally:
            self._part = before

    def book(self, tensors: Iterable[Tensor], part: str) -> None:
        """Count tensors that are there already as ``part``; those counted so far as something else change over."""
        for tensor in tensors:
            entry = self._held.get(tensor.untyped_storage()._cdata)
            if entry is None:
                self._add(tensor, part)
            elif entry[1] != part:
                reference, other, size = entry
                self._held[tensor.untyped_storage()._cdata] = reference, part, size
                self.parts[other] -= size
                self.parts[part] = self.parts.get(part, 0) + size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self._held:
                self._add(leaf, self._label(leaf) or self._part)
        return result

    def _add(self, tensor: Tensor, part: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()

        def gone(_: Any) -> None:
            _, part, size = self._held.pop(key)  # it may have changed over since
            self._now -= size
            self.parts[part] -= size

        # The wrapper of a storage lives as long as the storage itself, views and what autograd saves included.
        self._held[key] = weakref.ref(storage, gone), part, size
        self._now += size
        self.parts[part] = self.parts.get(part, 0) + size
        if self._now > self._peak:
            self._peak, self.highest = self._now, dict(self.parts)
