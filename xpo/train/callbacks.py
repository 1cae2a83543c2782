"""What happens around the optimiser: steps that learn nothing pass it by, and the reference moves after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from xpo.models.follower import Follower

if TYPE_CHECKING:
    from xpo.train.trainer import PreferenceTrainer


class Passing(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Lets a step that learns nothing pass: an optimiser moves weights by momentum even where the gradient is 0."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, *arguments: object, **keywords: object) -> None:
        if self.trainer.empty:
            self.trainer.forget_gradients()


class Following(TrainerCallback):  # type: ignore[misc]  # as above
    """Moves the reference every some steps."""

    def __init__(self, follower: Follower, share: float, steps: int) -> None:
        self.follower, self.share, self.steps = follower, share, steps

    def on_step_end(self, args: object, state: Any, *arguments: object, **keywords: object) -> None:
        if state.global_step % self.steps == 0:
            self.follower.move(self.share)
