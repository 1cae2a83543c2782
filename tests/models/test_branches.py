"""Attention along branches is attention under the mask of the tree."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from scripts.architectures import ARCHITECTURES, groups
from tests import tiny
from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.models.branches import Branches
from xpo.models.guard import choose_engine
from xpo.models.layout import Layout, Tree
from xpo.models.scoring import PLAIN, Engine, score


def random_layout(rng: random.Random) -> Layout:
    def ids(most: int) -> list[int]:
        return [rng.randrange(3) for _ in range(rng.randint(1, most))]

    some = [Group(ids(9), [Completion(ids(8)) for _ in range(rng.randint(1, 5))]) for _ in range(rng.randint(1, 5))]
    batch = Batch.of(some)
    return Tree(rng.choice([20.0, 1e6]))(batch, torch.arange(len(batch)))


@pytest.mark.parametrize(("window", "chunk"), [(None, None), (3, None), (None, 4)])
def test_outputs_and_gradients_are_those_of_the_mask(window: int | None, chunk: int | None) -> None:
    rng = random.Random(0)
    torch.manual_seed(0)
    for _ in range(40):
        layout = random_layout(rng)
        rows, width = layout.input_ids.shape
        states = [torch.randn(rows, 2, width, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        real = layout.real[:, None, :, None]
        mask = layout.visible(window, chunk)[:, None]
        expected = scaled_dot_product_attention(*states, attn_mask=mask) * real
        found = Branches.of(layout, window, chunk).attend(*states, None, 0.0)
        assert torch.allclose(found, expected, atol=1e-12)
        weights = torch.randn_like(expected)
        for one, other in zip(
            torch.autograd.grad(found, states, weights), torch.autograd.grad(expected, states, weights), strict=True
        ):
            assert torch.allclose(one, other, atol=1e-12)


def test_stretches_do_not_branch() -> None:
    group = Group([1, 2, 3], [Completion([4, 5, 6, 9]), Completion([4, 5, 7, 8, 9]), Completion([8, 9])])
    alone = Group([1], [Completion([2, 3])])
    batch = Batch.of([group, alone])
    made = Branches.of(Tree(1e9)(batch, torch.arange(4)))
    # The prompt, 4 5, 6, 7 8, 8; a prompt with one completion is one stretch.
    assert [(one.size, one.past) for one in made.stretches] == [
        (3, ()),
        (2, (0,)),
        (1, (0, 1)),
        (2, (0, 1)),
        (1, (0,)),
        (2, ()),
    ]


def test_it_is_used_on_a_cpu_and_leaves_the_model_as_it_was() -> None:
    model = tiny.model()
    engine, lines = choose_engine(model, tiny.groups("pairs", 4), "tree", torch.device("cpu"))
    assert (engine.branches, lines) == (True, [])
    assert model.config._attn_implementation == "sdpa"
    eager = tiny.model()
    eager.set_attn_implementation("eager")
    engine, lines = choose_engine(eager, tiny.groups("pairs", 4), "tree", torch.device("cpu"))
    assert (engine.layout, engine.branches, lines) == ("tree", False, [])


def test_models_that_ask_for_more_than_a_mask_get_the_mask() -> None:
    """Sinks, for one, are no part of it."""
    (sinks,) = (one for one in ARCHITECTURES if one.kind == "gpt_oss")
    engine, lines = choose_engine(sinks.model(), groups(), "tree", torch.device("cpu"))
    assert (engine.layout, engine.branches, lines) == ("tree", False, [])


@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_may_be_computed_again(reentrant: bool) -> None:
    """The second time happens outside, where attention is the model's own: then it is the first time too."""
    batch = Batch.of(tiny.groups("pairs", 4))
    gradients = []
    for engine, checkpointed in ((PLAIN, False), (Engine(Tree(), compact=True, branches=True), True)):
        model = tiny.model().train()
        if checkpointed:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        score(model, batch, engine).logps.sum().backward()
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-4 * float(gradients[0].abs().max()))
