"""The check that the reference is read as a reference: of every completion, and against the policy.

A log-ratio is log pi - log ref, so whatever a loss makes of it, it stays where both rise by as much, and moves where
one rises and the other falls. A loss that adds the two does the opposite. Where the reference comes in by the reward of
samples, a sample that the reference finds likelier must not be pulled down for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xpo.testing.feedback import share_of
from xpo.testing.outcome import difference
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import APART, NEAR, Subject, listed
from xpo.testing.trial import Situation, prepared, trial

#: Added to log-probabilities, a token, times about one. They stay below 0.
LIFT = -0.2
#: Smaller changes, relative to what they are changes of, are rounding.
ROUNDING = 1e-9
#: A change is that of a sum where it is so much smaller than the other.
SHARE = 1e-6


def reference(subject: Subject) -> str:
    """The reference of every completion counts, and is subtracted from the policy."""
    asked = subject.make().needs
    if not asked.reference:
        raise NotApplicable("there is no reference")
    if asked.vocabulary or asked.reference_vocabulary:
        raise NotApplicable("full distributions are not lifted one by one")
    roles = sorted(
        {one.role for group in subject.once(NEAR).batch.groups for one in group.completions if one.referenced}
    )
    for role in roles:
        if not _counts(subject, role):
            raise Cross(
                f"the reference is dropped for completions {listed([role])}: nothing depends on what it says of them; "
                "subtract it there too, or mark them referenced=False in collate"
            )
        if _adds(subject, role):
            raise Cross(
                f"the reference is read with the wrong sign in completions {listed([role])}: the loss depends on "
                "log pi + log ref, where a log-ratio is log pi - log ref; subtract policy and reference"
            )
        if _one_averaged(subject, role):
            raise Cross(
                f"in completions {listed([role])} one of policy and reference is averaged over tokens and the other "
                "added up, so that their difference is no log-ratio: take sum() of both, or mean() of both"
            )
    if subject.rollouts and not _steers(subject):
        raise Cross(
            "the reference changes the loss and not its gradient, so that nothing holds the policy to it: the gradient "
            "of log pi - log ref is that of log pi alone; take that off the reward, or add (d.exp() - d - 1) with "
            "d = log ref - log pi to the loss, whose gradient knows the reference"
        )
    if subject.rollouts and _through(subject):
        raise Cross(
            "gradient goes through a reward: the loss has log pi times a reward that is made of log pi - log ref, and "
            "follows both; detach what is made of rewards, or make it in experience"
        )
    if subject.rollouts and _drives_away(subject) and (share_of(subject, {}) or 0.0) >= 0:
        raise Cross(
            "the reference is read with the wrong sign: samples that it finds likelier are pulled down for it, so "
            "that the policy is driven away from the reference; a KL comes off the reward, or is added to the loss"
        )
    return f"of {listed(roles)}"


def _counts(subject: Subject, role: str) -> bool:
    """Whether anything depends on what the reference says of the completions of a role, with some settings."""
    for settings in subject.variations():
        for situation in subject.situations:
            plain = subject.tried(situation, settings)
            other = subject.tried(replace(situation, reference_lift=LIFT, lifted=role), settings)
            if plain is not None and other is not None and difference(plain, other) > 0:
                return True
    return False


def _adds(subject: Subject, role: str) -> bool:
    """Whether the gradient of the reference stays where policy and reference move against each other, and only there.

    Where it moves in neither case the loss is linear in both, and the two gradients themselves tell.
    """
    base, joint, against = (
        _slopes(subject, replace(NEAR, policy_lift=policy * LIFT, reference_lift=anchor * LIFT, lifted=role))
        for policy, anchor in ((2, 2), (3, 3), (3, 1))
    )
    largest = float(base.reference.abs().max()) if base.reference.numel() else 0.0
    if not largest:
        return False
    with_it, against_it = (float((one.reference - base.reference).abs().max()) for one in (joint, against))
    if max(with_it, against_it) > ROUNDING * largest:
        return against_it <= SHARE * with_it
    return bool(torch.allclose(base.reference, base.policy, rtol=SHARE, atol=0.0))


def _steers(subject: Subject) -> bool:
    """Whether gradients depend on what the reference says, with some settings."""
    for settings in subject.variations():
        for situation in subject.situations:
            plain = subject.tried(situation, settings)
            other = subject.tried(replace(situation, reference_lift=LIFT), settings)
            if plain is not None and other is not None and _apart(plain.gradient, other.gradient) > ROUNDING:
                return True
    return False


def _apart(one: dict[Any, Tensor], other: dict[Any, Tensor]) -> float:
    """How far two gradients are apart, relative to the largest slope."""
    largest = max((float(slopes.abs().max()) for slopes in one.values() if slopes.numel()), default=0.0)
    moved = max((float((one[key] - other[key]).abs().max()) for key in one if one[key].numel()), default=0.0)
    return moved / largest if largest else moved


def _through(subject: Subject) -> bool:
    """Whether the loss is a product of log pi and a log-ratio that carries gradient.

    Its slopes of both models then move where both rise by as much, though the log-ratio stays.
    """
    one, other = (
        _slopes(subject, replace(NEAR, policy_lift=lift, reference_lift=lift, lifted=None))
        for lift in (2 * LIFT, 3 * LIFT)
    )
    return all(
        float((new - old).abs().max()) > SHARE * float(old.abs().max()) > 0
        for old, new in ((one.policy, other.policy), (one.reference, other.reference))
    )


def _one_averaged(subject: Subject, role: str) -> bool:
    """Whether the slope of one model is that of the other times, or divided by, the length, in every completion."""
    found = _slopes(subject, replace(NEAR, lifted=role))
    policy, reference = found.policy.sum(-1), found.reference.sum(-1)
    read = (policy != 0) & (reference != 0)
    shares, lengths = -reference[read] / policy[read], found.lengths[read].to(policy.dtype)
    return len(set(lengths.tolist())) > 1 and any(
        bool(torch.allclose(shares, lengths**power, rtol=SHARE)) for power in (1, -1)
    )


@dataclass(frozen=True)
class _Slopes:
    """Gradients of the loss with respect to what two models say of the completions of a role.

    Attributes:
        policy, reference: (n, T) each.
        lengths: (n,) tokens.
    """

    policy: Tensor
    reference: Tensor
    lengths: Tensor


def _slopes(subject: Subject, situation: Situation) -> _Slopes:
    algorithm = subject.make()
    outcome = trial(algorithm, prepared(algorithm, situation), situation, anchored=True)
    assert outcome.reference is not None
    own = slice(None) if situation.lifted is None else outcome.batch.where(situation.lifted)
    found = []
    for speech in (outcome.policy, outcome.reference):
        leaf = speech.leaves["logps"]
        found.append((torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)[own])
    return _Slopes(found[0], found[1], outcome.batch.lengths[own])


def _drives_away(subject: Subject) -> bool:
    """Whether samples that the reference finds likelier than others are pulled down for it.

    Advantages are often centred, so what counts is how much a sample is moved more than the mean of all.
    """
    together = 0.0
    for situation in (NEAR, APART):
        plain, other = subject.once(situation), subject.once(replace(situation, reference_lift=LIFT))
        assert plain.reference is not None
        assert other.reference is not None
        lost = (plain.reference.scores.mean() - other.reference.scores.mean()).detach()
        moved = torch.stack([(plain.pull[place] - other.pull[place]).mean() for place in plain.pull])
        together += float((lost - lost.mean()) @ moved)
    return together < 0
