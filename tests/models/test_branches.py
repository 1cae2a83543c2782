"""Attention along branches is attention under the mask of the tree."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from scripts.architectures import ARCHITECTURES, groups
from tests import tiny
from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.models import branches, stretches
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


@pytest.mark.parametrize(("long", "call"), [(1, 0), (20, 10), (10**6, 0), (10**6, 40), (10**6, 10**6)])
@pytest.mark.parametrize(("window", "chunk"), [(None, None), (3, None), (None, 4)])
def test_outputs_and_gradients_are_those_of_the_mask(
    monkeypatch: pytest.MonkeyPatch, window: int | None, chunk: int | None, long: int, call: int
) -> None:
    """Whether all stretches have a call of their own, or some, or they share a few calls, or one."""
    monkeypatch.setattr(stretches, "LONG", long)
    monkeypatch.setattr(stretches, "CALL", call)
    rng = random.Random(0)
    torch.manual_seed(0)
    for _ in range(16):
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


def attended(monkeypatch: pytest.MonkeyPatch, some: list[Group], layers: int = 1) -> list[tuple[int, int, int]]:
    """(B, S, K) of each call that attention makes for some groups."""
    calls: list[tuple[int, int, int]] = []

    def counted(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        calls.append((query.shape[0], query.shape[2], key.shape[2]))
        return scaled_dot_product_attention(query, key, value, **settings)

    batch = Batch.of(some)
    layout = Tree()(batch, torch.arange(len(batch)))
    rows, width = layout.input_ids.shape
    states = [torch.randn(rows, 2, width, 4) for _ in range(3)]
    monkeypatch.setattr(branches, "scaled_dot_product_attention", counted)
    made = Branches.of(layout)
    for _ in range(layers):
        made.attend(*states, None, 0.0)
    return calls


def answers(rng: random.Random, prompt: int, *lengths: int) -> Group:
    """Completions of given lengths that part at their first token."""
    some = [[number, *(rng.randrange(9) for _ in range(length))] for number, length in enumerate(lengths)]
    return Group([rng.randrange(9) for _ in range(prompt)], [Completion(ids) for ids in some])


def test_short_stretches_share_a_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    some = [answers(rng, rng.randint(10, 20), *(rng.randint(5, 32) for _ in range(4))) for _ in range(16)]
    calls = attended(monkeypatch, some)
    assert sum(count for count, _, _ in calls) == 16 * 5  # every prompt and every completion once
    assert len(calls) <= 10
    exact = sum(
        len(group.prompt_ids) ** 2
        + sum((len(one.ids) - 1) * (len(group.prompt_ids) + len(one.ids) - 1) for one in group.completions)
        for group in some
    )
    assert exact < sum(count * size * seen for count, size, seen in calls) < 1.3 * exact


def test_long_stretches_are_neither_filled_up_nor_copied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [answers(random.Random(0), 400, 150, 140), answers(random.Random(1), 300, 220, 170)]
    monkeypatch.setattr(Tensor, "index_select", None)  # what short stretches are gathered with
    assert sorted(attended(monkeypatch, pairs)) == sorted(
        [(1, 400, 400), (1, 150, 550), (1, 140, 540), (1, 300, 300), (1, 220, 520), (1, 170, 470)]
    )


def test_layers_share_indices_and_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    sees = Branches._sees
    monkeypatch.setattr(Branches, "_sees", lambda *given: made.append(None) or sees(*given))
    rng = random.Random(0)
    calls = attended(monkeypatch, [answers(rng, 150, 100, 3, 4)], layers=3)
    # The prompt, which is causal; a long completion under a mask; two short ones, which share theirs.
    assert sorted(calls) == sorted([(1, 150, 150), (1, 100, 250), (2, 4, 154)] * 3)
    assert len(made) == 2


def test_filling_up_with_what_is_no_number_does_no_harm() -> None:
    """What fills a stretch up is of the stretch itself: what other stretches hold never reaches it."""
    batch = Batch.of([answers(random.Random(0), 4, 6), answers(random.Random(1), 5, 2)])
    layout = Tree()(batch, torch.arange(2))
    states = [torch.randn(*layout.input_ids.shape, 2, 4).transpose(1, 2) for _ in range(3)]
    first = layout.positions.flatten().tolist().index(0, 1)  # where the second tree begins
    for each in states:
        each.transpose(1, 2).flatten(0, 1)[first:] = torch.nan
    found = Branches.of(layout).attend(*states, None, 0.0).transpose(1, 2).flatten(0, 1)
    assert not found[:first].isnan().any()
    assert found[first:][layout.real.flatten()[first:]].isnan().all()


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
