"""Stop a run once it has trained on so many tokens."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xpo.train.trainer import PreferenceTrainer


class Spend(TrainerCallback):  # type: ignore[misc]  # transformers is not followed, so its classes are Any
    """Ends training with the first step that reaches a number of tokens, prompts included."""

    def __init__(self, trainer: PreferenceTrainer, tokens: int) -> None:
        self.trainer, self.tokens = trainer, tokens

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Stop where the budget is spent."""
        if self.trainer.tokens_of_all_ranks() >= self.tokens:
            control.should_training_stop = True
