"""The compact head against logits of all tokens at once: numbers, gradients, and what is never held."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests import tiny
from xpo import Batch, PluginError, Scores
from xpo.models import head as heads
from xpo.models.head import Head
from xpo.models.layout import Tree, padded
from xpo.models.scoring import PLAIN, Engine, score

N, D, V = 23, 8, 50


def plain(head: Head, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = head.scale * head.module(hidden)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    logps: torch.Tensor = (logits / head.temperature).log_softmax(-1)
    return logps.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize(
    ("scale", "softcap", "temperature", "bias", "trained", "tile"),
    list(itertools.product((1.0, 0.4), (None, 2.0), (1.0, 0.7), (False, True), (False, True), (10**6, 200))),
)
def test_numbers_and_gradients(
    scale: float,
    softcap: float | None,
    temperature: float,
    bias: bool,
    trained: bool,
    tile: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "TILE", tile)
    torch.manual_seed(0)
    module = torch.nn.Linear(D, V, bias=bias, dtype=torch.float64).requires_grad_(trained)
    head = Head(module, scale, softcap, temperature)
    hidden = (3 * torch.randn(N, D, dtype=torch.float64)).requires_grad_()
    labels, weights = torch.randint(V, (N,)), torch.randn(N, dtype=torch.float64)
    over = [hidden, *module.parameters()] if trained else [hidden]
    expected, found = plain(head, hidden, labels), head.logps(hidden, labels)
    assert torch.allclose(found, expected, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found @ weights, over), torch.autograd.grad(expected @ weights, over), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(head.logps(hidden, labels), expected, atol=1e-12)


def test_logits_of_all_tokens_are_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "TILE", 4 * V)
    module = torch.nn.Linear(D, V, bias=False)
    widest = 0

    def watch(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal widest
        widest = max(widest, len(output))

    module.register_forward_hook(watch)
    kept: list[int] = []
    hidden = torch.randn(N, D, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        Head(module).logps(hidden, torch.randint(V, (N,))).sum().backward()
    assert widest == 4
    assert max(kept) < N * V


def test_a_head_with_adapters_goes_through_them() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    batch = Batch.of(tiny.groups("pairs", 3))
    found, expected = score(model, batch, Engine(padded, compact=True)), score(model, batch)
    assert torch.allclose(found.logps, expected.logps, atol=1e-5)
    for scores in (found, expected):
        model.zero_grad()
        scores.logps.sum().backward()
        assert all(one.grad is not None and one.grad.any() for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize("engine", [PLAIN, Engine(Tree(), compact=True)], ids=["plain", "tree"])
def test_full_distributions(engine: Engine) -> None:
    model, reference = tiny.model(), tiny.model(seed=1)
    groups = tiny.groups("pairs", 5)
    groups[1].completions[0].trainable = False
    batch = Batch.of(groups)
    policy = score(model, batch, engine, vocabulary=True)
    frozen = score(reference, batch, PLAIN, vocabulary=True).detach()
    entropies = policy.entropies()
    divergence = policy.over_vocabulary(lambda p, q: (q.exp() * (q - p)).sum(-1), frozen)
    for index, (group, completion) in enumerate((g, c) for g in groups for c in g.completions):
        ids = torch.tensor([group.prompt_ids + completion.ids])
        begin = len(group.prompt_ids) - 1
        p, q = (one(ids).logits[0, begin:-1].log_softmax(-1) for one in (model, reference))
        length = len(completion.ids)
        assert torch.allclose(entropies[index, :length], -(p.exp() * p).sum(-1), atol=1e-4)
        assert torch.allclose(divergence[index, :length], (q.exp() * (q - p)).sum(-1), atol=1e-4)
        assert not divergence[index, length:].any()
    divergence.sum().backward()
    assert all(one.grad is not None and one.grad.any() for one in model.parameters())


def test_distributions_must_be_asked_for() -> None:
    scores = score(tiny.model(), Batch.of(tiny.groups("pairs", 1)))
    with pytest.raises(PluginError, match=r"Needs\(vocabulary=True\)"):
        scores.entropies()
    assert isinstance(scores, Scores)
