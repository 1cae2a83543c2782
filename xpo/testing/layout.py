"""The check that goes through a real model: a tree and padded rows must give the weights one gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.api.loss import counts, reduce
from xpo.models.layout import Tree
from xpo.models.scoring import PLAIN, Engine, score
from xpo.testing.fabricate import VOCABULARY
from xpo.testing.report import Cross
from xpo.testing.speech import speak
from xpo.testing.subject import NEAR, Subject
from xpo.testing.trial import prepared

#: Models compute norms in float32 whatever their weights are; a wrong token or position is off by far more.
ROUNDING = 1e-5


def layout(subject: Subject) -> str:
    """Prompts computed once, in a tree, and once for every completion, in padded rows, give the same update."""
    model = _model(subject.cls.model != "policy", seed=1)
    anchor = _model(False, seed=2).requires_grad_(False)
    found = []
    for engine in (PLAIN, Engine(Tree(reach=30.0), compact=True)):
        algorithm = subject.make()
        found.append(_update(algorithm, prepared(algorithm, NEAR), model, anchor, engine))
    (loss, gradient), (other_loss, other) = found
    scale = max(float(one.abs().max()) for one in gradient)
    apart = max(float((a - b).abs().max()) for a, b in zip(gradient, other, strict=True))
    if abs(loss - other_loss) > ROUNDING * max(abs(loss), scale) or apart > ROUNDING * scale:
        raise Cross(
            f"through a real model the loss is {loss:.8g} in padded rows and {other_loss:.8g} in a tree, or the "
            "gradient of the weights differs; make it of the scores alone, which know nothing of rows"
        )
    return "tree as padded"


def _update(
    algorithm: Algorithm[Any], groups: Sequence[Group], model: torch.nn.Module, anchor: torch.nn.Module, engine: Engine
) -> tuple[float, list[torch.Tensor]]:
    """The loss, and the gradient of every weight."""
    batch, needs = Batch.of(groups, dtype=torch.float64), algorithm.needs
    policy = _valued(score(model, batch, engine, vocabulary=needs.vocabulary), batch, algorithm)
    reference = None
    if needs.reference:
        with torch.no_grad():
            reference = score(anchor, batch, engine, vocabulary=needs.reference_vocabulary)
    value, _ = reduce(algorithm.loss(batch, policy, reference), batch, counts(batch))
    weights = [one for one in model.parameters() if one.requires_grad]
    gradient = torch.autograd.grad(value, weights, allow_unused=True)
    return float(value.detach()), [
        torch.zeros_like(weight) if slope is None else slope for weight, slope in zip(weights, gradient, strict=True)
    ]


def _valued(scores: Scores, batch: Batch, algorithm: Algorithm[Any]) -> Scores:
    """With made-up values, where there is to be a value model."""
    if not algorithm.needs.values:
        return scores
    return replace(scores, values=speak(batch, algorithm.needs, "policy").scores.values)


def _model(reward: bool, seed: int) -> torch.nn.Module:
    """A random Llama of a few thousand weights."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.3,  # far from uniform, so that a wrong token or position shows
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,  # a token like any other: rows are read where they end
        tie_word_embeddings=False,
        num_labels=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: torch.nn.Module = (LlamaForSequenceClassification if reward else LlamaForCausalLM)(config)
        return made.double().eval()
