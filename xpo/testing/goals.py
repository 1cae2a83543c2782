"""What completions of some roles are there for: to be forgotten, retained or demonstrated, whatever else there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xpo.testing.outcome import Outcome, Place
from xpo.testing.report import Cross
from xpo.testing.subject import APART, NEAR, Subject
from xpo.testing.trial import Situation

#: Role -> 1 where its completions are to become likelier, -1 where less likely.
GOALS = {"forget": -1.0, "retain": 1.0}
#: Smaller pulls, relative to the largest, are rounding.
ROUNDING = 1e-9


def goals(subject: Subject) -> str:
    """Of data where each completion is there for one thing: that they are pulled that way, all together."""
    wanted = GOALS if subject.cls.data == "forget" else {"completion": 1.0}
    outcomes = [subject.once(situation) for situation in (NEAR, APART)]
    pulled, equal = _by_role(outcomes), _by_role([subject.once(Situation("equal", 5))])
    told = []
    for role, goal in wanted.items():
        likelier = "likelier" if goal > 0 else "less likely"
        if subject.make().needs.reference and not equal.get(role):
            # Nothing is pulled from where it started, so that it is held there: by a KL to the reference, say.
            if pulled.get(role) and _towards_reference(outcomes, role) < 0:
                raise Cross(
                    f"gradient descent drives completions '{role}' away from the reference, where they started: the "
                    "sign of what holds them there is flipped; turn it round"
                )
            likelier = "held where the reference is" if pulled.get(role) else likelier
        elif goal * sum(pulled.get(role, [])) < 0:
            done = "less likely" if goal > 0 else "likelier"
            mixed = "" if goal < 0 else ", or what is for completions 'forget' is done to them too: see batch.where"
            raise Cross(
                f"gradient descent makes completions '{role}' {done}: the sign of the loss is flipped{mixed}; turn it "
                "round"
            )
        told.append(f"{role}: {likelier}")
    return ", ".join(told)


def _by_role(outcomes: Iterable[Outcome]) -> dict[str, list[float]]:
    """What gradient descent does to each completion that it does anything to, by role."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        for role, place in _places(outcome):
            pull = float(outcome.pull[place].sum())
            if abs(pull) > ROUNDING * outcome.largest > 0:
                found.setdefault(role, []).append(pull)
    return found


def _towards_reference(outcomes: Iterable[Outcome], role: str) -> float:
    """How much of what is pulled goes from what the policy says to what the reference says; below 0 it goes away."""
    towards = 0.0
    for outcome in outcomes:
        assert outcome.reference is not None
        away = (outcome.reference.scores.sum() - outcome.policy.scores.sum()).tolist()
        for number, (own, place) in enumerate(_places(outcome)):
            towards += float(outcome.pull[place].sum()) * away[number] * (own == role)
    return towards


def _places(outcome: Outcome) -> Iterator[tuple[str, Place]]:
    """Role and place of every completion, in the order of the batch."""
    for group in outcome.batch.groups:
        for place, one in enumerate(group.completions):
            yield one.role, (group.row, place)
