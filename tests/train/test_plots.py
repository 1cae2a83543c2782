"""The metric history as a picture."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from xpo.train.plots import PANELS, plot_history

PAIRS = [
    {"step": 1, "loss": 0.7, "rewards/margins": 0.0, "logps/chosen": -10.0, "logps/rejected": -11.0},
    {"step": 2, "loss": 0.6, "rewards/margins": 0.2, "logps/chosen": -11.0, "logps/rejected": -14.0},
    {"step": 2, "eval_loss": 0.65, "eval_rewards/margins": 0.1},
    {"step": 2, "train_runtime": 1.0},
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig

    def saved(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def test_only_panels_with_data(tmp_path: Path, drawn: list[Any]) -> None:
    plot_history(PAIRS, tmp_path / "history.png", "dpo on org/model")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["history.png"]
    axes = drawn[0].axes
    assert [ax.get_title() for ax in axes] == ["Loss", "Reward margin (chosen - rejected)", "Log-probabilities"]
    assert all(ax.get_xlabel() == "step" and ax.get_ylabel() for ax in axes)
    assert [line.get_label() for line in axes[0].lines] == ["train", "eval"]
    assert drawn[0].get_suptitle() == "dpo on org/model"


def test_rollouts(tmp_path: Path, drawn: list[Any]) -> None:
    plot_history([{"step": 1, "reward": 0.5, "kl": 0.1, "logps": -20.0}], tmp_path / "history.png", "rloo")
    assert [ax.get_title() for ax in drawn[0].axes] == ["Reward", "Log-probabilities", "KL"]


def test_one_point_is_visible_at_a_whole_step(tmp_path: Path, drawn: list[Any]) -> None:
    plot_history([{"step": 7, "loss": 0.5}, {"step": 8, "loss": math.nan}], tmp_path / "history.png", "dpo")
    (ax,) = drawn[0].axes
    assert ax.lines[0].get_marker() == "o"
    low, high = ax.get_xlim()
    assert low < 7 < high
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_what_is_not_finite_is_a_gap(tmp_path: Path, drawn: list[Any]) -> None:
    history: list[dict[str, Any]] = [
        {"step": 1, "loss": 0.5, "kl": math.nan},
        {"step": 2, "loss": math.inf},
        {"step": 3, "loss": None},
    ]
    plot_history(history, tmp_path / "history.png", "dpo")
    (ax,) = drawn[0].axes
    values = ax.lines[0].get_ydata()
    assert values[0] == 0.5
    assert all(map(math.isnan, values[1:]))


def test_no_metrics(tmp_path: Path, drawn: list[Any]) -> None:
    plot_history([], tmp_path / "history.png", "dpo")
    assert not drawn[0].axes
    assert "no metrics were logged" in [text.get_text() for text in drawn[0].texts]


def test_a_title_the_font_lacks_or_mathematics_would_eat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_history(PAIRS, tmp_path / "history.png", "dpo on 模型/$x_{$")
    assert capsys.readouterr() == ("", "")


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    from matplotlib import pyplot

    plot_history(PAIRS, tmp_path / "history.png", "dpo")
    assert not pyplot.get_fignums()


def test_only_the_first_rank_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    plot_history(PAIRS, tmp_path / "history.png", "dpo")
    assert not list(tmp_path.iterdir())


def test_the_lines_of_a_panel_can_be_told_apart() -> None:
    for panel in PANELS:
        looks = [(line.colour, line.dashed) for line in panel.lines]
        assert len(looks) == len(set(looks))
