"""Supervised fine-tuning: three ways to average, and what of the prompt is learnt."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import hold, mean, ragged
from xpo import Batch, Completion, Group, Scores, SettingError
from xpo.api.loss import counts, reduce
from xpo.models.layout import Tree, padded
from xpo.models.scoring import Engine, score

ROWS = ragged(1, 4)
#: nll -> the mean of a list of completions, each a list of log-probabilities.
MEANS = {
    "token": lambda rows: -sum(map(sum, rows)) / sum(map(len, rows)),
    "sequence": lambda rows: -mean([sum(row) / len(row) for row in rows]),
    "sum": lambda rows: -mean([sum(row) for row in rows]),
}


@pytest.mark.parametrize("per", MEANS)
def test_sft(per: str) -> None:
    def loss(policy: dict[str, Any]) -> float:
        return MEANS[per](policy["completion"])

    case = {"loss": "sft", "hyper": {"nll": per}, "policy": {"completion": [list(row) for row in ROWS]}}
    hold(
        case, loss, nll_loss=MEANS[per](ROWS), logps=mean([sum(row) for row in ROWS]), length=mean(list(map(len, ROWS)))
    )


def demonstrations(count: int) -> list[Group]:
    rng = random.Random(count)
    return [
        Group(
            [rng.randrange(37) for _ in range(1 + row % 4)],
            [Completion([*(rng.randrange(37) for _ in range(rng.randint(1, 6))), tiny.EOS])],
            row=row,
        )
        for row in range(count)
    ]


@pytest.mark.parametrize("per", MEANS)
@pytest.mark.parametrize("completion_only", [True, False])
@pytest.mark.parametrize("arrange", [padded, Tree()], ids=["padded", "tree"])
def test_the_prompt_is_learnt_where_that_is_asked_for(per: str, completion_only: bool, arrange: Any) -> None:
    model = tiny.model()
    groups = demonstrations(6)
    expected: list[list[float]] = []
    for group in groups:
        ids = torch.tensor([[*group.prompt_ids, *group.completions[0].ids]])
        logps = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        expected.append(logps[len(group.prompt_ids) - 1 if completion_only else 0 :].tolist())
    algorithm = tiny.algorithm("sft", nll=per, completion_only_loss=completion_only)
    batch = Batch.of(algorithm.collate(groups))
    loss = algorithm.loss(batch, score(model, batch, Engine(arrange=arrange)), None)
    assert float(reduce(loss, batch, counts(batch))[0].detach()) == pytest.approx(MEANS[per](expected), rel=1e-5)
    assert [len(group.completions[0].ids) for group in groups] == [
        len(one.completions[0].ids) for one in demonstrations(6)
    ]


def test_only_completions_are_learnt_unless_asked() -> None:
    groups = demonstrations(3)
    assert tiny.algorithm("sft").collate(groups) == groups


def test_the_token_mean_is_of_the_step_and_not_of_its_micro_batches() -> None:
    algorithm, model, groups = tiny.algorithm("sft"), tiny.model(), demonstrations(5)
    totals = counts(Batch.of(groups))

    def part(some: list[Group]) -> float:
        batch = Batch.of(some)
        return float(reduce(algorithm.loss(batch, score(model, batch), None), batch, totals)[0].detach())

    assert part(groups[:1]) + part(groups[1:]) == pytest.approx(part(groups), rel=1e-5)


def test_a_token_whose_id_is_0_is_learnt_like_any_other() -> None:
    batch = Batch.of([Group([1], [Completion([0, 2, 0])])])
    logps = torch.tensor([[-1.0, -2.0, -4.0]], requires_grad=True)
    algorithm = tiny.algorithm("sft")
    reduce(algorithm.loss(batch, Scores(logps, batch.mask), None), batch, counts(batch))[0].backward()
    assert logps.grad is not None
    assert logps.grad[0].tolist() == pytest.approx([-1 / 3] * 3)


def test_an_unknown_mean_is_refused() -> None:
    with pytest.raises(SettingError, match="nll must be one of token, sequence, sum, not 'mean'"):
        tiny.algorithm("sft", nll="mean")
