"""Judge answers one at a time by a rubric of points, and prefer the one with more (Yuan et al. 2024, 2401.10020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from xpo.data.rows import Content
from xpo.feedback.opinions import mean_score
from xpo.feedback.parsing import RUBRIC, fill, points, read_template
from xpo.feedback.questions import Answers, Asker, JudgeOptions, Reply, Wording, Writer, plain

#: Most tokens of a review, and the temperature it is sampled at.
TOKENS, TEMPERATURE = 256, 0.7


class RubricJudge(Asker):
    """The first is preferred with probability 1, 0.5 or 0, as its mean score is higher, the same or lower."""

    def __init__(self, writer: Writer, options: JudgeOptions) -> None:
        self.writer, self.samples = writer, options.samples
        self.template = read_template(options.template, RUBRIC)

    def bind(self, model: torch.nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self.writer.bind(model, tokenizer)

    def __call__(self, questions: Sequence[Wording]) -> Answers:
        asked = [(one.prompt, answer) for one in questions for answer in (one.first, one.second)]
        scores = self.scores(asked)
        pairs = zip(scores.values[::2], scores.values[1::2], strict=True)
        return Answers([_compared(first, second) for first, second in pairs], scores.read, scores.written)

    def scores(self, answers: Sequence[tuple[Content, Content]]) -> Answers:
        """The mean score of each answer to a prompt, from 0 to 5, or why it has none.

        An answer that occurs several times is judged once.
        """
        texts = [fill(self.template, prompt=plain(prompt), answer=plain(answer)) for prompt, answer in answers]
        distinct = list(dict.fromkeys(texts))
        replies = self.writer.write(distinct, self.samples, TOKENS, TEMPERATURE)
        found = {
            text: _scored(replies[index * self.samples : (index + 1) * self.samples])
            for index, text in enumerate(distinct)
        }
        heard = [reply for reply in replies if isinstance(reply, Reply)]
        return Answers(
            [found[text] for text in texts], sum(one.read for one in heard), sum(one.written for one in heard)
        )


def _scored(replies: Sequence[Reply | str]) -> float | str:
    score = mean_score([points(reply.text) if isinstance(reply, Reply) else None for reply in replies])
    if score is not None:
        return score
    return next((reply for reply in replies if isinstance(reply, str)), "unparsable")


def _compared(first: float | str, second: float | str) -> float | str:
    if isinstance(first, str):
        return first
    if isinstance(second, str):
        return second
    return 0.5 if first == second else float(first > second)
