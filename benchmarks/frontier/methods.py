"""What is trained: a few methods, each with several weights of the tie to the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xpo.errors import SettingError

#: Name of what trains nothing: the best of n samples of the start.
BEST_OF = "best_of_n"


@dataclass(frozen=True)
class Sweep:
    """A method and the values of one of its settings.

    Attributes:
        title: what figure and tables call it.
        algo: what ``xpo.train`` calls it.
        setting: name of what ties it to the start.
        values: what that is set to; everything else is left to its defaults.
        learns: what it learns from.
    """

    title: str
    algo: str
    setting: str
    values: Sequence[float]
    learns: str


@dataclass(frozen=True)
class Work:
    """How much is done for a point.

    Attributes:
        steps: of every run.
        looks: times a run is looked at, evenly spread; the last is at its end.
        prompts: held-out prompts of a look.
        samples: of each prompt.
        pool: samples of the start for each prompt, of which best-of-n takes the best.
        sizes: the n of best-of-n, the pool at most.
        also: settings of every run, to try the program out.
    """

    steps: int = 120
    looks: int = 4
    prompts: int = 200
    samples: int = 2
    pool: int = 64
    sizes: Sequence[int] = (2, 4, 8, 16, 32, 64)
    also: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps % self.looks:
            raise SettingError(f"{self.steps} steps cannot be looked at {self.looks} times, evenly spread to the end")
        if max(self.sizes) > self.pool:
            raise SettingError(f"the best of {max(self.sizes)} cannot be told from a pool of {self.pool}")


REWARD, LABELS = "the known reward of its samples", "pairs that a labeller judged"

SWEEPS: Mapping[str, Sweep] = {
    "ppo": Sweep("PPO", "ppo", "kl_coef", (0.02, 0.05, 0.2, 0.5), REWARD),
    "rloo": Sweep("RLOO", "rloo", "beta", (0.02, 0.05, 0.2, 0.5), REWARD),
    "online_dpo": Sweep("online DPO", "online_dpo", "beta", (0.05, 0.1, 0.3, 1.0), REWARD),
    "dpo": Sweep("DPO", "dpo", "beta", (0.05, 0.1, 0.3, 1.0), LABELS),
}
