"""The settings of ``xpo bench`` itself, apart from those it hands on to training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from xpo.api.algorithm import option
from xpo.errors import SettingError

#: Held-out prompts that are sampled for, and the longest sample, where nobody says.
PROMPTS, TOKENS = 200, 128


@dataclass(frozen=True)
class BenchOptions:
    """What a suite is, and how it is run."""

    algos: list[str] = field(default_factory=list, metadata={"help": "methods, by comma"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "seeds of training, by comma (0)"})
    output_dir: str = option("", "directory of the suite: its table and the records of its cells")
    grid: dict[str, list[Any]] = field(
        default_factory=dict,
        metadata={
            "help": "NAME=V1,V2,...: try these values of a setting with every method that has it; METHOD.NAME=... with "
            "one. Several grids are crossed"
        },
    )
    budget_tokens: int | None = option(None, "each run ends once it has trained on so many tokens, prompts included")
    eval_prompts: int = option(PROMPTS, "held-out prompts to sample for, of each split")
    eval_tokens: int = option(TOKENS, "most tokens of such a sample")
    eval_reward: list[str] | None = field(
        default=None, metadata={"help": "rewards to examine with, where they are not those to learn from (--reward)"}
    )
    eval_judge: str | None = option(None, "judge to examine with, where it is not the one to learn from (--judge)")
    evaluators: list[str] | None = field(
        default=None,
        metadata={
            "help": "further columns, by comma: NAME or NAME:ARGUMENT of a plugin (`xpo plugins`), file.py:NAME or "
            "module:NAME"
        },
    )
    jobs: int = option(1, "cells to run at a time")
    executor: Literal["local", "ray"] = option("local", "where cells run")
    address: str | None = option(None, "address of the Ray cluster, for --executor ray")
    gpus_per_cell: int = option(0, "GPUs a cell is given, for --executor ray")
    keep_models: bool = option(False, "keep the trained models, in the folder of each cell")
    retry_failed: bool = option(False, "run cells that failed again")
    table: bool = option(False, "run nothing; draw the table of what is there")

    def __post_init__(self) -> None:
        for name in ("jobs", "eval_prompts", "eval_tokens", "budget_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"--{name} must be positive, not {value}")
        if self.gpus_per_cell < 0:
            raise SettingError(f"--gpus_per_cell must not be negative, not {self.gpus_per_cell}")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:  # what the random numbers of NumPy can begin with
                raise SettingError(f"--seeds takes numbers from 0 to {2**32 - 1}, not {seed}")
        for name in self.algos:
            if not name.isprintable():
                raise SettingError(f"--algos: {name!r} must be a line of printable characters to be a name in tables")
        if not self.output_dir:
            raise SettingError("--output_dir is missing: the directory for the table and the records of all cells")
        for name in ("algos", "seeds", "evaluators"):
            values = getattr(self, name) or []
            twice = sorted({str(one) for one in values if values.count(one) > 1})
            if twice:
                raise SettingError(f"--{name} names {', '.join(twice)} twice")
        if self.executor != "ray":
            for name, unset in (("address", None), ("gpus_per_cell", 0)):
                if getattr(self, name) != unset:
                    raise SettingError(f"--{name} has no effect without --executor ray; give both or neither")
        if self.eval_reward and self.eval_judge:
            raise SettingError("--eval_reward and --eval_judge both say what answers are worth; give one of them")


NAMES: Mapping[str, str] = {item.name: str(item.metadata.get("help", "")) for item in fields(BenchOptions)}
