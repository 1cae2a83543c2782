"""Cells: one training each, under a name made of what it trains."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """Method x setting x seed.

    Attributes:
        method: what the suite calls the method.
        algo: the method itself.
        point: values of the grids this cell tries, by name; empty without a grid.
        settings: all settings of training that somebody made, common ones and the point included.
        seed: of training.
    """

    method: str
    algo: str
    point: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The cell as JSON values."""
        return {
            "method": self.method,
            "algo": self.algo,
            "point": dict(self.point),
            "settings": dict(self.settings),
            "seed": self.seed,
        }

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Cell:
        """The cell that ``to_dict`` wrote."""
        return cls(body["method"], body["algo"], body["point"], body["settings"], body["seed"])

    @property
    def setting(self) -> str:
        """The point of the grid in words; empty without a grid."""
        return point_text(self.point)

    @property
    def place(self) -> str:
        """Folder of the cell in that of the suite: readable, and different for whatever is different."""
        body = json.dumps({**self.to_dict(), "seed": None}, sort_keys=True)
        name = re.sub(r"[^\w.=]+", "-", " ".join(filter(None, [self.method, self.setting]))).strip("-.")[:60]
        return f"cells/{name}-{hashlib.sha256(body.encode()).hexdigest()[:8]}/seed-{self.seed}"

    def __str__(self) -> str:
        return ", ".join(filter(None, [self.method, self.setting, f"seed {self.seed}"]))


def point_text(point: Mapping[str, Any]) -> str:
    """``beta=0.1 learning_rate=1e-05``."""
    return " ".join(f"{name}={value}" for name, value in point.items())
