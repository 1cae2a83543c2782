"""Hollow tensors for the outline of a model: a shape, a kind of number and a device, and no data behind them.

With them a model can be run for what it allocates. Layers that another library computes from packed weights are
replaced by stand-ins that hold as much and make as much in passing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xpo.compat import outside_modes, tree_leaves
from xpo.models.scoring import Model

#: Weights that share one scale, in the quantisations of bitsandbytes.
BLOCK, NESTED_BLOCK = 64, 256


def stand_in(model: Model, *, nested: bool = False) -> None:
    """Replace quantised layers of a model on the meta device.

    Args:
        nested: whether the scales of 4-bit weights are quantised in turn.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            kind = type(child).__name__
            if isinstance(child, torch.nn.Linear) and kind in ("Linear4bit", "Linear8bitLt"):
                setattr(module, name, Quantised(child, bits=4 if kind == "Linear4bit" else 8, nested=nested))


def hollow(model: Model) -> None:
    """Give the tensors of a model on the meta device a place, in the fake mode that is active. Tied ones stay tied."""
    made: dict[int, Tensor] = {}

    def placed(tensor: Tensor) -> Tensor:
        if tensor.device.type != "meta":
            return tensor
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            trained = tensor.requires_grad
            made[id(tensor)] = torch.nn.Parameter(empty, trained) if isinstance(tensor, torch.nn.Parameter) else empty
        return made[id(tensor)]

    for module in model.modules():
        # Some modules keep tensors that are neither parameters nor buffers.
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
        for table in tables:
            table |= {name: placed(value) for name, value in table.items() if isinstance(value, Tensor)}


class Quantised(torch.nn.Module):
    """Stands in for a layer of bitsandbytes: what it holds, and what it makes in passing, but no values.

    Args:
        layer: the layer, on the meta device.
        bits: 4 or 8 for a weight.
        nested: whether the scales are quantised in turn.
    """

    def __init__(self, layer: torch.nn.Linear, *, bits: int, nested: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits = layer.in_features, layer.out_features, bits
        self.compute: torch.dtype | None = getattr(layer, "compute_dtype", None)
        self.bias = layer.bias
        count = layer.in_features * layer.out_features
        self.hold("packed", count * bits // 8, torch.uint8)
        if bits == 8:
            self.hold("scales", layer.out_features)
        elif nested:
            self.hold("scales", count // BLOCK, torch.uint8)
            self.hold("scales_of_scales", count // BLOCK // NESTED_BLOCK)
        else:
            self.hold("scales", count // BLOCK)

    def hold(self, name: str, count: int, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, torch.empty(count, dtype=dtype, device="meta"))

    @property
    def weight(self) -> Tensor:
        """What adapters look at to see where they are."""
        return self.packed  # type: ignore[return-value]  # torch types every attribute

    def forward(self, states: Tensor) -> Tensor:
        inputs = states if self.compute is None else states.to(self.compute)
        made: Tensor = _Dequantised.apply(inputs, self.out_features, self.bits)  # type: ignore[no-untyped-call]  # torch's
        return (made if self.bias is None else made + self.bias.to(made.dtype)).to(states.dtype)


class _Dequantised(torch.autograd.Function):
    """The weight is there in full while the layer is computed, forwards and backwards, and not in between."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, width: int, bits: int) -> Tensor:
        weight = states.new_empty(width, states.shape[-1])
        ctx.shape = weight.shape
        ctx.states = states if bits == 8 else None  # bitsandbytes keeps them, though nothing needs them
        return states @ weight.t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient @ gradient.new_empty(ctx.shape), None, None


class Known(Tensor):
    """A tensor with data among hollow ones: what is computed of it alone is computed for real."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if all(isinstance(one, cls) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)):
            with outside_modes():
                return super().__torch_function__(function, types, args, kwargs)  # type: ignore[no-untyped-call]  # torch's
        others, named = _plain(args, kwargs)
        return function(*others, **named)


def _plain(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments with plain tensors in place of known ones."""

    def plain(value: Any) -> Any:
        if isinstance(value, Known):
            return value.as_subclass(Tensor)
        return type(value)(map(plain, value)) if isinstance(value, (tuple, list)) else value

    return plain(args), {name: plain(value) for name, value in kwargs.items()}
