"""Reward models as reward functions: the score of a prompt and a completion, read at the last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import ModelConfig

from xpo.errors import FeedbackError
from xpo.models.load import Policy
from xpo.models.networks import Scalar, load_scalar

#: Texts read at once.
ROWS = 32


class ModelReward:
    """A sequence-classification model as a reward function.

    One that was trained here has a zero of its own and read texts that end, as completions do.
    """

    def __init__(self, scalar: Scalar, rows: int = ROWS) -> None:
        self.scalar, self.rows = scalar, rows

    @classmethod
    def load(cls, name: str, config: ModelConfig, policy: Policy | None = None) -> ModelReward:
        """From a directory or the hub; on the backbone of ``policy`` where it is an adapter on the same base.

        Raises:
            ModelError: there is no such model, or it has not one output.
        """
        return cls(load_scalar(name, config, policy))

    def describe(self) -> str:
        """Where it is computed, in a line."""
        return self.scalar.describe()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        """A reward for each completion."""
        model: Any = self.scalar.placed()
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        scores: list[float] = []
        special = not any(isinstance(prompt, list) for prompt in prompts)  # a chat template brings its own
        for start in range(0, len(texts), self.rows):
            rows = self.scalar.tokenizer(texts[start : start + self.rows], add_special_tokens=special)["input_ids"]
            # The head is read at the last token that is not padding. A padding id that occurs in the text, as when it
            # equals EOS, would move that place, so one that does not occur is chosen.
            used = {token for row in rows for token in row}
            pad = next(token for token in range(len(used) + 1) if token not in used)
            width = max(map(len, rows))
            input_ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            model.config.pad_token_id = pad
            logits = model(input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device)).logits
            scores.extend(logits[:, 0].float().tolist())
        zero = self.scalar.zero
        return scores if zero is None else [score - zero.bias for score in scores]

    def _text(self, prompt: Any, completion: Any) -> str:
        tokenizer = self.scalar.tokenizer
        if isinstance(prompt, str):
            return f"{prompt}{completion}" + ("" if self.scalar.zero is None else str(tokenizer.eos_token or ""))
        if tokenizer.chat_template is None:
            raise FeedbackError("the reward model's tokenizer has no chat template, but the prompts are conversations")
        return str(tokenizer.apply_chat_template([*prompt, *completion], tokenize=False))
