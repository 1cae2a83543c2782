"""A causal language model here, the policy or another, that is asked in words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.data.encode import Encoder
from xpo.errors import FeedbackError
from xpo.feedback.opinions import preferred
from xpo.feedback.parsing import PAIR, fill, read_template
from xpo.feedback.questions import Answers, Asker, JudgeOptions, Reply, Wording, Writer, plain
from xpo.feedback.sampling import Sampling, sample
from xpo.models.load import load_policy, load_tokenizer
from xpo.models.scoring import PLAIN, score, text_config

#: Texts that are read at once.
ROWS = 16
TOO_LONG = "too long for the judge"


@dataclass
class LanguageModel(Writer):
    """A model and its tokenizer; both None where it is the policy, until that is bound.

    Attributes:
        seed: of what it writes.
    """

    model: torch.nn.Module | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.is_policy = self.model is None

    @classmethod
    def load(cls, name: str, config: ModelConfig, seed: int = 0) -> LanguageModel:
        """Load the model ``name``, a directory or hub id, in the precision of the policy."""
        own = replace(config, model_name_or_path=name, model_revision="main", use_peft=False)
        model = load_policy(own, training=False).model
        return cls(model.eval().requires_grad_(False), load_tokenizer(own), seed)

    def bind(self, model: torch.nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.is_policy:
            self.model, self.tokenizer = model, tokenizer
        elif self.model is not None:
            put_beside(self.model, model)

    def write(self, texts: Sequence[str], samples: int, tokens: int, temperature: float) -> list[Reply | str]:
        model, tokenizer = self._ready()
        # The stream of random numbers is the text's own: what is said of it does not depend on its neighbours.
        groups = [Group(self._ids(text)[0], row=_number(text)) for text in texts]
        fitting = [fits(model, len(group.prompt_ids) + tokens) for group in groups]
        asked = [group for group, fit in zip(groups, fitting, strict=True) if fit]
        sampling = Sampling(samples, tokens, temperature, self.seed)
        written = iter(sample(model, tokenizer, asked, sampling, stream="judge") if asked else [])
        replies: list[Reply | str] = []
        for group, fit in zip(groups, fitting, strict=True):
            if not fit:
                replies += [TOO_LONG] * samples
                continue
            for one in next(written):
                text = str(tokenizer.decode(one.ids, skip_special_tokens=True))
                replies.append(Reply(text, read=len(group.prompt_ids), written=len(one.ids)))
        return replies

    def choose(self, texts: Sequence[str]) -> Answers:
        """For each text the probability that "1" follows, of "1" and "2" alone.

        Raises:
            FeedbackError: the tokenizer has no single tokens for them.
        """
        model, _ = self._ready()
        options = [self._ids(text, choices=True) for text in texts]
        fitting = [fits(model, len(ids) + 1) for ids, *_ in options]
        asked = [option for option, fit in zip(options, fitting, strict=True) if fit]
        found = iter(_preferences(model, asked))
        values = [next(found) if fit else TOO_LONG for fit in fitting]
        return Answers(values, read=sum(len(ids) for ids, *_ in asked))

    def _ready(self) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
        if self.model is None or self.tokenizer is None:
            raise FeedbackError("the policy is to be the judge, and there is none yet; call bind(model, tokenizer)")
        return self.model, self.tokenizer

    def _ids(self, text: str, choices: bool = False) -> tuple[list[int], int, int]:
        """Token ids of a question, and, if ``choices``, of the answers "1" and "2" behind it."""
        _, tokenizer = self._ready()
        rendered = tokenizer.chat_template is not None
        if rendered:
            message = [{"role": "user", "content": text}]
            # A model that begins by thinking aloud says neither 1 nor 2; templates without such a switch ignore it.
            text = str(
                tokenizer.apply_chat_template(
                    message, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            )
        encoder = Encoder(tokenizer)
        if not choices:
            return encoder.ids([text], rendered=rendered)[0], -1, -1
        variants = [("1", "2"), (" 1", " 2")]
        if not rendered and not text[-1:].isspace():
            variants.reverse()  # behind a word there comes a space first, which may be part of the token
        for variant in variants:
            ids, *longer = encoder.ids([text, *(text + choice for choice in variant)], rendered=rendered)
            first, second = (row[len(ids) :] if row[: len(ids)] == ids else [] for row in longer)
            if len(first) == len(second) == 1 and first != second:
                return ids, first[0], second[0]
        raise FeedbackError(
            "the judge's tokenizer has no single tokens for the answers 1 and 2 behind the question; "
            "use another model, or end the question of --judge_template otherwise"
        )


class LanguageModelJudge(Asker):
    """Asks which of two answers is better, and reads the log-probabilities of "1" and "2" (arXiv 2309.00267)."""

    both_orders = True

    def __init__(self, model: LanguageModel, options: JudgeOptions) -> None:
        self.model = model
        self.template = read_template(options.template, PAIR)

    def bind(self, model: torch.nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model.bind(model, tokenizer)

    def __call__(self, questions: Sequence[Wording]) -> Answers:
        return self.model.choose([asked(self.template, one) for one in questions])


def asked(template: str, question: Wording) -> str:
    """A question about two answers, as a language model reads it."""
    return fill(template, prompt=plain(question.prompt), first=plain(question.first), second=plain(question.second))


def put_beside(model: torch.nn.Module, policy: torch.nn.Module | None) -> None:
    """Move a judge to where the policy is. Quantised weights are there already, and cannot be moved."""
    if policy is not None and not getattr(model, "is_quantized", False):
        model.to(next(policy.parameters()).device)


def fits(model: torch.nn.Module, length: int) -> bool:
    """Whether a text of so many tokens is within what a model was made for."""
    most = getattr(text_config(model), "max_position_embeddings", None)
    return most is None or length <= most


def batches(groups: Sequence[Group], device: torch.device) -> Iterator[tuple[list[int], Batch]]:
    """Groups of about the same length together, with their places among all."""
    order = sorted(range(len(groups)), key=lambda index: groups[index].length)
    for start in range(0, len(order), ROWS):
        some = order[start : start + ROWS]
        yield some, Batch.of([groups[index] for index in some], device=device)


@contextmanager
def reading(model: torch.nn.Module) -> Iterator[torch.device]:
    """A model's device, in evaluation mode without gradient; it returns to its own mode, for it may be in training."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(training)


def _preferences(model: torch.nn.Module, options: Sequence[tuple[list[int], int, int]]) -> list[float]:
    """Probability of the first token rather than the second behind each of some token ids."""
    groups = [Group(ids, [Completion([first])]) for ids, first, _ in options]
    found = [0.0] * len(options)
    with reading(model) as device:
        for places, batch in batches(groups, device):
            scores = score(model, batch, PLAIN, vocabulary=True)
            assert scores.distributions is not None
            others = torch.tensor([options[place][2] for place in places], device=device)
            seconds = scores.distributions.over(_picked, beside=[others])
            for place, first, second in zip(places, scores.logps[:, 0].tolist(), seconds.tolist(), strict=True):
                found[place] = preferred(first, second)
    return found


def _picked(logps: Tensor, tokens: Tensor) -> Tensor:
    return logps.gather(1, tokens[:, None])[:, 0]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")
