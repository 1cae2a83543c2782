"""Several methods in one run: each with its own options, its own view of the data and its own counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from xpo import Algorithm, Batch, Config, Loss, Scores, SettingError, Term
from xpo.api.loss import counts, reduce
from xpo.api.mixture import Imitation, Mixture, Part, compose, parse
from xpo.models.scoring import PLAIN, score
from xpo.plugins import load
from xpo.train.flags import from_keywords


def test_parse() -> None:
    assert parse("dpo + 0.2*sft") == [("dpo", 1.0), ("sft", 0.2)]
    assert parse(" 0.7 * dpo+1e-2*stranger:simpo") == [("dpo", 0.7), ("stranger:simpo", 0.01)]


@pytest.mark.parametrize("wrong", ["dpo +", "dpo + -1*sft", "dpo + 0*sft", "dpo + 0.2 sft", "2*", "dpo ++ sft"])
def test_what_is_no_sum_of_methods_is_refused(wrong: str) -> None:
    with pytest.raises(SettingError, match="names with positive factors"):
        parse(wrong)


def test_what_does_not_go_together_is_refused() -> None:
    registry = load()
    for wrong, why in {
        "dpo + dpo": "'dpo' twice",
        "dpo + kto": "dpo from pairs, kto from labels",
        "dpo + bradley_terry": "bradley_terry trains a reward model",
        "rloo + sft": "give them as --replay_dataset",
    }.items():
        with pytest.raises(SettingError, match=why):
            registry.algorithm(wrong)


def gradient(method: Algorithm[Any], model: torch.nn.Module) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one step over some pairs, against another model as the reference."""
    model.zero_grad()
    batch = Batch.of(method.collate(tiny.groups("pairs", 6)))
    with torch.no_grad():
        reference = score(tiny.model(1), batch, PLAIN)
    loss = method.loss(batch, score(model, batch, PLAIN), reference if method.needs.reference else None)
    value, _ = reduce(loss, batch, counts(batch))
    value.backward()
    return float(value), torch.cat([one.grad.flatten() for one in model.parameters()])


def test_a_mixture_is_the_weighted_sum_of_its_parts() -> None:
    model = tiny.model()
    mixture = tiny.algorithm("0.5*dpo + 2*simpo + 0.1*sft", dpo__beta=0.3, simpo__gamma=0.2)
    value, pull = gradient(mixture, model)
    parts = [
        (0.5, tiny.algorithm("dpo", beta=0.3)),
        (2.0, tiny.algorithm("simpo", gamma=0.2)),
        (0.1, tiny.algorithm("simpo", sft_weight=1.0)),
        (-0.1, tiny.algorithm("simpo")),
    ]
    found = [(weight, *gradient(method, model)) for weight, method in parts]
    assert value == pytest.approx(sum(weight * one for weight, one, _ in found), abs=1e-5)
    assert torch.allclose(pull, sum(weight * grad for weight, _, grad in found), atol=1e-5)


class Nosy(Algorithm[Config]):
    """Says whether it was given a reference, and counts what it saw."""

    name, summary, equation, data = "nosy", "x", "x", "pairs"
    paper = tiny.algorithm("dpo").paper
    seen: list[tuple[int, int, bool]] = []

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        Nosy.seen.append((len(batch), len(batch.groups), reference is None))
        chosen, _ = batch.pairs(policy.sum())
        return Loss([Term(-chosen, "pair")], {"seen": chosen})


def test_a_part_sees_its_own_completions_and_the_reference_it_asked_for() -> None:
    dpo = load().algorithm("dpo").cls
    mixture = compose([("dpo", 1.0, dpo), ("nosy", 1.0, Nosy)])()
    Nosy.seen.clear()
    batch = Batch.of(mixture.collate(tiny.groups("pairs", 3)))
    assert len(batch) == 12
    scores = score(tiny.model(), batch, PLAIN).detach()
    loss = mixture.loss(batch, scores, scores)
    assert Nosy.seen == [(6, 3, True)]
    assert {"rewards/margins", "nosy/seen"} <= set(loss.metrics)  # those of the first keep their names
    asked = [one.referenced for group in batch.groups for one in group.completions]
    assert asked == [True, True, False, False] * 3


def test_helpers_learn_the_best_of_each_row_and_the_rows_beside(tmp_path: Path) -> None:
    replay = [
        tiny.Group(group.prompt_ids, [tiny.Completion(group.completions[0].ids, "replay")])
        for group in tiny.groups("demonstrations", 5, seed=7)
    ]
    helpers = [Part("nll", 0.3, Imitation()), Part("replay", 0.7, Imitation(), replay=True)]
    trainer = tiny.trainer("dpo", tmp_path, helpers=helpers, beside=[replay])
    method = trainer.algorithm
    assert isinstance(method, Mixture)
    (micro,) = next(iter(trainer.steps.sampler(trainer.train_dataset, 4, train=True)))
    groups = trainer.train_dataset[micro].groups
    batch = Batch.of(groups)
    assert counts(batch)["pair", None, ""] == 4
    own, beside = (counts(batch)["token", None, name] for name in ("nll", "replay"))
    chosen = [one.ids for group in groups for one in group.completions if one.role == "chosen"]
    assert own == sum(map(len, chosen))
    assert beside == sum(len(group.completions[0].ids) for group in groups if not group.pairs)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    shares = [logged[0][f"loss/{name}"] for name in ("dpo", "nll", "replay")]
    assert sum(shares) == pytest.approx(logged[0]["loss"], abs=1e-5)
    assert shares[1] == pytest.approx(0.3 * logged[0]["nll/nll_loss"], rel=1e-5)


def test_state_of_every_part_is_kept() -> None:
    mixture = tiny.algorithm("dpo + bco_pair")
    batch = Batch.of(mixture.collate(tiny.groups("pairs", 4)))
    policy, other = (score(tiny.model(seed), batch, PLAIN) for seed in (0, 1))
    mixture.loss(batch, policy, other.detach())
    state = mixture.state_dict()
    assert state["bco_pair"]
    again = tiny.algorithm("dpo + bco_pair")
    again.load_state_dict(state)
    assert again.state_dict() == state


def test_flags_go_to_the_part_they_name() -> None:
    settings = from_keywords("dpo + 0.2*simpo", **{"dpo.beta": 0.5, "simpo.beta": 4.0, "gamma_beta_ratio": 0.25})
    method = settings.make_algorithm()
    assert isinstance(method, Mixture)
    first, second = (part.algorithm.config for part in method.parts)
    assert (first.beta, second.beta, second.gamma_beta_ratio) == (0.5, 4.0, 0.25)
    assert settings.to_dict()["algorithm"]["dpo.beta"] == 0.5
    assert settings.training.output_dir == "runs/dpo-0.2-simpo"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"beta": 0.5}, r"beta=: say whose, dpo\.beta or simpo\.beta"),
        ({"dpo.gamma": 0.5}, "dpo.gamma"),
        ({"dpo.beta": -1}, "dpo: beta must be positive"),
        ({"simpo.beta": 1, "simpo__beta": 2}, "two names of one setting"),
    ],
)
def test_what_no_part_can_take_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        from_keywords("dpo + 0.2*simpo", **wrong)


def test_helpers_are_refused_where_there_is_nothing_to_learn() -> None:
    with pytest.raises(SettingError, match="--replay_dataset"):
        from_keywords("rloo", sft_coef=0.1)
    with pytest.raises(SettingError, match="no likelihood"):
        from_keywords("bradley_terry", sft_coef=0.1)
