"""One batch through TRL 1.16 and through xpo: equal, or different by as much as the documentation says, and why."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.tpo import TPOTrainer

from scripts.agreement import BATCH, ROWS, Row, findings, one_digit
from scripts.docs import generate
from tests.conftest import ROOT
from xpo_zoo.pairs.exo import exo_loss

#: Losses of TRL's CPO and TPO trainers without a counterpart, as the documentation says.
WITHOUT = {"hinge", "ipo"}


def name(index: int) -> str:
    row = ROWS[index]
    return f"{index} {row.algo} beside {row.trainer}" + (", different" if row.reason else "")


@pytest.mark.parametrize("index", range(len(ROWS)), ids=name)
def test_a_row(index: int) -> None:
    found = findings()[index]
    row = found.row
    assert found.proven.within(row.tolerance), found
    if row.reason:
        # Far beyond rounding, so that there is something to explain.
        assert max(found.as_set.loss, found.as_set.gradient) > 1e-2, found
    else:
        assert found.as_set == found.proven


def test_the_documentation_says_what_was_measured() -> None:
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    assert generate(text) == text, "run `make docs`"


def test_the_digits_shown_do_not_depend_on_the_machine() -> None:
    for found in findings():
        for number in (found.as_set.loss, found.as_set.gradient) if found.row.reason else ():
            assert one_digit(0.999 * number) == one_digit(number) == one_digit(1.001 * number), found


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0379, "0.04"), (0.00066, "0.0007"), (0.95, "0.9"), (2.07, "2"), (14.6, "10"), (0.5, "0.5")]
)
def test_one_digit(number: float, shown: str) -> None:
    assert one_digit(number) == shown


def compared(setting: str, function: Callable[..., Any]) -> set[str]:
    """The values that the source of one of TRL's losses compares a setting with."""
    return set(re.findall(rf'\b{setting} == "([\w-]+)"', inspect.getsource(function)))


def test_every_loss_of_trl_has_a_row() -> None:
    used: dict[str, set[str]] = {}
    for row in ROWS:
        types = row.theirs.get("loss_type", "kto" if row.trainer == "KTO" else "sigmoid")
        used.setdefault(row.trainer, set()).update([types] if isinstance(types, str) else types)
    assert used["DPO"] == compared("loss_type", DPOTrainer._compute_loss)
    assert used["KTO"] == compared("loss_type", KTOTrainer._compute_loss)
    assert used["CPO"] - {"alphapo"} == compared("loss_type", CPOTrainer.cpo_loss) - WITHOUT
    assert used["TPO"] == compared("loss_type", TPOTrainer._compute_loss) - WITHOUT
    assert set(used) == {"DPO", "KTO", "CPO", "ORPO", "TPO", "Reward", "SFT"}
    divergences = {row.theirs["f_divergence_type"] for row in ROWS if "f_divergence_type" in row.theirs}
    assert divergences == compared("f_divergence_type", DPOTrainer._compute_loss)


def test_a_difference_comes_with_a_reason_and_a_proof() -> None:
    for row in ROWS:
        proof = bool(row.ours_instead or row.theirs_instead or row.state or row.pieces > 1)
        assert proof == bool(row.reason), row
        assert BATCH % row.pieces == 0


def test_a_wrong_reason_is_found() -> None:
    """A proof that proves nothing is no proof: the batch tells settings apart."""
    from scripts.side_by_side import measure

    row = next(row for row in ROWS if row.algo == "wpo")
    wrong = Row(row.algo, {**row.ours, "alignment": "greedy", "clamp": False}, row.trainer, row.theirs)
    assert not measure(wrong).within(1e-2)


def test_the_smoothing_that_stands_for_the_log_targets_of_the_authors_of_exo() -> None:
    margins = torch.linspace(-6.0, 6.0, 25, dtype=torch.float64)
    for margin, found in zip(margins.tolist(), exo_loss(margins, 1.0, 4.54e-5).tolist(), strict=True):
        q = 1.0 / (1.0 + math.exp(-margin))
        assert found == pytest.approx(q * math.log(q) + (1.0 - q) * (math.log(1.0 - q) + 10.0), abs=5e-5)
