"""Checks that a loss has a gradient where it belongs, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xpo.api.groups import Group
from xpo.testing.outcome import Place
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import NEAR, Subject, listed, spelt
from xpo.testing.trial import Situation

#: How a gradient gets lost.
_CUT = "look for a detach(), an item() or a torch.no_grad() too many"
#: What some completions of a list are called: those a method may have forgotten.
_MIDDLE, _LATER = "neither the best nor the worst", "neither the first nor the second"
_LABELS = ("undesirable", "desirable")


def gradient(subject: Subject) -> str:
    """The loss has a gradient with respect to the policy, in completions of every role that is trained."""
    pulled: dict[str, bool] = {}
    for situation in subject.situations:
        outcome = subject.once(situation)
        for place, name in _trained(outcome.batch.groups, subject.cls.data):
            pulled[name] = pulled.get(name, False) or bool(outcome.pull[place].any())
    missing = sorted(name for name, found in pulled.items() if not found)
    if not any(pulled.values()):
        raise Cross(f"the loss has no gradient: {_nothing(subject)}")
    if unread := sorted(set(missing) & set(_LABELS)):
        raise Cross(
            f"{unread[0]} completions get no gradient, though they are computed at every step: the loss multiplies "
            "them by 0, or passes them over; learn from them, or leave them out in collate"
        )
    if _LATER in missing:
        raise Cross(
            f"of a list only two completions count: those that are {_LATER} in it get no gradient; learn from all, or "
            "leave the others out in collate, so that they are not computed"
        )
    if missing and missing != [_MIDDLE]:
        raise Cross(
            f"completions {listed(missing)} get no gradient, though they are trained; {_CUT}, or mark them "
            "trainable=False in collate if they are only to be scored"
        )
    into = f"into {listed(pulled.keys() - {_MIDDLE, _LATER, *_LABELS})}"
    # The best against the worst is a method of its own, if a dear one.
    return f"{into}; not into those that are {_MIDDLE}, which collate could leave out" if missing else into


def _trained(groups: Sequence[Group], data: str) -> Iterator[tuple[Place, str]]:
    """Trained completions by what they are: their role, their label, and the places of a list that are forgotten."""
    for group in groups:
        scores = [one.score for one in group.completions if one.score is not None]
        for place, one in enumerate(group.completions):
            if one.trainable:
                yield (group.row, place), one.role
                if data == "labels" and one.label is not None:
                    yield (group.row, place), _LABELS[one.label]
                if data == "lists" and place > 1:
                    yield (group.row, place), _LATER
                if data == "lists" and one.score is not None and min(scores) < one.score < max(scores):
                    yield (group.row, place), _MIDDLE


def _nothing(subject: Subject) -> str:
    kinds = {str(term.values.dtype).removeprefix("torch.") for term in subject.once(NEAR).returned.terms}
    whole = [kind for kind in sorted(kinds) if "int" in kind or kind == "bool"]
    if whole:
        return f"its values are {whole[0]}, and counts and comparisons have none; return what they are made of"
    for settings in subject.variations():
        outcome = subject.tried(NEAR, settings)
        if outcome is not None and outcome.largest:
            return f"there is one{spelt(settings)}; give that setting another default"
    return f"nothing that it returns depends on what the policy says; {_CUT}"


def gradient_stays(subject: Subject) -> str:
    """Gradient goes into trained completions and nowhere else: not the reference, not what is only scored."""
    held = {"the reference": subject.make().needs.reference}
    for situation in subject.situations:
        outcome = subject.once(situation)
        if outcome.reference is not None and outcome.reference.scores.logps.requires_grad:
            raise Cross("it lets gradient into the reference, which is frozen; take its numbers as they come")
        trained = outcome.batch.trainable.tolist()
        scored = {role for role, own in zip(outcome.batch.roles, trained, strict=True) if not own}
        held |= {f"completions '{role}'": True for role in scored}
        for term in outcome.returned.terms:
            roles = {term.over} if isinstance(term.over, str) else set(term.over or ())
            if roles & scored:
                raise Cross(
                    f"the term '{term.name}' is a mean over completions {listed(roles & scored)}, which are not "
                    "trainable; let it be one over those that are trained"
                )
    if not any(held.values()):
        raise NotApplicable("there is no reference, and every completion is trained")
    return f"not into {', '.join(name for name, there in held.items() if there)}"


def every_token(subject: Subject) -> str:
    """The first and the last token of a completion matter as those between them do, and so do those with the id 0."""
    if subject.cls.model != "policy":
        raise NotApplicable("a reward model reads one number of a completion")
    first = last = nought = 0.0
    for situation in (*subject.situations, Situation(seed=2)):
        outcome = subject.once(situation)
        for group in outcome.batch.groups:
            for number, one in enumerate(group.completions):
                pull = outcome.pull[group.row, number].abs()
                if len(pull) > 2:
                    first, last = max(first, float(pull[0])), max(last, float(pull[-1]))
                zeros = [float(own) for own, token in zip(pull, one.ids, strict=True) if not token]
                nought = max([nought, *zeros])
    for place, found in (("first", first), ("last", last)):
        if not found:
            raise Cross(
                f"the {place} token of a completion never gets a gradient; logps[:, 0] is the first token of the "
                "completion itself, and its mask ends with its last, so nothing is to be shifted"
            )
    if not nought:
        raise Cross(
            "tokens with the id 0 never get a gradient, as if they were padding; batch.mask says which are real, "
            "an id does not"
        )
    return "first, last, and those with the id 0"
