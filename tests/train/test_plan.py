"""``make_plan``: the rows that training takes, positions as the layouts make them, memory as a run then needs it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import ROOT
from xpo import Batch, ModelError, SettingError
from xpo.feedback.sampling import Sampling
from xpo.models.guard import reach
from xpo.models.layout import Tree, padded
from xpo.models.load import Policy
from xpo.models.reference import make_reference
from xpo.plugins import load
from xpo.train.flags import from_keywords
from xpo.train.forecast import Forecast, fitting_batch
from xpo.train.material import gather
from xpo.train.plan import Plan, make_plan
from xpo.train.settings import ModelSettings, Settings
from xpo.train.trainer import PreferenceTrainer
from xpo.train.workload import Workload, answered, extent

MIB = 2**20
Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a weight: its configuration and its tokenizer."""
    folder = tiny.saved(tmp_path_factory.mktemp("plan") / "model")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return folder


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> Callable[..., Settings]:
    def make(algo: str = "dpo", **given: Any) -> Settings:
        kind = "labels" if algo == "kto" else "pairs"
        known = {
            "model": str(model),
            "dataset": tiny.rows(kind, 37),
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "per_device_train_batch_size": 4,
        }
        return from_keywords(algo, **{**known, **given})

    return make


@pytest.fixture
def planned(settings: Callable[..., Settings]) -> Planned:
    return lambda algo="dpo", **given: make_plan(settings(algo, **given))


def work(of: Settings) -> Workload:
    algorithm = of.make_algorithm()
    material = gather(of, algorithm, load(), tiny.tokenizer())
    return Workload(of, algorithm, material, None)


def test_a_plan_needs_no_weights(planned: Planned) -> None:
    plan = planned(use_peft=True, lora_target_modules="all-linear")
    assert (plan.algorithm, plan.layout, plan.device) == ("dpo", "tree", "cpu")
    assert (plan.rows, plan.groups) == (37, 37)
    assert 0 < plan.model["trainable"] < plan.model["parameters"]
    assert plan.model["adapter"] == "new"
    assert plan.reference == "the same model with adapters off"
    assert any("37 rows" in line for line in plan.lines)
    assert plan.peak == plan.libraries + max(phase.total for phase in plan.phases)
    assert plan.layouts["tree"].peak == plan.peak
    json.dumps(plan.to_dict())


@pytest.mark.parametrize("layout", ["tree", "padded"])
@pytest.mark.parametrize("algo", ["dpo", "kto"])
def test_micro_batches_are_those_of_the_trainer(settings: Callable[..., Settings], algo: str, layout: str) -> None:
    given = settings(algo, layout=layout, gradient_accumulation_steps=3, num_train_epochs=2, data_seed=5)
    algorithm = given.make_algorithm()
    material = gather(given, algorithm, load(), tiny.tokenizer())
    policy = Policy(tiny.model(), None, None, None)
    trainer = PreferenceTrainer(
        algorithm=algorithm,
        policy=policy,
        tokenizer=tiny.tokenizer(),
        args=given.training,
        train=material.train,
        reference=make_reference(policy, ModelSettings()),
        layout=layout,
    )
    loader = trainer.get_train_dataloader()
    taken = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        taken += [[group.row for group in micro.groups] for micro in loader]
    found = work(given)
    assert [[group.row for group in groups] for _, groups in found._micros(4, 3, layout)] == taken
    assert found.left_out == trainer.left_out == (algo == "kto")
    assert found.steps == 2 * found.steps_a_pass == 2 * math.ceil((37 - found.left_out) / 12)


@pytest.mark.parametrize("algo", ["dpo", "kto"])
def test_positions_are_those_of_the_layouts(settings: Callable[..., Settings], planned: Planned, algo: str) -> None:
    plan = planned(algo, gradient_accumulation_steps=2)
    found = work(settings(algo, gradient_accumulation_steps=2))
    for name, arrange in (("padded", padded), ("tree", Tree(reach(tiny.model())))):
        computed = tokens = 0
        steps = set()
        for step, groups in found._micros(4, 2, name):
            steps.add(step)
            batch = Batch.of(groups)
            for part in (batch.trainable, ~batch.trainable):
                if part.any():
                    rows = arrange(batch, part.nonzero().flatten())
                    computed += rows.input_ids.numel()
                    tokens += int(rows.real.sum())
        assert len(steps) == plan.steps["pass"] * 3
        one = plan.layouts[name]
        assert (one.positions, one.tokens) == pytest.approx((computed / len(steps), tokens / len(steps)))
        assert one.fill == pytest.approx(tokens / computed)
    assert plan.saved == pytest.approx(1 - plan.layouts["tree"].positions / plan.layouts["padded"].positions)


def test_the_heaviest_is_no_lighter_than_any(settings: Callable[..., Settings]) -> None:
    found = work(settings())
    for layout in ("tree", "padded"):
        areas = [math.prod(extent(groups, layout, 64.0)) for _, groups in found._micros(4, 1, layout)]
        heaviest = found.heaviest(4, 1, layout, 64.0)
        assert math.prod(extent(heaviest[0].groups, layout, 64.0)) == max(areas)


def test_steps(planned: Planned) -> None:
    assert planned().steps == {"pass": 10, "total": 30}
    assert planned(max_steps=7).steps == {"pass": 10, "total": 7}
    plan = planned(gradient_accumulation_steps=2, num_train_epochs=1.5)
    assert plan.steps == {"pass": 5, "total": 8}
    assert plan.batch == {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "processes": 1,
        "rows_a_step": 8,
    }
    assert any("left out" in line for line in planned("kto", dataset=tiny.rows("labels", 37)).lines)


def test_rows_that_are_cut_or_dropped(planned: Planned) -> None:
    text = " ".join(planned(max_length=10).lines)
    assert "shortened: the prompt lost tokens on the left to fit --max_length 10" in text
    with pytest.raises(SettingError, match="--eval_size"):
        planned(eval_size=100)


def test_memory_grows_with_what_is_asked_for(planned: Planned) -> None:
    def most(**given: Any) -> int:
        return max(phase.total for phase in planned(**given).phases)

    usual = most()
    assert most(per_device_train_batch_size=16) > usual
    assert most(layout="padded") > usual
    assert most(use_peft=True) < usual
    assert most(optim="sgd") < usual


def test_the_examination_counts(planned: Planned) -> None:
    names = [phase.name for phase in planned(eval_size=8).phases]
    assert names[-2:] == ["examination", "sampling"]
    assert [phase.name for phase in planned(eval_size=8, eval_prompts=0).phases][-1] == "examination"
    assert "examination" not in [phase.name for phase in planned().phases]
    assert planned("simpo", eval_size=8).reference is None


def test_rollouts_are_an_upper_bound(planned: Planned) -> None:
    plan = planned("rloo", dataset=None, model=None, max_completion_length=20, per_device_train_batch_size=3)
    assert any("an upper bound: 4 completions of every prompt" in line and "20 tokens" in line for line in plan.lines)
    assert plan.phases[-1].name == "sampling"
    # The prompt once or four times, and 20 tokens of each completion but the last, which predicts nothing.
    assert plan.layouts["tree"].tokens > 3 * 4 * 19
    prompt = tiny.groups("prompts", 1)[0]
    stand_ins = answered(prompt, Sampling(4, 20)).completions
    assert [len(one.ids) for one in stand_ins] == [20] * 4
    assert len({one.ids[0] for one in stand_ins}) == 4


def test_the_largest_batch_that_fits(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(limit: int) -> tuple[int, int] | None:
        monkeypatch.setattr("xpo.train.plan.room", lambda device: limit)
        monkeypatch.setattr("xpo.train.plan.resident", lambda: 0)
        found = planned(per_device_train_batch_size=4, gradient_accumulation_steps=3).fits
        return None if found is None else (found.per_device_train_batch_size, found.gradient_accumulation_steps)

    assert fits(2**40) == (12, 1)
    assert fits(1000) is None
    whole = max(phase.total for phase in planned(per_device_train_batch_size=12).phases)
    some = fits(whole)
    assert some is not None
    assert some[0] < 12
    assert some[0] * some[1] == 12


@pytest.mark.parametrize(
    ("available", "least", "expected"), [(1000, 1, 12), (130, 1, 6), (70, 1, 6), (69, 1, 6), (45, 1, 4), (11, 1, None)]
)
def test_fitting_batch(available: int, least: int, expected: int | None) -> None:
    assert fitting_batch(lambda size: 10 * size, 12, available, least) == expected


def test_fitting_batch_keeps_to_the_least() -> None:
    assert fitting_batch(lambda size: 10 * size, 12, 45, least=4) == 4
    assert fitting_batch(lambda size: 10 * size, 12, 45, least=5) is None


def test_a_model_that_cannot_be_rehearsed(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise RuntimeError("values")

    usual = planned().phases
    monkeypatch.setattr("xpo.train.forecast.rehearse", refuse)
    plan = planned()
    assert [line for line in plan.lines if "rule of thumb" in line] == [
        "memory: a rule of thumb, for this model cannot be rehearsed (RuntimeError)"
    ]
    rough, exact = (max(phase.total for phase in phases) for phases in (plan.phases, usual))
    assert rough == pytest.approx(exact, rel=0.5)
    monkeypatch.setenv("XPO_DEBUG", "1")
    with pytest.raises(RuntimeError, match="values"):
        planned()


def test_what_training_refuses_is_refused(planned: Planned, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such directory"):
        planned(model="./nowhere")
    with pytest.raises(SettingError, match="--optim"):
        planned(optim="lomo")
    with pytest.raises(SettingError, match="adapters cannot be added"):
        planned(use_peft=True, lora_target_modules="nothing")
    small = tiny.saved(tmp_path / "small", vocabulary=20)
    with pytest.raises(ModelError, match="embeddings for 20 tokens only"):
        planned(model=str(small))


def test_objects_in_place_of_names(planned: Planned) -> None:
    plan = planned(model=tiny.model(), tokenizer=tiny.tokenizer(), reference_model=tiny.model(1))
    assert plan.model["name"] == "LlamaForCausalLM"
    assert plan.reference == "given model LlamaForCausalLM"
    assert plan.phases[0].parts["reference"] == plan.phases[0].parts["weights"]


def test_the_forecast_rehearses_each_size_once(settings: Callable[..., Settings], monkeypatch) -> None:
    given = settings()
    algorithm = given.make_algorithm()
    forecast = Forecast(given, algorithm, gather(given, algorithm, load(), tiny.tokenizer()), given.model)
    first = forecast.peak(4, 1)
    monkeypatch.setattr("xpo.train.forecast.rehearse", None)
    assert forecast.peak(4, 1, "tree") == first


TRAIN = """
import json, sys
import xpo
from xpo.train.machine import PeakMemory
xpo.train(**json.loads(sys.argv[1]))
print(PeakMemory().host_bytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    ("algo", "given"),
    [
        ("dpo", {"layout": "tree", "use_peft": True, "lora_target_modules": "all-linear"}),
        ("dpo", {"layout": "padded", "use_peft": True, "lora_target_modules": "all-linear"}),
        ("simpo", {"layout": "padded"}),
        ("kto", {"layout": "tree", "eval_size": 20, "eval_prompts": 8}),
    ],
)
def test_a_run_takes_what_was_planned(algo: str, given: dict[str, Any], tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
    base = tmp_path / "model"
    tiny.model(vocabulary=8000, **sizes).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    rows = tmp_path / "rows.jsonl"
    kind = "labels" if algo == "kto" else "pairs"
    rows.write_text("".join(json.dumps(row) + "\n" for row in tiny.rows(kind, 200, longest=500)))
    chosen = {
        "model": str(base),
        "dataset": str(rows),
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "per_device_train_batch_size": 16,
        "max_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        **given,
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    flags = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    plan = json.loads(run("-m", "xpo", "plan", "--algo", algo, *flags, "--json"))
    measured = int(run("-c", TRAIN, json.dumps({"algo": algo, **chosen})).split()[-1])
    assert plan["peak"] - plan["libraries"] > 200 * MIB  # or the test says nothing
    assert plan["peak"] == pytest.approx(measured, rel=0.2)


def test_autocast_and_checkpoints_are_planned(planned: Planned) -> None:
    usual = planned(use_peft=True)
    for given in ({"bf16": True}, {"gradient_checkpointing": True}):
        found = planned(use_peft=True, **given)
        kept = {phase.name: phase.parts.get("activations", 0) for phase in found.phases}
        before = {phase.name: phase.parts.get("activations", 0) for phase in usual.phases}
        assert kept["forward"] < before["forward"]
