"""The metric of the best checkpoint: what the message says of one that is not there."""

from __future__ import annotations

import pytest

from xpo.errors import SettingError
from xpo.train.best import check_metric

THERE = {"eval_loss", "eval_rewards/accuracies", "eval_rewards/margins", "eval_logps/chosen"}


@pytest.mark.parametrize("wanted", [None, "loss", "eval_loss", "rewards/margins", "eval_rewards/margins", "runtime"])
def test_what_is_there_is_taken_with_its_prefix_or_without(wanted: str | None) -> None:
    check_metric(wanted, THERE)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("rewards/accuracy", "Did you mean rewards/accuracies or "),
        ("accuracy", "Did you mean rewards/accuracies?"),
        ("eval_margin", "Did you mean rewards/margins?"),
        ("bleu", "There are: logps/chosen, loss, rewards/accuracies, rewards/margins, runtime, "),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(wanted: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_metric(wanted, THERE)
    assert f"--metric_for_best_model {wanted}" in str(caught.value)
    assert said in str(caught.value)
