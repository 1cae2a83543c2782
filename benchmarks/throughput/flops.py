"""Arithmetic of a training step: the floating-point operations that its useful tokens need, 2 for a multiply-add.

A useful token is computed once: the prompt of a row once however many completions it has, each completion once, padding
never. The last token of a completion is predicted but predicts nothing, so it needs no pass. With W the weights of the
linear layers of all blocks, A those of their adapters, V x h the head, and for attention d = heads x head size in each
of L layers over a context of c tokens:

    forward            2 (W + A) a token + 2 V h a label + 4 L d c a token
    to activations     2 (W + A) a token + 2 V h a label + 8 L d c a token
    to weights         2 A a token with adapters, 2 W a token + 2 V h a label without
    reference          the forward without A; nothing where it is cached or where the method has none

Adapters leave out the gradient to what the first block reads, a percent of the whole, which is counted all the same.
Completions that are scored without gradient (KTO's KL completions) need the forward passes only. Norms, activation
functions, softmax, embeddings and the optimiser are not counted, and neither is what gradient checkpointing computes
again: the share of the machine's rate that is made of these numbers says how much of the time went into what must be
computed, whatever a library did in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tables are made from records without any of this
    from transformers import PretrainedConfig

    from xpo.api.groups import Completion, Group


@dataclass(frozen=True)
class Shape:
    """A model as matrix products: W, A, V h and L d above, and whether the weights themselves are trained.

    ``parameters`` are all of the model, without adapters.
    """

    blocks: int
    adapters: int
    head: int
    attention: int
    parameters: int
    full: bool


@dataclass(frozen=True)
class Amount:
    """Tokens read, tokens predicted, and the contexts that the tokens read attend to, added up."""

    read: int = 0
    labels: int = 0
    contexts: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.read + other.read, self.labels + other.labels, self.contexts + other.contexts)


@dataclass(frozen=True)
class Work:
    """What one step has to do.

    Attributes:
        rows: rows of the data.
        tokens: useful tokens, the last of each completion included.
        sequences: tokens of prompt and completion of every trained completion, as a library that repeats the prompt
            counts them.
        trained, frozen: what is read with gradient and without.
    """

    rows: int
    tokens: int
    sequences: int
    trained: Amount
    frozen: Amount


def shape_of(config: PretrainedConfig, rank: int | None) -> Shape:
    """The shape of a dense decoder, from a model without memory; ``rank`` of its adapters, None without."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        blocks=sum(layer.weight.numel() for layer in linear),
        adapters=0 if rank is None else sum(rank * (layer.in_features + layer.out_features) for layer in linear),
        head=head.weight.numel(),
        attention=text.num_hidden_layers * text.num_attention_heads * size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        full=rank is None,
    )


def work(groups: Sequence[Group]) -> Work:
    """The work of a step over ``groups``, as the algorithm collated them."""
    everyone = [(group, completion) for group in groups for completion in group.completions]
    trained = [(group, completion) for group, completion in everyone if completion.trainable]
    frozen = [(group, completion) for group, completion in everyone if not completion.trainable]
    prompts = [len(group.prompt_ids) for group in groups]
    return Work(
        rows=len(groups),
        tokens=sum(prompts) + sum(len(completion.ids) for _, completion in everyone),
        sequences=sum(len(group.prompt_ids) + len(completion.ids) for group, completion in trained),
        trained=_sum([Amount(length, 0, _contexts(0, length)) for length in prompts]) + _completions(trained),
        frozen=_completions(frozen),
    )


def policy_flops(shape: Shape, todo: Work) -> int:
    """Forward and backward of the model that is trained."""
    return _forward(shape, todo.trained + todo.frozen, shape.adapters) + _backward(shape, todo.trained)


def reference_flops(shape: Shape, todo: Work) -> int:
    """Forward of the reference over the same tokens."""
    return _forward(shape, todo.trained + todo.frozen, 0)


def _forward(shape: Shape, amount: Amount, adapters: int) -> int:
    linear = 2 * (shape.blocks + adapters) * amount.read
    return linear + 2 * shape.head * amount.labels + 4 * shape.attention * amount.contexts


def _backward(shape: Shape, amount: Amount) -> int:
    activations = _forward(shape, amount, shape.adapters) + 4 * shape.attention * amount.contexts
    if shape.full:
        return activations + 2 * shape.blocks * amount.read + 2 * shape.head * amount.labels
    return activations + 2 * shape.adapters * amount.read


def _completions(some: Iterable[tuple[Group, Completion]]) -> Amount:
    amounts = []
    for group, completion in some:
        read = len(completion.ids) - 1
        amounts.append(Amount(read, len(completion.ids), _contexts(len(group.prompt_ids), read)))
    return _sum(amounts)


def _contexts(before: int, count: int) -> int:
    """Contexts of ``count`` tokens after ``before`` others, added up; a token attends to itself too."""
    return count * before + count * (count + 1) // 2


def _sum(amounts: Iterable[Amount]) -> Amount:
    return sum(amounts, Amount())
