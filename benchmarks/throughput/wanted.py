"""What a measurement was asked to do, and what follows from it for each case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.throughput.cases import SIDES, Case
from benchmarks.throughput.job import Setup
from xpo.errors import SettingError


@dataclass(frozen=True)
class Wanted:
    """What was asked for, in the words of the command line."""

    work: Path
    cases: Sequence[str]
    sides: Sequence[str]
    steps: int
    trl_steps: int | None
    warmup: int
    repeats: int
    threads: int | None
    pairs: str | None
    long_pairs: str | None
    plain_pairs: str | None
    small_model: str | None
    size: str
    model: str | None
    device: str
    dtype: str
    load_in_4bit: bool
    attn_implementation: str | None
    gradient_checkpointing: bool
    max_length: int
    seed: int
    timeout: float
    output: Path

    def __post_init__(self) -> None:
        least = {"steps": 1, "trl_steps": 1, "warmup": 0, "repeats": 1, "threads": 1, "max_length": 1}
        for name, fewest in least.items():
            value = getattr(self, name)
            if value is not None and value < fewest:
                raise SettingError(f"--{name.replace('_', '-')} must be at least {fewest}, not {value}")

    def setup(self, case: Case | None = None) -> Setup:
        """What all runs have in common. All weights are trained in float32, whatever the others are loaded in."""
        setup = Setup(
            device=self.device,
            dtype=self.dtype,
            load_in_4bit=self.load_in_4bit,
            attn_implementation=self.attn_implementation,
            checkpointing=self.gradient_checkpointing,
            max_length=self.max_length,
            seed=self.seed,
        )
        return setup if case is None or case.lora else replace(setup, dtype="float32", load_in_4bit=False)

    def sides_of(self, case: Case) -> list[str]:
        return [side for side in self.sides if side in case.sides]

    def steps_of(self, case: Case, side: str) -> int:
        """All steps of a side, those that warm up included."""
        few = self.trl_steps if SIDES[side].library == "trl" else None
        return case.steps or (few or self.steps) + self.warmup
