"""The one forward: what a causal language model, or a reward model, says about the completions of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from xpo.api.batch import Batch, Scores
from xpo.api.vocabulary import Distributions
from xpo.compat import attending, checkpoints, uncompiled
from xpo.models.branches import BRANCHES, branch_attention
from xpo.models.head import Head
from xpo.models.layout import Arrange, Layout, Tree, padded
from xpo.models.masks import masks

Model = torch.nn.Module


@dataclass(frozen=True)
class Engine:
    """How completions are computed.

    Attributes:
        arrange: the layout: ``padded`` or a ``Tree``.
        compact: project to the vocabulary only where a label is, in tiles; otherwise take the model's own logits.
        branches: let attention go along the branches of trees rather than over whole rows.
    """

    arrange: Arrange = padded
    compact: bool = False
    branches: bool = False

    @property
    def layout(self) -> str:
        """Name of the layout."""
        return "tree" if isinstance(self.arrange, Tree) else "padded"


#: One row a completion and the model's own logits: what every other way is held against.
PLAIN = Engine()


def score(
    model: Model,
    batch: Batch,
    engine: Engine = PLAIN,
    *,
    bare: Model | None = None,
    temperature: float = 1.0,
    vocabulary: bool = False,
) -> Scores:
    """Token log-probabilities of all completions of ``batch``, with gradient where a completion is trainable.

    Of a reward model its rewards instead.

    Args:
        model: the model to call for completions with gradient; a distributed wrapper where gradients are synchronised.
        engine: how to lay them out and project them.
        bare: the same model without such a wrapper, for completions scored without gradient.
        temperature: logits are divided by it, as they were when the completions were sampled.
        vocabulary: keep what full distributions are computed from.
    """
    rest = (~batch.trainable).nonzero().flatten()
    parts: list[Scored] = []
    if rest.numel():
        with torch.no_grad():
            parts.append(forward(bare or model, batch, rest, engine, temperature))
    trainable = batch.trainable.nonzero().flatten()
    if trainable.numel():
        parts.append(forward(model, batch, trainable, engine, temperature))
    return assemble(batch, parts, vocabulary)


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of n completion tokens of a batch, or the rewards of n completions.

    Attributes:
        completion, token: (n,) which; of rewards there is no ``token``.
        logps: (n,) their log-probabilities, or the rewards.
        distributions: what they were picked from.
    """

    completion: Tensor
    token: Tensor | None
    logps: Tensor
    distributions: Distributions | None = None


def assemble(batch: Batch, parts: list[Scored], vocabulary: bool = False) -> Scores:
    """Scores of a batch from those of its parts; 0 where there is no token."""
    logps = torch.zeros(batch.mask.shape, device=batch.mask.device)
    if any(part.token is None for part in parts):
        rewards = logps.new_zeros(len(batch))
        for part in parts:
            rewards = rewards.to(part.logps.dtype).index_put((part.completion,), part.logps)
        return Scores(torch.full_like(logps, float("nan")), batch.mask, rewards=rewards)
    found = []
    width = batch.mask.shape[1]
    for part in parts:
        assert part.token is not None
        logps = logps.to(part.logps.dtype).index_put((part.completion, part.token), part.logps)
        if vocabulary and part.distributions is not None:
            found.append((part.completion * width + part.token, part.distributions))
    return Scores(logps, batch.mask, Distributions.merged(found) if found else None)


def forward(model: Model, batch: Batch, completions: Tensor, engine: Engine, temperature: float = 1.0) -> Scored:
    """Run ``model`` over some completions of a batch."""
    scalar = scalar_head(innermost(model))
    if scalar is not None:
        layout, states = hidden_states(model, batch, completions, engine, whole=True)
        assert layout.last is not None
        states = states[layout.last[:, 1]].to(next(scalar.parameters()).dtype)
        return Scored(layout.last[:, 0], None, _wide(scalar(states)[:, 0]))
    head = replace(head_of(model), temperature=temperature)
    if engine.compact:
        layout, states = hidden_states(model, batch, completions, engine)
        states, labels = states[layout.source], batch.ids[layout.completion, layout.token]
        distributions = Distributions(states, head.logits, _frozen(states))
        return Scored(layout.completion, layout.token, head.logps(states, labels), distributions)
    layout = engine.arrange(batch, completions)
    labels = batch.ids[layout.completion, layout.token]
    with _attention(model, engine):
        logits = _logits(model, layout)
    logits = _wide(logits)
    logits = logits if temperature == 1.0 else logits / temperature
    logps = -cross_entropy(logits, labels, reduction="none")
    return Scored(layout.completion, layout.token, logps, Distributions(logits, _same, _frozen(logits)))


def hidden_states(
    model: Model, batch: Batch, completions: Tensor, engine: Engine, whole: bool = False
) -> tuple[Layout, Tensor]:
    """The rows of some completions and (R * L, d) what the model's last layer makes of them."""
    layout = engine.arrange(batch, completions, whole=whole)
    with _attention(model, engine):
        return layout, _hidden(model, layout)


def _attention(model: Model, engine: Engine) -> AbstractContextManager[None]:
    # What is computed again for the gradient is computed outside, where attention is the model's own.
    inner = innermost(model)
    along = engine.branches and not checkpoints(inner)
    return attending(inner, BRANCHES, branch_attention) if along else nullcontext()


def _hidden(model: Model, layout: Layout) -> Tensor:
    """(R * L, d) last hidden states. The model is called as a whole, so that wrappers around it do their work."""
    inner = innermost(model)
    caught: list[Tensor] = []

    def catch(module: Model, arguments: Any, output: Any) -> None:
        caught.append(output[0])

    hook = backbone(inner).register_forward_hook(catch)
    try:
        model(**_inputs(inner, layout), **({"logits_to_keep": 1} if keeps_logits(type(inner).forward) else {}))
    finally:
        hook.remove()
    return caught[0].flatten(0, 1)


def _logits(model: Model, layout: Layout) -> Tensor:
    """(n, V) logits that the model itself computes, where a label is."""
    inner = innermost(model)
    width = layout.input_ids.shape[1]
    row, column = layout.source // width, layout.source % width
    first = 0
    inputs = _inputs(inner, layout)
    if keeps_logits(type(inner).forward) and column.numel():
        first = int(column.min())
        inputs["logits_to_keep"] = width - first
    logits: Tensor = model(**inputs).logits[row, column - first]
    return logits


def _inputs(inner: Model, layout: Layout) -> dict[str, Any]:
    inputs = {"input_ids": layout.input_ids, "use_cache": False}
    if layout.ends is None:
        return {**inputs, "attention_mask": layout.real.long()}
    return {**inputs, "position_ids": layout.positions, "attention_mask": masks(inner, layout)}


def innermost(model: Model) -> Model:
    """The transformers model inside distributed, compiled and adapter wrappers."""
    model = uncompiled(model)
    while not hasattr(model, "get_input_embeddings") or hasattr(model, "get_base_model"):
        model = uncompiled(model.get_base_model() if hasattr(model, "get_base_model") else model.module)  # type: ignore[operator]  # torch types every attribute
    return model


def text_config(model: Model) -> Any:
    """What the configuration of a model says of the part that reads text, inside whatever wrappers."""
    inner: Any = innermost(model)  # torch types every attribute
    return inner.config.get_text_config()


def backbone(inner: Model) -> Model:
    """The part of a causal language model that ends in hidden states."""
    model: Any = inner
    found: Any = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    return model.model if found is model else found  # type: ignore[no-any-return]  # torch types every attribute


def scalar_head(inner: Model) -> Model | None:
    """What a reward model, a sequence classifier with one output, reads its reward with; None for language models."""
    if inner.get_output_embeddings() is not None:  # type: ignore[operator]  # torch types every attribute
        return None
    head = getattr(inner, "score", None)
    return head if isinstance(head, torch.nn.Module) else None


def head_of(model: Model) -> Head:
    """The projection of a model, with what its configuration says about logits."""
    config = text_config(model)
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    inner: Any = innermost(model)  # as above
    return Head(inner.get_output_embeddings(), scale, softcap)


@lru_cache(maxsize=64)
def keeps_logits(forward: Callable[..., Any]) -> bool:
    """Whether a model can be asked for the logits of its last positions alone."""
    return "logits_to_keep" in inspect.signature(forward).parameters


def _frozen(states: Tensor) -> Tensor | None:
    """Everywhere, when scored without gradient: projected later, the head must not have one either."""
    if torch.is_grad_enabled():
        return None
    return torch.ones(len(states), dtype=torch.bool, device=states.device)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _same(states: Tensor) -> Tensor:
    return states
