"""The one division: terms are shares of a step, and a term of the wrong shape is refused with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests import tiny
from xpo import Batch, Completion, Group, Loss, PluginError, SettingError, Term
from xpo.api.algorithm import Algorithm, Config, option, rewards_of_pairs
from xpo.api.loss import as_loss, counts, reduce


def batch() -> Batch:
    return Batch.of(
        [
            Group([1], [Completion([5, 6, 7], "chosen"), Completion([4], "rejected")], pairs=[(0, 1)]),
            Group([1], [Completion([5], "chosen"), Completion([4, 4], "rejected", trainable=False)], pairs=[(0, 1)]),
        ]
    )


def test_counts() -> None:
    assert counts(batch()) == {
        ("pair", None, ""): 2,
        ("group", None, ""): 2,
        ("completion", None, ""): 3,
        ("token", None, ""): 5,
        ("completion", "chosen", ""): 2,
        ("token", "chosen", ""): 4,
        ("completion", "rejected", ""): 2,
        ("token", "rejected", ""): 3,
    }
    assert counts(replace(batch(), idle=True)) == {}


def test_shares_of_a_step_add_up_to_its_mean() -> None:
    """Two unequal micro-batches, each divided by the counts of both."""
    groups = tiny.groups("pairs", 5)
    parts = [Batch.of(groups[:1]), Batch.of(groups[1:])]
    totals: dict = {}
    for part in parts:
        for key, count in counts(part).items():
            totals[key] = totals.get(key, 0.0) + count

    def terms(part: Batch) -> Loss:
        generator = torch.Generator().manual_seed(len(part))
        token = torch.rand(part.mask.shape, generator=generator)[part.where("chosen")]
        pair = torch.arange(float(part.chosen.numel())) + 1
        return Loss([Term(pair, "pair"), Term(token, "token", over="chosen", weight=0.5, name="sft")])

    value = sum(float(reduce(terms(part), part, totals)[0]) for part in parts)
    tokens = [terms(part).terms[1].values[part.mask[part.where("chosen")]] for part in parts]
    expected = (1 + 1 + 2 + 3 + 4) / 5 + 0.5 * float(torch.cat(tokens).mean())
    assert value == pytest.approx(expected, rel=1e-6)


def test_terms_of_one_name_are_one_share() -> None:
    loss = Loss([Term(torch.tensor([1.0, 3.0]), "pair"), Term(torch.tensor([1.0, 0.0]), "group", weight=2.0)])
    value, shares = reduce(loss, batch(), counts(batch()))
    assert shares.keys() == {"preference"}
    assert float(value) == pytest.approx(2.0 + 1.0)


def test_padding_of_token_terms_is_masked_whatever_stands_there() -> None:
    values = torch.full((2, 3), 2.0)
    values[1, 1:] = float("inf")
    value, _ = reduce(Loss([Term(values, "token", over="chosen")]), batch(), counts(batch()))
    assert float(value) == pytest.approx(2.0)


def test_an_idle_batch_has_a_gradient_of_zero() -> None:
    idle = replace(batch(), idle=True)
    values = torch.tensor([1.0, 3.0], requires_grad=True)
    value, _ = reduce(Loss([Term(values, "pair")]), idle, counts(batch()))
    value.backward()
    assert float(value.detach()) == 0.0
    assert values.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term(torch.tensor(1.0), "pair"), r"shape \(\), the batch asks for \(2,\)"),
        (Term(torch.zeros(4), "completion"), r"shape \(4,\), the batch asks for \(3,\)"),
        (Term(torch.zeros(2, 2), "token", over="chosen"), r"the batch asks for \(2, 3\)"),
        (Term(torch.zeros(2), "token", over="chosen"), r"the batch asks for \(2, 3\)"),
        (Term(torch.zeros(2), "pair", over="chosen"), "drop over='chosen'"),
        (Term(torch.zeros(1), "completion", over="typo"), r"the batch asks for \(0,\)"),
    ],
)
def test_a_term_of_the_wrong_shape(term: Term, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        reduce(Loss([term]), batch(), counts(batch()))
    with pytest.raises(PluginError, match="no terms"):
        reduce(Loss([]), batch(), counts(batch()))


def test_pair_metrics_compare_strictly() -> None:
    metrics = rewards_of_pairs(batch(), torch.tensor([1.0, 1.0, 2.0, 1.0]), torch.zeros(4))
    assert metrics["rewards/accuracies"].tolist() == [0.0, 1.0]
    assert metrics["rewards/margins"].tolist() == [0.0, 1.0]
    assert metrics["length/chosen"].tolist() == [3.0, 1.0]


def test_settings_and_state_of_an_algorithm() -> None:
    from dataclasses import dataclass

    @dataclass
    class Own(Config):
        beta: float = option(0.3, "a number")

        def __post_init__(self) -> None:
            self.require(self.beta > 0, "beta must be positive")

    class Method(Algorithm[Own]):
        name = "method"
        Config = Own

    assert Method.settings() == {"beta": (0.3, "a number")}
    assert Method().config.beta == 0.3
    with pytest.raises(SettingError, match="beta must be positive"):
        Own(beta=0)
    assert Method().state_dict() == {}
    Method().load_state_dict({})
    with pytest.raises(SettingError, match="keeps no state"):
        Method().load_state_dict({"mean": 1.0})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("dpo", {"beta": 0}),
        ("dpo", {"label_smoothing": 0.5}),
        ("simpo", {"gamma": 1.0, "gamma_beta_ratio": 0.5}),
        ("simpo", {"sft_weight": -1}),
        ("kto", {"z0": "mean"}),
        ("kto", {"undesirable_weight": 0}),
        ("rloo", {"epsilon": 0}),
        ("rloo", {"reward_clip_range": (1.0, -1.0)}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, wrong: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        tiny.algorithm(name, **wrong)


def test_a_level_that_does_not_exist_is_refused_with_those_that_do() -> None:
    """Its sum would be taken for its mean."""
    with pytest.raises(PluginError, match=r"level 'sequence', and there is no such level; there are 'pair', one"):
        Term(torch.zeros(2), "sequence")  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda: as_loss(torch.zeros(2)), r"loss\(\) returned a Tensor; return Loss\(\[Term\(values, level\)\]\)"),
        (lambda: as_loss(None), "returned None"),
        (lambda: Loss(Term(torch.zeros(2), "pair")), "terms of a loss are a Term"),  # type: ignore[arg-type]  # the mistake
        (lambda: Loss([torch.zeros(2)]), "terms of a loss are"),  # type: ignore[list-item]  # the mistake
        (lambda: Term(0.5, "pair"), "are 0.5; they must be a tensor"),  # type: ignore[arg-type]  # the mistake
    ],
)
def test_what_is_no_loss_says_what_one_is(returned: Callable[[], object], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        returned()
