"""Every method of the zoo takes steps in the one loop, and its files hold what a reader of the zoo looks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import ROOT
from xpo import Completion, Group
from xpo.plugins import load

OWN = {name: entry.cls for name, entry in load().algorithms.items() if entry.supplier.distribution == "xpo"}


def rows(name: str, count: int = 9) -> Sequence[Group]:
    """Data of the kind a method learns from, with the further completions and numbers it may read."""
    cls = OWN[name]
    groups = tiny.groups("prompts" if cls.data == "rollouts" else cls.data, count)
    for number, group in enumerate(groups):
        group.completions += [Completion([3, number, tiny.EOS], role) for role in cls.extras]
        group.columns = dict.fromkeys(cls.columns, 0.7)
        if cls.data == "pairs" and cls().needs.scores:
            for completion, score in zip(group.completions, (0.8, 0.3), strict=False):
                completion.score = score
    return groups


@pytest.mark.parametrize("name", OWN)
def test_steps(tmp_path: Path, name: str) -> None:
    run = tiny.fit(name, tmp_path, train=rows(name), max_steps=3, per_device_train_batch_size=4)
    assert len(run.losses) == 3
    assert all(map(math.isfinite, run.losses))
    start = {**tiny.classifier().state_dict(), **tiny.model().state_dict()}
    assert any(not weight.equal(start[key]) for key, weight in run.weights.items())
    known = {*OWN[name].metrics, "loss", "grad_norm", "learning_rate", "epoch", "step"}
    logged = {key for entry in run.trainer.state.log_history if "loss" in entry for key in entry}
    told = {key for key in logged - known if not key.startswith(("loss/", "diagnostics/"))}
    sampled = {"reward", "reward/std", "reward/same", "length", "finished", "opponent/finished"}
    assert told <= (sampled if OWN[name].data == "rollouts" else set()), (
        "logged, but not explained in Algorithm.metrics"
    )


def test_every_method_is_held_against_its_equation() -> None:
    """Beside the conformance kit, which tries all of them: each has a case worked out by hand."""
    cases = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for name, cls in OWN.items():
        assert cls.golden, name
        assert any(f'"{case}"' in cases for case in cls.golden), f"{name}: no test in {Path(__file__).parent}"


def test_a_file_holds_one_method() -> None:
    folders = {"pairs", "labels", "lists", "forget", "demonstrations", "rewards", "rollouts"}
    files = [path for folder in folders for path in (ROOT / "plugins" / "xpo_zoo" / folder).glob("[!_]*.py")]
    homes = [cls.__module__ for cls in OWN.values()]
    assert len(files) == len(homes) == len(set(homes))
    for path in files:
        assert len(path.read_text("utf-8").splitlines()) <= 210, path
