"""What breaks each check of the kit: methods with one fault each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tests.testing.toys import Keeping, KeepingConfig, Listing, Reading, Sampling, Sound, SoundConfig
from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Scores, Term, option

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
        return Loss([Term(values(batch, self.config.beta * margins), level)])  # type: ignore[arg-type]  # a level by its name

    return loss


def tokens(values: Callable[[Batch, Scores], torch.Tensor]) -> Loses:
    """A loss with one term made of a number a completion; chosen minus rejected."""

    def loss(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        chosen, rejected = batch.pairs(values(batch, policy))
        return Loss([Term(self.losses(chosen - rejected), "pair")])

    return loss


PLAIN: dict[str, Any] = {"metrics": {}, "value_at_reference": lambda self, batch: None}
FREE: dict[str, Any] = {**PLAIN, "needs": Needs()}


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
        "no algorithm at all": dict,  # type: ignore[dict-item]  # the mistake
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
