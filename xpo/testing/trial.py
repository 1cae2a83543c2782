"""A step of an algorithm on made-up data, run as the loop does: collate, experience, loss, the loop's own reduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Reduce
from xpo.api.groups import Group
from xpo.api.loss import Counts, as_loss, counts, reduce
from xpo.testing.altered import doubled, turned
from xpo.testing.fabricate import parts, sampled, step
from xpo.testing.inputs import changed_of, versions
from xpo.testing.moods import Who
from xpo.testing.outcome import Outcome, joined
from xpo.testing.speech import Speech, speak

#: How the tokens of a completion come twice: see ``Situation``.
Twice = Literal["", "repeat", "split"]


@dataclass(frozen=True)
class Situation:
    """What an algorithm is tried on.

    Attributes:
        mood: what the models say: a key of ``MOODS``.
        seed: another step of data.
        columns: the data has the optional columns.
        reused: rollouts were sampled by a policy that has moved since, and its log-probs are on record.
        dtype: what the models compute in.
        reference_seed, value_seed: let the reference, or the value model, say something else.
        turned: the feedback is the other way round: see ``altered.turned``.
        twice: every token of a completion comes twice in a row, each as likely as the one ("repeat"), so that averages
            stay, or each with half its log-probability ("split"), so that sums stay.
        policy_lift, reference_lift: added to their log-probabilities of every token, times a factor of the completion.
        lifted: the role of the completions for which that holds; None for all.
    """

    mood: str = "near"
    seed: int = 0
    columns: bool = False
    reused: bool = False
    dtype: torch.dtype = torch.float64
    reference_seed: int | None = None
    value_seed: int | None = None
    turned: bool = False
    twice: Twice = ""
    policy_lift: float = 0.0
    reference_lift: float = 0.0
    lifted: str | None = None

    def batch(self, groups: Sequence[Group], **more: Any) -> Batch:
        """A batch as the loop makes it: numbers of the data are in float32 at least."""
        return Batch.of(groups, dtype=torch.float32 if self.dtype == torch.bfloat16 else self.dtype, **more)

    def hear(self, who: Who, batch: Batch, algorithm: Algorithm[Any], *, gradient: bool = False) -> Speech | None:
        """What a model says; None for a reference that was not asked for."""
        if who == "reference" and not algorithm.needs.reference:
            return None
        return speak(
            batch,
            algorithm.needs,
            who,
            mood=self.mood,
            seed=self.reference_seed if who == "reference" and self.reference_seed is not None else self.seed,
            value_seed=self.value_seed,
            twice=self.twice,
            lift=self.reference_lift if who == "reference" else self.policy_lift,
            lifted=self.lifted,
            dtype=self.dtype,
            reward=algorithm.model != "policy" and who != "reference",
            gradient=gradient,
        )


def prepared(algorithm: Algorithm[Any], situation: Situation, rows: Sequence[Group] | None = None) -> list[Group]:
    """A step's groups as the loss meets them: collated, and of rollouts with completions and experience."""
    made = list(algorithm.collate(rows_of(algorithm, situation) if rows is None else rows))
    if algorithm.data == "rollouts":
        made = sampled(made, algorithm.needs, situation.seed)
        made = turned(made, algorithm) if situation.turned else made
        attach(made, experience(algorithm, made, situation))
        made = doubled(made) if situation.twice else made  # what was learned of the samples stays as it is
        if situation.reused:
            old = situation.hear("old", situation.batch(made), algorithm)
            assert old is not None
            attach(made, {"old_logps": old.scores.logps})
    return made


def rows_of(algorithm: Algorithm[Any], situation: Situation) -> list[Group]:
    """A step's groups as ``collate`` meets them."""
    made = step(algorithm, situation.seed, columns=situation.columns)
    if algorithm.data == "rollouts":  # there is no feedback yet, and no completion
        return made
    made = turned(made, algorithm) if situation.turned else made
    return doubled(made) if situation.twice else made


def experience(
    algorithm: Algorithm[Any],
    groups: Sequence[Group],
    situation: Situation,
    reduce: Reduce | None = None,
    changed: list[str] | None = None,
) -> dict[str, Tensor]:
    """What the algorithm makes of samples once, by name.

    Args:
        reduce: sums over processes.
        changed: gets the names of what the algorithm writes into.
    """
    batch = situation.batch(groups, **({} if reduce is None else {"reduce": reduce}))
    policy = situation.hear("old" if situation.reused else "policy", batch, algorithm)
    reference = situation.hear("reference", batch, algorithm)
    assert policy is not None
    # The loop keeps no distributions of what it sampled.
    bare = replace(policy.scores, distributions=None)
    before = versions(batch, policy, reference)
    made = dict(algorithm.experience(batch, bare, None if reference is None else reference.scores))
    if changed is not None:
        changed += changed_of(before, batch, policy, reference)
    return made


def attach(groups: Sequence[Group], columns: Mapping[str, Tensor]) -> None:
    """Write (C,) and (C, T) numbers onto the completions, as the loop does."""
    completions = [one for group in groups for one in group.completions]
    for name, values in columns.items():
        for one, value in zip(completions, values.tolist(), strict=True):
            one.columns[name] = value[: len(one.ids)] if isinstance(value, list) else value


def trial(
    algorithm: Algorithm[Any],
    groups: Sequence[Group],
    situation: Situation,
    *,
    totals: Counts | None = None,
    wider: int = 0,
    longer: int = 0,
    shared: Reduce | None = None,
    gradient: bool = True,
    anchored: bool = False,
    idle: bool = False,
) -> Outcome:
    """Run a micro-batch.

    Args:
        totals: counts of the whole step; those of the groups by default.
        wider: columns of padding beyond those the groups need.
        longer: tokens by which the loss sees every prompt to be longer than the models did.
        shared: sums a tensor over processes.
        gradient: False for an evaluation.
        anchored: ask for the gradient with respect to the reference too, which nothing else does.
        idle: as a stand-in that must not count.
    """
    shares = {} if shared is None else {"reduce": shared}
    batch = _wider(situation.batch(groups, idle=idle, **shares), wider)
    policy = situation.hear("policy", batch, algorithm, gradient=gradient)
    reference = situation.hear("reference", batch, algorithm, gradient=anchored)
    assert policy is not None
    if longer:
        groups = [replace(group, prompt_ids=[*longer * [0], *group.prompt_ids]) for group in groups]
        batch = replace(batch, groups=groups, _parts={})
    before = versions(batch, policy, reference)
    with torch.set_grad_enabled(gradient):
        returned = as_loss(algorithm.loss(batch, policy.scores, None if reference is None else reference.scores))
        value, _ = reduce(returned, batch, counts(batch) if totals is None else totals)
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward() untyped
    changed = changed_of(before, batch, policy, reference)
    return Outcome(float(value.detach()), returned, batch, policy, reference, changed)


def step_of(algorithm: Algorithm[Any], situation: Situation, sizes: Sequence[int]) -> Outcome:
    """A whole step in micro-batches of so many rows each, one after the other."""
    micros = list(parts(algorithm, prepared(algorithm, situation), sizes))
    totals: Counts = {}
    for micro in micros:
        for key, count in counts(Batch.of(micro)).items():
            totals[key] = totals.get(key, 0.0) + count
    return joined([trial(algorithm, micro, situation, totals=totals) for micro in micros])


def _wider(batch: Batch, by: int) -> Batch:
    if not by:
        return batch
    columns = {name: pad(values, (0, by)) if values.dim() == 2 else values for name, values in batch.columns.items()}
    return replace(batch, ids=pad(batch.ids, (0, by)), mask=pad(batch.mask, (0, by)), columns=columns, _parts={})
