"""What training takes, told without weights: held against models that are really loaded and really trained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import tiny
from xpo import Batch
from xpo.models.guard import reach
from xpo.models.ledger import Ledger
from xpo.models.load import disable_dropout, load_policy, parameter_counts
from xpo.models.memory import Passes, Sampled, Terms, compared, expected_engine
from xpo.models.outline import Outline, outline, outline_of
from xpo.models.phases import Phase
from xpo.models.reference import start_of
from xpo.models.rehearsal import rehearse
from xpo.models.rough import rough_phases
from xpo.models.scoring import score
from xpo.train.settings import ModelSettings, TrainingArguments

LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": LORA,
    "bf16": {**LORA, "dtype": "bfloat16"},
    "4-bit": {**LORA, "load_in_4bit": True},
    "nested": {**LORA, "load_in_4bit": True, "use_bnb_nested_quant": True},
    "8-bit": {**LORA, "load_in_8bit": True},
}


def settings(name: Path, **given: Any) -> ModelSettings:
    return ModelSettings(model_name_or_path=str(name), **given)


def adamw(parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters)


def batch(count: int = 8, longest: int = 40) -> Batch:
    return Batch.of(tiny.groups("pairs", count, longest=longest))


def phases(of: Outline, passes: Passes | None = None, **terms: Any) -> dict[str, Phase]:
    found = rehearse(of, Terms(**{"optimiser": adamw, **terms}), passes or Passes([batch()]))
    return {phase.name: phase for phase in found}


def peak(found: dict[str, Phase]) -> int:
    return max(phase.total for phase in found.values())


def size(model: torch.nn.Module, *, trained: bool | None = None) -> int:
    """Bytes of the weights, those of quantised ones with their scales."""
    total = 0
    tensors: dict[int, torch.Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if trained is not None and tensor.requires_grad != trained:
            continue
        tensors[tensor.untyped_storage().data_ptr()] = tensor
        state = getattr(tensor, "quant_state", None)
        while state is not None:
            total += state.absmax.numel() * state.absmax.element_size()
            state = state.state2
        scales = getattr(tensor, "SCB", None)
        total += 0 if scales is None else scales.numel() * scales.element_size()
    return total + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@pytest.mark.parametrize("way", WAYS)
def test_parameters_and_weights_are_those_of_the_loaded_model(base: Path, way: str) -> None:
    if "load_in" in str(WAYS[way]):
        pytest.importorskip("bitsandbytes")
    model = load_policy(settings(base, **WAYS[way])).model
    found = outline(settings(base, **WAYS[way]))
    assert (found.parameters, found.trainable) == parameter_counts(model)
    load = phases(found)["load"].parts
    adapters = size(model, trained=True) if WAYS[way] else 0
    assert load.get("adapters", 0) == adapters
    assert load["weights"] == pytest.approx(size(model) - adapters, rel=0.02)


def test_a_continued_adapter_has_a_frozen_copy(adapter: Path) -> None:
    model = load_policy(settings(adapter, use_peft=True)).model
    found = outline(settings(adapter, use_peft=True))
    assert (found.parameters, found.trainable) == parameter_counts(model)
    assert found.policy.adapter == "continued"
    load = phases(found, reference=True)["load"].parts
    assert load["adapters"] == 2 * size(model, trained=True)
    assert "reference" not in load


def test_the_outline_of_an_object_leaves_the_object_alone(base: Path) -> None:
    model = load_policy(settings(base)).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = outline_of(model, settings(base, **LORA))
    assert found.trainable < found.parameters
    assert outline_of(load_policy(settings(base, **LORA)).model, settings(base)).trainable == found.trainable
    assert phases(found)["load"].total > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_no_weight_is_read(base: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    assert outline(settings(tmp_path)).parameters == outline(settings(base)).parameters


@pytest.mark.parametrize("layout", ["tree", "padded"])
@pytest.mark.parametrize("way", ["full", "lora"])
def test_the_rehearsal_holds_what_the_real_thing_holds(base: Path, way: str, layout: str) -> None:
    """The same ledger over real tensors: a rehearsal differs by what it was told beforehand, and by nothing else."""
    some = batch()
    policy = load_policy(settings(base, **WAYS[way]))
    model = policy.model.train()
    disable_dropout(model)
    engine = expected_engine(model, layout, "cpu")
    ledger = Ledger(lambda tensor: "")
    ledger.book((*model.parameters(), *model.buffers()), "weights")
    trained = [one for one in model.parameters() if one.requires_grad]
    with ledger:
        reference = replace(start_of(policy), engine=engine)
        optimiser = adamw(trained)
        for one in trained:
            one.grad = torch.zeros_like(one)
        optimiser.step()
        optimiser.zero_grad()
        with ledger.during("forward"):
            found = score(model, some, engine)
            forward = sum(ledger.highest.values())
        with ledger.during("reference"):
            reference.score(some)
            anchored = sum(ledger.highest.values())
        with ledger.during("backward"):
            found.logps.sum().backward()
            backward = sum(ledger.highest.values())
    expected = phases(outline(settings(base, **WAYS[way])), Passes([some]), layout=layout, reference=True)
    assert expected["forward"].total == pytest.approx(forward, rel=0.02)
    assert expected["reference"].total == pytest.approx(anchored, rel=0.02)
    assert expected["backward"].total == pytest.approx(backward, rel=0.02)


def test_what_makes_a_run_larger_or_smaller(base: Path) -> None:
    full, lora = outline(settings(base)), outline(settings(base, **LORA))
    usual = phases(full, reference=True)
    weights = usual["load"].parts["weights"]
    assert usual["load"].parts["reference"] == weights
    assert usual["optimiser step"].parts["gradients"] == 4 * full.trainable
    assert usual["forward"].parts["optimiser"] == pytest.approx(8 * full.trainable, rel=0.01)
    assert "reference" not in phases(full)["load"].parts
    assert "reference" not in phases(lora, reference=True)["load"].parts
    assert peak(phases(lora)) < peak(phases(full))

    once = phases(lora)["backward"].parts["activations"]
    twice = phases(lora, Passes([batch(16)]))["backward"].parts["activations"]
    assert 1.7 * once < twice < 2.3 * once
    assert peak(phases(lora, layout="padded")) > peak(phases(lora))
    accumulated = phases(full, accumulates=True)["forward"].parts
    assert accumulated["gradients"] == 4 * full.trainable
    assert phases(lora, precision=torch.bfloat16)["backward"].parts["activations"] < 0.9 * once
    args = TrainingArguments(output_dir="unused", use_cpu=True, gradient_checkpointing=True)
    # The head and the embeddings of so small a model outweigh a layer; its layers are kept by their inputs alone.
    assert (
        phases(lora, layout="padded", checkpointing=args)["backward"].parts["activations"]
        < 0.8 * (phases(lora, layout="padded")["backward"].parts["activations"])
    )
    assert peak(phases(lora, vocabulary=True)) >= peak(phases(lora))


def test_passes_without_gradient(base: Path) -> None:
    found = outline(settings(base, **LORA))
    some = batch()
    passes = Passes([some], checked=[compared(some.groups)], scored=[some], sampled=[Sampled(8, 20, 30)])
    full = phases(found, passes)
    assert list(full) == ["load", "check", "forward", "backward", "optimiser step", "examination", "sampling"]
    assert full["examination"].total < full["forward"].total
    longer = phases(found, replace(passes, sampled=[Sampled(8, 20, 3000)]))
    config = transformers.AutoConfig.from_pretrained(base)
    # Keys and values of each layer, for each token.
    each = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    grown = longer["sampling"].total - full["sampling"].total
    assert 0.9 * 8 * 2970 * each < grown < 2 * 8 * 2970 * each
    again = phases(outline(settings(base)), replace(passes, again=True))["examination"].parts
    assert again["reference"] == phases(outline(settings(base)))["load"].parts["weights"]


def test_another_model_as_the_reference(base: Path, tmp_path: Path) -> None:
    larger = tiny.saved(tmp_path / "larger", hidden_size=128)
    found = phases(outline(settings(base, **LORA)), reference=True, given=outline(settings(larger)))
    assert found["load"].parts["reference"] == size(load_policy(settings(larger)).model)
    assert "reference" in found


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("adamw_torch", 8, 8.1), ("sgd", 0, 0.1), ("adafactor", 0, 1), ("adamw_bnb_8bit", 2, 8), ("lion_32bit", 4, 4.1)],
)
def test_states_of_the_optimiser(base: Path, name: str, low: float, high: float) -> None:
    if "bnb" in name or "lion" in name:
        pytest.importorskip("bitsandbytes")
    args = TrainingArguments(output_dir="unused", use_cpu=True, optim=name)
    made, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args)
    found = outline(settings(base))
    held = phases(found, optimiser=lambda parameters: made(parameters, **options))["forward"].parts
    assert low * found.trainable <= held.get("optimiser", 0) <= high * found.trainable


def test_an_optimiser_that_cannot_be_rehearsed_counts_as_the_usual_one(base: Path) -> None:
    def refuse(parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        raise RuntimeError("no")

    found = outline(settings(base))
    assert phases(found, optimiser=refuse)["forward"].parts["optimiser"] == 8 * found.trainable


def test_files_count_while_they_are_converted(base: Path) -> None:
    stored = outline(settings(base)).parameters * 4
    assert outline(settings(base)).stored == 0
    assert phases(outline(settings(base, dtype="bfloat16")))["load"].parts["files"] == stored


@pytest.mark.parametrize("way", ["full", "lora"])
def test_the_rule_of_thumb_is_near(base: Path, way: str) -> None:
    found = outline(settings(base, **WAYS[way]))
    terms, passes = Terms(reference=True, optimiser=adamw, layout="padded"), Passes([batch(32)])
    rough = {phase.name: phase for phase in rough_phases(found, terms, passes)}
    assert peak(rough) == pytest.approx(peak(phases(found, passes, reference=True, layout="padded")), rel=0.3)


def test_the_ledger_keeps_books() -> None:
    ledger = Ledger(lambda tensor: "square" if tensor.ndim == 2 else "")
    there = torch.zeros(10)
    ledger.book([there, there[2:]], "there")
    with ledger:
        with ledger.during("a"):
            one = torch.zeros(100)
            view = one.view(10, 10)
            with torch.no_grad():
                one.add_(1)
            two = torch.zeros(5, 5)
            del two
        assert ledger.highest == {"there": 40, "a": 400, "square": 100}
        assert ledger.parts == {"there": 40, "a": 400, "square": 0}
        del one
        assert ledger.parts["a"] == 400  # the view holds it
        ledger.book([view], "b")
        assert (ledger.parts["a"], ledger.parts["b"]) == (0, 400)
        del view
        assert ledger.parts["b"] == 0


def test_trees_only_where_they_can_be(base: Path) -> None:
    model = outline(settings(base)).policy.model
    assert expected_engine(model, "tree", "cpu").branches
    assert not expected_engine(model, "tree", "cuda").branches
    assert expected_engine(model, "tree", "cpu").layout == "tree"
    assert expected_engine(model, "padded", "cpu").layout == "padded"
    assert expected_engine(model, "tree", "cpu").arrange.reach == reach(load_policy(settings(base)).model)


HEAP = """
import sys
from xpo.models.heap import steady_heap
told = steady_heap()
import psutil, torch
kept = []
for number in range(40):
    wide = [torch.ones(600_000 + 10_000 * number) for _ in range(20)]
    kept.append(torch.ones(1000))
del wide
print(told, psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_freed_memory_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    told, held = done.stdout.split()
    if told != "True":
        pytest.skip("another C library")
    bare = "import psutil, torch; torch.ones(600_000).sum(); print(psutil.Process().memory_info().rss)"
    usual = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True)
    assert int(held) - int(usual.stdout) < 20 * 2**20
