"""What a reference said once is not computed again: by another run, with another method, beta or adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import xpo
from tests import tiny
from xpo.api.batch import Batch
from xpo.models import reference as references
from xpo.models.cache import LogpCache, identify
from xpo.models.load import Policy
from xpo.models.reference import make_reference
from xpo.train.settings import ModelSettings


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("start"))


def run(start: Path, folder: Path, algo: str = "dpo", **more: Any) -> dict[str, Any]:
    settings = {
        "dataset": tiny.rows("pairs", 12),
        "max_steps": 4,
        "per_device_train_batch_size": 3,
        "learning_rate": 1e-3,
        "eval_prompts": 0,
        "logging_steps": 1,
        "use_cpu": True,
        "report_to": "none",
        **more,
    }
    xpo.train(algo=algo, model=str(start), output_dir=str(folder), **settings)
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def cost(record: dict[str, Any]) -> tuple[int | None, int | None]:
    return record["cost"]["reference_scored"], record["cost"]["reference_known"]


def test_the_second_run_computes_no_reference(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(start, tmp_path / "1")
    assert cost(first) == (24, 0)
    second = run(start, tmp_path / "2", beta=0.5)
    assert cost(second) == (0, 24)
    assert "24 of 24 completions known from earlier runs" in capsys.readouterr().err
    # As pairs or as single completions, with all weights or adapters alone: the reference is the same model.
    labels = [
        {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
        for row in tiny.rows("pairs", 12)
        for name in ("chosen", "rejected")
    ]
    third = run(start, tmp_path / "3", "kto", dataset=labels, max_steps=8, z0="zero")
    assert cost(third) == (0, 24)
    fourth = run(start, tmp_path / "4", use_peft=True, lora_target_modules="all-linear", lora_r=2)
    assert cost(fourth) == (0, 24)


def test_it_changes_nothing(start: Path, tmp_path: Path) -> None:
    without = run(start, tmp_path / "off", reference_cache="off")
    assert cost(without) == (None, None)
    filled, warm = run(start, tmp_path / "filled"), run(start, tmp_path / "warm")
    assert without["metrics"] == filled["metrics"] == warm["metrics"]


def test_memory_is_for_one_run(start: Path, tmp_path: Path) -> None:
    assert cost(run(start, tmp_path / "1", reference_cache="memory", max_steps=8)) == (24, 24)
    assert cost(run(start, tmp_path / "2")) == (24, 0)


def test_another_reference_is_another_cache(start: Path, tmp_path: Path) -> None:
    run(start, tmp_path / "1")
    other = tiny.saved(tmp_path / "other", seed=1)
    assert cost(run(other, tmp_path / "2")) == (24, 0)
    assert cost(run(start, tmp_path / "3", reference_model=str(other))) == (0, 24)


def test_what_was_trained_is_not_what_it_started_from(start: Path, tmp_path: Path) -> None:
    run(start, tmp_path / "1")
    assert cost(run(tmp_path / "1", tmp_path / "2")) == (24, 0)


def test_methods_without_a_reference_keep_nothing(start: Path, tmp_path: Path) -> None:
    assert cost(run(start, tmp_path / "1", "simpo")) == (None, None)


def test_only_what_is_missing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_reference(Policy(tiny.model(), None, None, None), ModelSettings())
    expected = reference.score(Batch.of(tiny.groups("pairs", 4))).logps
    reference = references.replace(reference, cache=LogpCache(identify("x"), folder=None, limit_bytes=0))
    reference.score(Batch.of(tiny.groups("pairs", 4)[1:3]))
    asked: list[list[int]] = []
    real = references.forward

    def forward(model: Any, batch: Batch, completions: torch.Tensor, *rest: Any) -> Any:
        asked.append(completions.tolist())
        return real(model, batch, completions, *rest)

    monkeypatch.setattr(references, "forward", forward)
    for _ in range(2):
        assert torch.allclose(reference.score(Batch.of(tiny.groups("pairs", 4))).logps, expected, atol=1e-5)
    assert asked == [[0, 1, 6, 7]]
