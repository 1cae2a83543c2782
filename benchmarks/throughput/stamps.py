"""A callback that notes when each step ended, its loss and the memory held: the same instrument in every library."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import trainer as transformers_trainer

from benchmarks.throughput.machine import device_peak, host_peak, wait


class Stamps(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """What a training run was, step by step.

    A step lasts from the end of the one before it, so that fetching and collating rows count; the first one from the
    beginning of training. What comes before and after training (loading, looks at the model, saving) has no stamps.
    """

    def __init__(self) -> None:
        self.kind = "cpu"
        self.began = 0.0
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.tokens: int | None = None
        self.before: int | None = None
        self.peak: int | None = None
        self.device_peak: int | None = None

    @classmethod
    def install(cls) -> Stamps:
        """One that the next trainer of this process takes up by itself, as it does its other default callbacks."""
        stamps = cls()
        transformers_trainer.DEFAULT_CALLBACKS.append(stamps)
        return stamps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The clock starts."""
        self.kind = args.device.type
        wait(self.kind)
        self.before = host_peak()
        self.began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is over when the device is done with it. What follows training must not count as its memory."""
        wait(self.kind)
        self.ends.append(time.perf_counter() - self.began)
        self.peak, self.device_peak = host_peak(), device_peak(self.kind)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """The loss with all its digits, and the tokens seen where the library counts them."""
        logs = logs or {}
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
        if "num_tokens" in logs:
            self.tokens = int(logs["num_tokens"])

    def result(self) -> dict[str, Any]:
        """For the record: seconds from the beginning of training to the end of each step, losses, bytes."""
        return {
            "ends": self.ends,
            "losses": self.losses,
            "tokens": self.tokens,
            "memory_before": self.before,
            "memory_peak": self.peak,
            "device_peak": self.device_peak,
        }
