"""What a run is told it was off by: a note for every alarm, and none for a healthy run."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.train.madeup_runs import KEY, history, notes
from xpo.train.advice import MOST
from xpo.train.course import ENTRIES, Course
from xpo.train.record import Row
from xpo.train.survey import REMARKS


def test_a_course_tells_change_from_noise() -> None:
    rng = random.Random(2)

    def course(values: Sequence[Any]) -> Course | None:
        return Course.of([{"loss": 1.0, "x": value} for value in values], "x")

    noise = course([rng.gauss(0, 1) for _ in range(40)])
    trend = course([0.2 * n + rng.gauss(0, 1) for n in range(40)])
    assert noise is not None
    assert trend is not None
    assert not noise.certain
    assert trend.certain
    assert trend.change == pytest.approx(0.2 * 32, abs=2)
    assert course([1.0] * (ENTRIES - 1)) is None
    assert course([1.0] * (ENTRIES - 1) + [math.nan, None, "x"]) is None
    assert Course.of([{"eval_loss": 1.0, "x": 1.0}] * 20, "x") is None


HEALTHY = history(
    diagnostics__chosen_gain=(0.0, -0.3),
    diagnostics__rejected_gain=(0.0, -0.4),
    diagnostics__length_bias=(0.0, 0.3),
    diagnostics__length_gap=(5.0, 5.0),
    diagnostics__effective_share=(1.0, 0.4),
    length=(20.0, 40.0),
    finished=(0.8, 0.9),
    reward__same=(0.1, 0.4),
)


def test_a_loss_that_is_no_number_is_the_first_note() -> None:
    entries = [{**entry, "loss": math.nan if entry["step"] > 6 else 1.0} for entry in HEALTHY]
    first = notes("dpo", entries)[0]
    assert "no finite number at step 7 and later" in first
    assert "xpo check dpo" in first


ALARMS: dict[str, tuple[str, dict[str, tuple[float, float]], tuple[str, ...]]] = {
    "displacement": (
        "dpo",
        {"diagnostics__chosen_gain": (0.0, -2.0), "diagnostics__rejected_gain": (0.0, -4.0)},
        ("chosen completions lost 1.78 nats", "--sft_coef", "--beta"),
    ),
    "displacement of labels": (
        "kto",
        {"diagnostics__chosen_gain": (0.0, -2.0), "diagnostics__rejected_gain": (0.0, -4.0)},
        ("lost 1.78 nats",),
    ),
    "displacement without a reference": (
        "simpo",
        {"diagnostics__chosen_logp": (-1.0, -3.0), "diagnostics__rejected_logp": (-1.0, -4.0)},
        ("lost 1.78 nats", "--learning_rate"),
    ),
    "forgotten too much": ("npo", {"diagnostics__retain_logp": (-1.0, -3.0)}, ("to retain lost 1.78 nats",)),
    "length bias": ("dpo", {"diagnostics__length_bias": (0.0, 0.8)}, ("correlation 0.76", "balance lengths")),
    "rewards of length": (
        "rloo",
        {"diagnostics__length_bias": (0.2, 0.8), "length": (20.0, 80.0)},
        ("from 23 to 77 tokens", "penalise length"),
    ),
    "rollouts that are cut": ("rloo", {"finished": (0.9, 0.4)}, ("57% of the sampled", "--max_completion_length")),
    "rollouts rewarded alike": ("rloo", {"reward__same": (0.1, 0.9)}, ("86% of the prompts", "--num_generations")),
    "weight on few": ("dpo", {"diagnostics__effective_share": (1.0, 0.1)}, ("15% of the prompts", "wrong labels")),
}


@pytest.mark.parametrize("alarm", ALARMS)
def test_every_alarm_fires_alone(alarm: str) -> None:
    name, ends, said = ALARMS[alarm]
    [note] = notes(name, history(**ends))
    for part in said:
        assert part in note


@pytest.mark.parametrize("name", ["dpo", "simpo", "kto", "rloo", "npo"])
def test_healthy_runs_get_no_note(name: str) -> None:
    assert notes(name, HEALTHY) == []
    assert notes(name, []) == []


def test_displacement_needs_a_growing_margin_and_more_than_noise() -> None:
    both = history(diagnostics__chosen_gain=(0.0, -2.0), diagnostics__rejected_gain=(0.0, -1.0))
    assert notes("dpo", both) == []
    fall = history(diagnostics__chosen_gain=(0.0, -2.0), diagnostics__rejected_gain=(0.0, -4.0))
    for entry, noise in zip(fall, (4, -4) * 5, strict=True):
        entry[KEY + "chosen_gain"] += noise
    assert notes("dpo", fall) == []


def test_a_method_that_does_not_claim_to_raise_the_chosen_is_not_blamed() -> None:
    fall = history(diagnostics__chosen_gain=(0.0, -2.0), diagnostics__rejected_gain=(0.0, -4.0))
    assert notes("apo_down", fall) == []


def test_beta_is_advised_only_where_it_ties_to_a_reference() -> None:
    ends = ALARMS["displacement without a reference"][1]
    assert "--beta" not in notes("simpo", history(**ends), reference=None)[0]


def test_the_stand_in_for_a_reward_raises_no_alarm() -> None:
    entries = history(diagnostics__chosen_logp=(-1.0, -1.0), diagnostics__length_bias=(0.0, 0.9))
    assert notes("simpo", entries) == []


def test_longer_rollouts_are_fine_when_length_is_not_what_pays() -> None:
    assert notes("rloo", history(length=(20.0, 200.0), diagnostics__length_bias=(0.1, 0.3))) == []
    assert notes("rloo", history(length=(80.0, 20.0), diagnostics__length_bias=(0.9, 0.9))) == []
    [note] = notes("rloo", history(length=(80.0, 20.0), diagnostics__length_bias=(-0.9, -0.9)))
    assert "from 77 to 23 tokens" in note


def test_samples_that_grew_or_lost_their_end() -> None:
    long = Row("mean length", 20.0, 80.0, "tokens", interval_change=(50.0, 70.0))
    [note] = notes("dpo", [], comparison=[long])
    assert "samples went from 20 to 80 tokens" in note
    unsure = Row("mean length", 20.0, 80.0, "tokens", interval_change=(-5.0, 125.0))
    assert notes("dpo", [], comparison=[unsure]) == []
    [note] = notes("dpo", [], comparison=[Row("ended by itself", 0.9, 0.4, "%", "up")])
    assert "40% of the samples ended by themselves, 90% before" in note


def test_only_the_first_notes_are_shown() -> None:
    everything = {key: value for _, ends, _ in ALARMS.values() for key, value in ends.items() if "logp" not in key}
    found = dict.fromkeys(REMARKS, 0.9) | {"longest": 100.0}
    shown = notes("dpo", history(**everything), data={"survey": found})
    assert len(shown) == MOST
    assert "chosen completions lost" in shown[0]
