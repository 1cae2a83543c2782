"""What a checkpoint holds of a run beside what ``transformers`` keeps there: running state, networks and samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xpo.api.algorithm import Algorithm
from xpo.models.critic import Critic
from xpo.models.follower import Follower
from xpo.train.supply import Supply

#: Which algorithm made the checkpoint, and the running state it keeps.
STATE = "algorithm.json"
#: Of every process: samples that are yet to be used.
SAMPLED = "sampled-{rank}.json"


@dataclass(frozen=True)
class Kept:
    """What goes on from a checkpoint.

    Attributes:
        algorithm: keeps a running state, which may be empty.
        critic, follower: networks that change beside the policy, where there are any.
        supply: what is sampled for the steps to come, where something is.
        rank: this process; each has its own samples.
    """

    algorithm: Algorithm[Any]
    critic: Critic | None
    follower: Follower | None
    supply: Supply | None
    rank: int

    def save(self, folder: Path, *, shared: bool) -> None:
        """Write it into a checkpoint.

        Args:
            shared: also what is the same on all ranks, of which one writes it.
        """
        if shared:
            state = {"algorithm": self.algorithm.name, "state": self.algorithm.state_dict()}
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
            for network in (self.critic, self.follower):
                if network is not None:
                    network.save(str(folder))
        if self.supply is not None:
            folder.mkdir(parents=True, exist_ok=True)  # on another machine nobody has made it
            self.supply.save(folder / SAMPLED.format(rank=self.rank))

    def load(self, folder: Path) -> None:
        """Take up what :meth:`save` wrote. A checkpoint of ``transformers`` alone has no running state, nor samples."""
        if (folder / STATE).exists():
            self.algorithm.load_state_dict(json.loads((folder / STATE).read_text(encoding="utf-8"))["state"])
        for network in (self.critic, self.follower):
            if network is not None:
                network.load(str(folder))
        sampled = folder / SAMPLED.format(rank=self.rank)
        if self.supply is not None and sampled.exists():
            self.supply.load(sampled)


def maker(folder: Path) -> str | None:
    """The algorithm that made a checkpoint; None where it does not say."""
    state = folder / STATE
    return str(json.loads(state.read_text(encoding="utf-8"))["algorithm"]) if state.exists() else None
