"""The conformance kit: sound methods pass, and each check finds what it is there for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.conftest import ROOT
from tests.testing.toys import SOUND, Keeping, KeepingConfig, Listing, Reading, Sampling, Sound, SoundConfig
from xpo import Algorithm, Batch, Config, Group, Loss, Needs, PluginError, Scores, Term, option
from xpo.testing import Report, check_algorithm
from xpo.testing.alternatives import alternatives
from xpo.testing.check import CHECKS, FIRST, VECTORS, outcome
from xpo.testing.subject import Subject
from xpo.testing.vectors import read_cases
from xpo.testing.vectors import vectors as against

Loses = Callable[[Any, Batch, Scores, Scores | None], Loss]


def sub(base: type[Algorithm[Any]], **members: Any) -> type[Algorithm[Any]]:
    """A class with some members of ``base`` replaced."""
    return type("Broken", (base,), {"__module__": __name__, **members})


def with_loss(base: type[Algorithm[Any]], loss: Loses, **members: Any) -> type[Algorithm[Any]]:
    return sub(base, loss=loss, **members)


def with_settings(base: type[Config], **settings: Any) -> type[Config]:
    """A configuration with further settings."""
    annotations = dict.fromkeys(settings, "float")
    return dataclass(type("More", (base,), {"__annotations__": annotations, "__module__": __name__, **settings}))


def only(values: Callable[[Batch, torch.Tensor], torch.Tensor], level: str = "pair") -> Loses:
    """A loss with one term made of margins."""

    def loss(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        margins = Sound.margins(self, batch, policy, reference)
        return Loss([Term(values(batch, self.config.beta * margins), level)])  # type: ignore[arg-type]

    return loss


def tokens(values: Callable[[Batch, Scores], torch.Tensor]) -> Loses:
    """A loss with one term made of a number a completion; chosen minus rejected."""

    def loss(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        chosen, rejected = batch.pairs(values(batch, policy))
        return Loss([Term(self.losses(chosen - rejected), "pair")])

    return loss


PLAIN: dict[str, Any] = {"metrics": {}, "value_at_reference": lambda self, batch: None}
FREE: dict[str, Any] = {**PLAIN, "needs": Needs()}


@pytest.mark.parametrize("cls", SOUND, ids=lambda cls: cls.name)
def test_a_sound_method_passes(cls: type[Algorithm[Any]]) -> None:
    report = check_algorithm(cls)
    report.require()
    assert report.ok
    assert [check.name for check in report.checks] == [*CHECKS, "vectors"]
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["settings"] == ("n/a" if cls.Config is Config else "pass")
    assert all(verdicts[name] == "pass" for name in ("finite loss", "padding", "batch split", "layout", "extremes"))


# What breaks each check: name of the check -> case -> the class.


def _nan_of_one_label(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    loss = Keeping.loss(self, batch, policy, reference)
    labels = batch.labels[batch.where("completion")]
    share = labels.double().mean() / (~labels).double().mean() * (~labels).double().mean()
    return Loss([replace(loss.terms[0], values=loss.terms[0].values * (share / share))], loss.metrics)


def _uses_distributions(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    return Loss([Term(policy.entropies(), "token")])


def _lets_gradient_in(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    assert reference is not None
    reference.logps.requires_grad_()
    return Sound.loss(self, batch, policy, reference)


def _counts_what_is_scored(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    loss = Keeping.loss(self, batch, policy, reference)
    return Loss(
        [*loss.terms, Term(policy.sum()[batch.where("other")], "completion", "other", name="more")], loss.metrics
    )


def _cut_off_the_chosen(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> torch.Tensor:
    chosen, rejected = batch.pairs(policy.sum())
    return chosen.detach() - rejected


def _prefers_the_rejected(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    assert policy.rewards is not None
    chosen, rejected = batch.pairs(policy.rewards)
    return Loss([Term(chosen - rejected, "pair")])


def _adds_the_reference(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> torch.Tensor:
    assert reference is not None
    chosen, rejected = batch.pairs(policy.sum() + reference.sum())
    return chosen - rejected


def _refers_to_the_chosen(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> torch.Tensor:
    assert reference is not None
    chosen, rejected = batch.pairs(policy.sum())
    return chosen - batch.pairs(reference.sum())[0] - rejected


def _averages(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> torch.Tensor:
    assert reference is not None
    chosen, rejected = batch.pairs(policy.mean() - reference.mean())
    return chosen - rejected


def _compares_everything(
    self: Any, batch: Batch, policy: Scores, reference: Scores | None
) -> Mapping[str, torch.Tensor]:
    return {"advantages": batch.scores - batch.scores.mean()}


def _looks_into_states(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    assert policy.distributions is not None
    weight = policy.distributions.states.detach().square().mean()
    return Loss([Term(-policy.logps * weight - policy.entropies(), "token")])


def _writes_into_reference(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    assert reference is not None
    reference.logps.mul_(1.0)
    return Sound.loss(self, batch, policy, reference)


def _adds_a_column(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    batch.columns["more"] = policy.sum().detach()
    return Sound.loss(self, batch, policy, reference)


def _changes_groups(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    batch.groups[0].columns["seen"] = 1.0
    return Sound.loss(self, batch, policy, reference)


def _random(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    return Loss([Term(self.losses(self.margins(batch, policy, reference) * torch.rand(())), "pair")])


def _mean_of_means_with_a_statistic(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    loss = Keeping.loss(self, batch, policy, reference)
    return Loss([replace(loss.terms[0], values=loss.terms[0].values / len(batch.groups))], loss.metrics)


def _token_mean_of_the_micro_batch(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    """The NLL of many trainers: a mean over the tokens of whatever is in the micro-batch."""
    index = batch.where("chosen")
    mean = -policy.logps[index].sum() / batch.lengths[index].sum()
    return Loss([*Sound.loss(self, batch, policy, reference).terms, Term(mean.expand(len(batch.groups)), "pair")])


def _logged(name: str, values: Callable[[torch.Tensor], Any]) -> Loses:
    def loss(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        found = Sound.loss(self, batch, policy, reference)
        return Loss(found.terms, {**found.metrics, name: values(self.margins(batch, policy, reference))})

    return loss


def _reversed(self: Any, groups: Sequence[Group]) -> list[Group]:
    return list(reversed(groups))


def _counting(self: Any, groups: Sequence[Group]) -> list[Group]:
    self.calls = getattr(self, "calls", 0) + 1
    return [replace(group, columns={"calls": float(self.calls)}) for group in groups]


def _drawing(self: Any, groups: Sequence[Group]) -> list[Group]:
    return [replace(group, columns={"draw": random.random()}) for group in groups]


def _loss_of_one(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
    """With a mean over what this process has."""
    return Keeping.loss(self, replace(batch, reduce=lambda tensor: tensor), policy, reference)


def _always(self: Any, mean: float) -> None:
    self.shift = self.config.momentum * self.shift + (1 - self.config.momentum) * mean


def _logit(batch: Batch, z: torch.Tensor) -> torch.Tensor:
    return -torch.log(torch.sigmoid(z))


def _odds(batch: Batch, policy: Scores) -> torch.Tensor:
    """The odds of an average log-probability, as they stand in the paper."""
    average = policy.mean()
    return average - torch.log(1 - torch.exp(average))


def _branch_not_taken(batch: Batch, z: torch.Tensor) -> torch.Tensor:
    return torch.where(z > -50, torch.log(1 + torch.exp(-z)), -z)


@dataclass
class Stubborn(KeepingConfig):
    def __post_init__(self) -> None:
        self.require(self.momentum == 0.9, "momentum must be 0.9")


BROKEN: dict[str, dict[str, type[Algorithm[Any]]]] = {
    "declaration": {
        "no algorithm at all": dict,  # type: ignore[dict-item]
        "upper case": sub(Sound, name="Sound"),
        "undocumented setting": sub(Sound, Config=with_settings(SoundConfig, extra=1.0)),
        "reserved name": sub(Sound, Config=with_settings(SoundConfig, learning_rate=option(1.0, "x"))),
        "alias of nothing": sub(Sound, aliases={"old_beta": "betta"}),
        "alias of the same name": sub(Sound, aliases={"beta": "label_smoothing"}),
        "no training argument": sub(Sound, training={"learning_rat": 1.0}),
        "golden fixes nothing": sub(Sound, golden={"x": {"=alpha": 1.0}}),
        "metric without meaning": sub(Sound, metrics={"margin": ""}),
        "needs of the default": sub(
            Sound, __init__=lambda self, config=None: (Sound.__init__(self, config), setattr(self, "needs", Needs()))[0]
        ),
    },
    "needs": {
        "reference not declared": sub(Sound, needs=Needs()),
        "distributions not declared": with_loss(Sound, _uses_distributions, **FREE),
        "scores not declared": sub(Listing, data="labels", needs=Needs(vocabulary=True, values=True)),
        "reference not used": with_loss(Sound, tokens(lambda batch, policy: policy.sum()), **PLAIN),
        "distributions not used": sub(Sound, needs=Needs(reference=True, vocabulary=True)),
        "distributions of the reference not used": sub(Sound, needs=Needs(reference=True, reference_vocabulary=True)),
        "values not used": sub(Sound, needs=Needs(reference=True, values=True)),
        "scores not used": sub(Sound, needs=Needs(reference=True, scores=True)),
    },
    "finite loss": {
        "reduced already": with_loss(Sound, only(lambda batch, z: z.mean())),
        "raises": with_loss(Sound, lambda self, batch, policy, reference: 1 / 0),
        "nothing": with_loss(Sound, lambda self, batch, policy, reference: Loss([])),
        "one label in a micro-batch": sub(Keeping, loss=_nan_of_one_label, needs=Needs(reference=True)),
        "stand-in": with_loss(Sound, only(lambda batch, z: z * (float("nan") if batch.idle else 1.0))),
    },
    "gradient": {
        "none": with_loss(Sound, only(lambda batch, z: z.detach()), **PLAIN),
        "none into the chosen": sub(Sound, margins=_cut_off_the_chosen, needs=Needs()),
    },
    "feedback": {
        "wrong sign": with_loss(Sound, only(lambda batch, z: z), **PLAIN),
        "none": with_loss(Sound, only(lambda batch, z: z.square()), **PLAIN),
        "of a reward": with_loss(Reading, _prefers_the_rejected),
    },
    "reference": {
        "added": sub(Sound, margins=_adds_the_reference),
        "of some alone": sub(Sound, margins=_refers_to_the_chosen),
    },
    "sum or average": {
        "average": sub(Sound, margins=_averages),
        "sum": sub(Sound, equation="L = log pi(y|x) / |y|"),
    },
    "direction": {
        "wrong sign": with_loss(Sound, only(lambda batch, z: torch.nn.functional.softplus(z))),
        "wrong sign of the undesirable": sub(Keeping, lowers=(), raises=("desirable", "undesirable")),
        "wrong sign of a reward": sub(Reading, raises=("rejected",), lowers=("chosen",)),
        "no such role": sub(Sound, raises=("chosenn",)),
        "never pulled": sub(Keeping, raises=("desirable", "other")),
        "best of a list": sub(Listing, lowers=("best",)),
    },
    "value at reference": {
        "wrong": sub(Sound, value_at_reference=lambda self, batch: 1.0),
        "wrong with other settings": sub(Sound, value_at_reference=lambda self, batch: 0.6931471805599453),
    },
    "gradient stays": {
        "into the reference": with_loss(Sound, _lets_gradient_in),
        "into what is only scored": with_loss(Keeping, _counts_what_is_scored),
    },
    "every token": {
        "first token dropped": with_loss(Sound, tokens(lambda batch, policy: policy.logps[:, 1:].sum(-1)), **FREE),
        "last token dropped": with_loss(
            Sound,
            tokens(
                lambda b, p: p.logps.masked_fill(torch.arange(b.ids.shape[1]) >= b.lengths[:, None] - 1, 0.0).sum(-1)
            ),
            **FREE,
        ),
    },
    "padding": {
        "padding counted": with_loss(Sound, tokens(lambda batch, policy: policy.logps.mean(-1)), **FREE),
        "last column": with_loss(Sound, tokens(lambda batch, policy: policy.sum() + policy.logps[:, -1]), **FREE),
    },
    "prompts": {
        "tokens of the prompt counted": with_loss(
            Sound, tokens(lambda b, p: p.sum() / torch.tensor([len(b.groups[g].prompt_ids) for g in b.group])), **FREE
        ),
    },
    "processes": {
        "state of one": sub(Keeping, loss=_loss_of_one),
    },
    "row order": {
        "by place": with_loss(Sound, only(lambda batch, z: -z * torch.arange(1.0, len(z) + 1)), **PLAIN),
    },
    "batch split": {
        "mean of means": with_loss(Sound, only(lambda batch, z: -z / len(z)), **PLAIN),
        "mean over the tokens of a micro-batch": with_loss(Sound, _token_mean_of_the_micro_batch, **PLAIN),
        "undeclared statistic": with_loss(Sound, only(lambda batch, z: -(z - z.mean()).abs()), **PLAIN),
        "mean of means with a statistic": with_loss(Keeping, _mean_of_means_with_a_statistic),
    },
    "experience": {
        "of all samples": sub(Sampling, experience=_compares_everything, needs=Needs(samples=3)),
    },
    "layout": {
        "hidden states": with_loss(Sound, _looks_into_states, **{**PLAIN, "needs": Needs(vocabulary=True)}),
    },
    "extremes": {
        "log of sigmoid": with_loss(Sound, only(_logit), **PLAIN),
        "log of 1 - exp": with_loss(Sound, tokens(_odds), **FREE),
        "branch not taken": with_loss(Sound, only(_branch_not_taken), **PLAIN),
        "ratio to the reference": with_loss(Sound, only(lambda batch, z: torch.exp(-100 * z)), **PLAIN),
    },
    "precision": {
        "half": with_loss(Sound, only(lambda batch, z: -z.half().double()), **PLAIN),
        "brain": with_loss(Sound, only(lambda batch, z: -z.to(torch.bfloat16).double()), **PLAIN),
    },
    "settings": {
        "ignored": sub(Sound, losses=lambda self, margins: torch.nn.functional.softplus(-self.config.beta * margins)),
        "ignored choice": with_loss(Sound, lambda *args: Loss(Sound.loss(*args).terms[:1])),
        "never another value": sub(Keeping, Config=Stubborn),
    },
    "state": {
        "lost": sub(Keeping, state_dict=lambda self: {}, load_state_dict=lambda self, state: None),
        "not taken up": sub(Keeping, load_state_dict=lambda self, state: None),
        "no JSON": sub(Keeping, state_dict=lambda self: {"shift": torch.tensor(self.shift)}),
        "moved by an evaluation": sub(Keeping, observe=_always),
    },
    "purity": {
        "writes into the reference": with_loss(Sound, _writes_into_reference),
        "adds a column": with_loss(Sound, _adds_a_column),
        "changes groups": with_loss(Sound, _changes_groups),
        "random": with_loss(Sound, _random),
    },
    "collate": {
        "another order": sub(Sound, collate=_reversed),
        "fewer": sub(Sound, collate=lambda self, groups: list(groups)[1:]),
        "by state": sub(Sound, collate=_counting),
        "random": sub(Sound, collate=_drawing),
    },
    "metrics": {
        "undocumented": with_loss(Sound, _logged("more", lambda margins: margins)),
        "never logged": sub(Sound, metrics={**Sound.metrics, "ghost": "nothing"}),
        "two dimensions": with_loss(Sound, _logged("margin", lambda margins: margins[:, None])),
        "a float": with_loss(Sound, _logged("margin", lambda margins: float(margins.detach().mean()))),
        "not finite": with_loss(Sound, _logged("margin", lambda margins: margins / 0.0)),
    },
}


def test_every_check_has_something_that_it_finds() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.parametrize(
    ("check", "case"), [(check, case) for check, cases in BROKEN.items() for case in cases], ids=str
)
def test_what_is_broken_is_found(check: str, case: str) -> None:
    first = FIRST[: FIRST.index(check)] if check in FIRST else FIRST
    subject = Subject(BROKEN[check][case])
    assert [outcome(name, CHECKS[name], subject).verdict != "fail" for name in first] == [True] * len(first)
    found = outcome(check, CHECKS[check], subject)
    assert found.verdict == "fail"
    assert found.reason.strip()
    assert "\n" not in found.reason


def test_messages_say_what_to_do() -> None:
    def reason(check: str, case: str) -> str:
        return outcome(check, CHECKS[check], Subject(BROKEN[check][case])).reason

    assert "set needs = Needs(reference=True)" in reason("needs", "reference not declared")
    assert "the setting 'label_smoothing' changes nothing (tried" in reason("settings", "ignored")
    assert "ZeroDivisionError: division by zero (test_check.py, line" in reason("finite loss", "raises")
    assert "gradient descent makes a completion 'chosen' less likely" in reason("direction", "wrong sign")
    assert "explain it in `metrics`" in reason("metrics", "undocumented")


def test_nothing_is_looked_at_after_a_loss_that_fails() -> None:
    report = check_algorithm(BROKEN["finite loss"]["raises"])
    assert [one.name for one in report.crosses] == ["finite loss"]
    assert all(one.verdict == "n/a" for one in report.checks[4:])


def test_a_statistic_of_the_micro_batch_is_declared_and_no_fault() -> None:
    remark = next(one.reason for one in check_algorithm(Keeping).checks if one.name == "batch split")
    assert "its statistic is that of the micro-batch, as Needs(least=2) declares" in remark


def test_the_page_explains_every_check() -> None:
    page = (ROOT / "docs" / "check.md").read_text("utf-8")
    page = page.partition("## What the checks mean")[2].partition("\n## ")[0]
    explained = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert explained == ["check", *CHECKS, VECTORS]


class Level(Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Various(Config):
    flag: bool = option(True, "x")
    count: int = option(2, "x")
    rate: float | None = option(None, "x")
    choice: str = option("one", "x")
    named: str = option("free", "text such as 'this' or 'that'")
    kind: Literal["a", "b", "c"] = option("a", "x")
    level: Level = option(Level.LOW, "x")  # noqa: RUF009 - a field, as of the others
    bounds: tuple[float, float] | None = option((0.0, 4.0), "x")

    def __post_init__(self) -> None:
        self.require(
            self.choice in ("one", "two", "three"), f"choice must be one of one, two, three, not {self.choice}"
        )
        self.require(self.count > 0, "count must be positive")


def test_other_values_of_a_setting_are_legal_and_ordinary() -> None:
    found = {name: list(alternatives(Various, name)) for name in Various.__dataclass_fields__}
    assert found["flag"] == [False]
    assert found["count"] == [3, 1, 4, 5, 10]
    assert found["rate"][:3] == [0.0, 0.1, 0.25]
    assert found["choice"] == ["two", "three"]
    assert found["named"] == ["this", "that", "?"]
    assert found["kind"] == ["b", "c"]
    assert found["level"] == [Level.HIGH]
    assert found["bounds"] == [(0.0, 8.0), (0.0, 2.0), (-0.5, 0.5), (0.25, 0.75), (0.0, 0.1), None]
    assert list(alternatives(Various, "count", {"count": 3})) == [4, 2, 6, 1, 5, 10]


def test_a_report_as_an_assertion() -> None:
    report: Report = check_algorithm(BROKEN["value at reference"]["wrong"])
    assert not report.ok
    with pytest.raises(AssertionError, match=r"'sound' fails 1 of 26 checks:\n  value at reference: .* says 1, but"):
        report.require()
    assert report.as_json()["ok"] is False
    json.dumps(report.as_json())


CASE: dict[str, Any] = {
    "id": "one",
    "loss": "sound",
    "kind": "loss",
    "hyper": {"beta": 1.0},
    "policy": {"chosen": [[-1.0, -1.0]], "rejected": [[-2.0]]},
    "data": {"ref_chosen": [[-1.0, -1.0]], "ref_rejected": [[-2.0]]},
    "expected": {
        "loss": 0.6931471805599453,
        "grad": {"chosen": [[-0.5, -0.5]], "rejected": [[0.5]]},
        "metrics": {"margin": 0.0},
    },
}
Claiming = sub(Sound, golden={"sound": {}}, functions={"double": lambda x: {"y": 2 * x}})


def vectors(*cases: Mapping[str, Any]) -> tuple[str, str]:
    found = outcome(VECTORS, lambda subject: against(subject, cases), Subject(Claiming))
    return found.verdict, found.reason


def test_vectors() -> None:
    function = {"loss": "double", "kind": "function", "data": {"x": 2.0}, "expected": {"outputs": {"y": 4.0}}}
    assert vectors(CASE, function, {"loss": "another", "expected": {}}) == ("pass", "2 cases")
    assert vectors({"loss": "another", "expected": {}})[0] == "n/a"
    other = {**CASE, "expected": {**CASE["expected"], "loss": 0.7}}
    assert vectors(other) == ("fail", "one in float64: the loss is 0.69314718056, expected 0.7")
    other = {**CASE, "expected": {**CASE["expected"], "grad": {"chosen": [[-0.5, -0.4]], "rejected": [[0.5]]}}}
    assert "the gradient of chosen is not as expected" in vectors(other)[1]
    other = {**CASE, "expected": {**CASE["expected"], "metrics": {"margin": 1.0}}}
    assert "the metric margin is 0, expected 1" in vectors(other)[1]
    assert "y is 4.0, expected 5.0" in vectors({**function, "expected": {"outputs": {"y": 5.0}}})[1]


def test_vectors_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    for content in ({"cases": [CASE]}, [CASE]):
        path.write_text(json.dumps(content))
        assert read_cases(path) == [CASE]
    assert check_algorithm(Claiming, path).checks[-1].verdict == "pass"
    for content in ({"case": 1}, [1], 3):
        path.write_text(json.dumps(content))
        with pytest.raises(PluginError, match="holds no test vectors"):
            read_cases(path)
    with pytest.raises(PluginError, match="cannot be read"):
        check_algorithm(Claiming, tmp_path / "nothing.json")


def test_the_process_is_left_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    number = random.getstate()
    check_algorithm(Sampling)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == number
