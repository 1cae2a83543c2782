"""Ways to put a mistake into a method of a stranger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Scores, Term

#: (class, check that finds it, words of the message that name it).
Mistake = tuple[type[Any], str, str]


def wrong(base: type[Algorithm[Any]], **members: Any) -> type[Algorithm[Any]]:
    """``base`` with a mistake in it."""
    return type("Wrong", (base,), {"__module__": __name__, **members})


def with_loss(base: type[Algorithm[Any]], values: Callable[..., Tensor], level: str, **members: Any) -> type[Any]:
    """``base`` with one term of its own: ``values`` of the method, the batch, the policy and the reference."""

    def loss(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        return Loss([Term(values(self, batch, policy, reference), level)])  # type: ignore[arg-type]  # a level by its name

    return wrong(base, loss=loss, **{"metrics": {}, **members})


FREE: dict[str, Any] = {
    "needs": Needs(),
    "Config": Config,
    "equation": "L = mean of -log sigmoid(A_w - A_l), A = log pi(y|x) / |y|",
}
