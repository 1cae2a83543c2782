"""``Zero``: where the rewards of a reward model have their zero, which training leaves anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: Beside the weights of a reward model.
FILE = "reward.json"


@dataclass(frozen=True)
class Zero:
    """Shifts rewards so that demonstrations have reward 0 on average (Stiennon et al. 2020, arXiv 2009.01325).

    Attributes:
        bias: what is taken off every reward.
        deviation: standard deviation of the demonstrations' rewards, for those who want to divide by it.
        demonstrations: how many of them there were.
    """

    bias: float
    deviation: float
    demonstrations: int

    @classmethod
    def of(cls, rewards: Sequence[float]) -> Zero:
        """The zero of a model that gives demonstrations these ``rewards``."""
        mean = sum(rewards) / len(rewards)
        squares = sum((reward - mean) ** 2 for reward in rewards)
        return cls(mean, (squares / max(len(rewards) - 1, 1)) ** 0.5, len(rewards))

    @classmethod
    def beside(cls, model: str) -> Zero | None:
        """What is stored with a model; None for one that was not trained here."""
        path = Path(model) / FILE
        return cls(**json.loads(path.read_text("utf-8"))) if path.is_file() else None

    def save(self, directory: Path) -> None:
        """Store it with the weights in ``directory``."""
        (directory / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")
