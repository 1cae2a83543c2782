"""Trees give the log-probs and gradients of padded rows, or the guard finds out; on tiny models of many kinds."""

from __future__ import annotations

import inspect

import pytest
import torch

from scripts.architectures import ARCHITECTURES, WINDOW, Architecture, examine, groups
from xpo.api.batch import Batch
from xpo.models.guard import choose_engine
from xpo.models.layout import Layout, Tree, padded
from xpo.models.masks import masks, no_tree
from xpo.models.scoring import PLAIN, Engine, score

CPU = torch.device("cpu")
BY_KIND = {f"{one.kind}, {one.trait}": one for one in ARCHITECTURES}
LLAMA = BY_KIND["llama, rotary positions"]


@pytest.mark.parametrize("name", BY_KIND)
def test_what_the_guard_chooses_is_exact(name: str) -> None:
    architecture = BY_KIND[name]
    finding = examine(architecture)
    assert finding.engine.layout == ("padded" if architecture.reason else "tree")
    assert finding.engine.compact
    assert any(architecture.reason in line for line in finding.lines) or not architecture.reason
    assert len(finding.lines) == bool(architecture.reason)
    assert finding.logps < 1e-4
    assert finding.gradient < 1e-4


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["llama, rotary positions", "mistral, a sliding window"])
def test_every_attention_sees_the_same_tree(kind: str, attention: str) -> None:
    model, batch = BY_KIND[kind].model(attn_implementation=attention), Batch.of(groups(1))
    engine, lines = choose_engine(model, groups(), "tree", CPU)
    assert (engine.layout, lines) == ("tree", [])
    with torch.no_grad():
        found, expected = score(model, batch, engine).logps, score(BY_KIND[kind].model(), batch).logps
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["llama, rotary positions", "mistral, a sliding window", "llama4_text, chunked attention"]
)
def test_block_masks_are_the_same_masks(kind: str) -> None:
    """FlexAttention itself trains on GPUs only; what it is told is a function of indices, which runs anywhere."""
    dense, blocks = BY_KIND[kind].model(), BY_KIND[kind].model()
    blocks.config._attn_implementation = "flex_attention"
    batch = Batch.of(groups(1))
    layout = Tree(30.0)(batch, torch.arange(len(batch)))
    rows, width = layout.input_ids.shape
    index = torch.meshgrid(torch.arange(rows), torch.arange(1), torch.arange(width), torch.arange(width), indexing="ij")
    expected, found = masks(dense, layout), masks(blocks, layout)
    for layers in expected if isinstance(expected, dict) else [None]:
        one, other = (expected, found) if layers is None else (expected[layers], found[layers])
        assert torch.equal(other.mask_mod(*index), one)
        assert not one.all()


@pytest.mark.parametrize("kind", ["mistral, a sliding window", "gemma2, alternating windows, soft caps"])
def test_windows_shorter_than_the_rows_were_tested(kind: str) -> None:
    """Without its window the same tree is another model: the comparison above is not empty."""
    model = BY_KIND[kind].model()
    batch = Batch.of(groups(1))
    assert int(batch.lengths.max()) > WINDOW
    tree = Engine(Tree(), compact=True)
    exact = score(model, batch, tree).logps.detach()
    model.config.sliding_window = None
    assert float((score(model, batch, tree).logps - exact).abs().max()) > 1e-2


def broken(batch: Batch, completions: torch.Tensor, whole: bool = False) -> Layout:
    """Trees whose branches see each other."""
    layout = Tree()(batch, completions, whole)
    assert layout.ends is not None
    layout.ends[:] = layout.input_ids.shape[1]
    return layout


def test_the_guard_refuses_a_tree_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpo.models.guard.Tree", lambda reach: broken)
    engine, lines = choose_engine(LLAMA.model(), groups(), "tree", CPU)
    assert engine == Engine(padded, compact=True)
    assert len(lines) == 1
    assert "log-probabilities differ by up to" in lines[0]


def test_the_guard_refuses_a_head_that_is_wrong() -> None:
    """A model that does something to its logits that no setting tells."""
    model = LLAMA.model()
    inner = model.forward

    def forward(*arguments: object, **keywords: object) -> object:
        output = inner(*arguments, **keywords)
        output.logits = output.logits * 1.5
        return output

    forward.__signature__ = inspect.signature(inner)  # type: ignore[attr-defined]  # what transformers reads
    model.forward = forward
    engine, lines = choose_engine(model, groups(), "tree", CPU)
    assert (engine.layout, engine.compact) == ("tree", False)
    assert lines[0].startswith("head: the model's own logits")
    batch = Batch.of(groups(1))
    assert torch.allclose(score(model, batch, engine).logps, score(model, batch, PLAIN).logps, atol=1e-4)


def test_half_precision_is_held_against_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LLAMA.model().to(torch.bfloat16)
    engine, lines = choose_engine(model, groups(), "tree", CPU)
    assert (engine.layout, lines) == ("tree", [])
    monkeypatch.setattr("xpo.models.guard.Tree", lambda reach: broken)
    engine, lines = choose_engine(model, groups(), "tree", CPU)
    assert (engine.layout, len(lines)) == ("padded", 1)


def test_padded_is_what_was_asked_for() -> None:
    engine, lines = choose_engine(LLAMA.model(), groups(), "padded", CPU)
    assert (engine, lines) == (Engine(padded, compact=True), [])


def test_flash_attention_takes_no_trees() -> None:
    model = Architecture("llama", "", LLAMA.settings).model()
    model.config._attn_implementation = "flash_attention_2"
    assert "--attn_implementation sdpa" in str(no_tree(model))
