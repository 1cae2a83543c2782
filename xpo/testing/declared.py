"""Checks of what a class declares: its settings, what it needs, its metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from xpo.errors import DataError
from xpo.plugins.contract import problem, reserved
from xpo.testing.altered import rescored
from xpo.testing.defaults import wrong_default
from xpo.testing.fabricate import step
from xpo.testing.outcome import difference
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import APART, NEAR, Subject, listed, spelt
from xpo.testing.trial import Situation, prepared, rows_of, trial

#: How an equation names the reference.
_REFERENCE = re.compile(r"\bref\b|\breference\b|\bpi_?ref|π_?ref|π_?0\b", re.IGNORECASE)
#: What is said of something that is declared and not used, where there is more to say than to drop it.
_UNUSED = {
    "reference": "the reference is declared but changes nothing: subtract its log-probabilities where the equation has "
    "them, or drop Needs(reference=True), which has them computed at every step",
    "scores": "the scores are declared but change nothing: read batch.scores, or drop Needs(scores=True)",
}
#: What an algorithm may ask for, as it is written.
ASKED = ("reference", "vocabulary", "reference_vocabulary", "values", "scores")


def declaration(subject: Subject) -> None:
    """The class has what xpo shows and checks before a run, and every setting is documented."""
    cls = subject.cls
    if reason := problem(cls):
        raise Cross(reason)
    settings = {item.name: item.metadata.get("help", "") for item in fields(cls.Config)}
    for name, told in settings.items():
        if not told.strip():
            raise Cross(f"the setting '{name}' is not documented; write {name} = option(default, 'what it does')")
        if reason := wrong_default(cls.Config, name):
            raise Cross(reason)
    for alias, name in cls.aliases.items():
        if name not in settings:
            raise Cross(f"the alias '{alias}' stands for '{name}', which is no setting; it has {listed(settings)}")
        if alias in settings:
            raise Cross(f"the alias '{alias}' is also the name of a setting; drop the alias")
    for name in (*cls.training, *cls.lora_training):
        if name not in reserved(True):
            raise Cross(f"it recommends a '{name}', which is no training argument; correct the name")
    for name, meaning in cls.metrics.items():
        if not meaning.strip():
            raise Cross(f"the metric '{name}' is not explained; say in `metrics` what it is")
    for case, renames in cls.golden.items():
        for name in renames:
            if name.startswith("=") and name[1:] not in settings:
                raise Cross(f"golden['{case}'] fixes '{name[1:]}', which is no setting; it has {listed(settings)}")
    if subject.make().needs != cls.needs:
        raise Cross(
            f"the class declares {cls.needs}, but with default settings it asks for {subject.make().needs}; declare on "
            "the class what the defaults need"
        )


def needs(subject: Subject) -> str:
    """It uses everything it declares in ``needs``, and nothing else."""
    declared = subject.make().needs
    if (reason := _failure(subject)) is not None:
        for name in ASKED:
            if not getattr(declared, name) and _failure(subject, **{name: True}) is None:
                raise Cross(f"it uses what it does not declare; set needs = Needs({name}=True)")
        raise NotApplicable(f"the loss fails whatever it is given: {reason}")
    asked = [name for name in ASKED if getattr(declared, name)]
    for name in asked:
        using = next((settings for settings in subject.variations() if _uses(subject, name, settings)), None)
        if using is None:
            unused = (
                f"it declares Needs({name}=True), but nothing depends on it; what is declared is computed at every "
            )
            raise Cross(_UNUSED.get(name, f"{unused}step, so drop it"))
        if using:
            raise Cross(
                f"with default settings nothing depends on what Needs({name}=True) asks for, and{spelt(using)} "
                "something does: give that setting another default, or set self.needs in __init__ by the settings"
            )
    for name in subject.cls.columns:
        if not _reads(subject, name):
            raise Cross(
                f"the column '{name}' is declared but changes nothing: read batch.columns or batch.group_columns, and "
                "let collate carry it on, or drop it from `columns`"
            )
    if not declared.reference and (found := _REFERENCE.search(subject.cls.equation)):
        raise Cross(
            f"the reference is dropped: the equation has '{found.group()}' in it, but the class does not ask for one; "
            "set needs = Needs(reference=True) and subtract what it says, or correct the equation"
        )
    return f"uses {', '.join(asked)}" if asked else "needs nothing but what it trains"


def _failure(subject: Subject, **granted: Any) -> str | None:
    """Why there is no loss when more is granted than is declared; None when there is one."""
    try:
        algorithm = subject.make()
        algorithm.needs = replace(algorithm.needs, **granted)
        value = trial(algorithm, prepared(algorithm, NEAR), NEAR).loss
    except Exception as error:  # it may fail in any way there is
        return f"{type(error).__name__}: {error}"
    return "it is NaN" if math.isnan(value) else None


def _uses(subject: Subject, name: str, settings: dict[str, Any]) -> bool:
    """Whether what was asked for is looked at, or anything comes out differently when it says something else."""
    return any(_differs(subject, name, settings, situation) for situation in subject.situations)


def _differs(subject: Subject, name: str, settings: dict[str, Any], situation: Situation) -> bool:
    plain = subject.tried(situation, settings)
    if plain is None:
        return False
    if name == "vocabulary":
        return bool(plain.policy.read)
    if name == "reference_vocabulary":
        return bool(plain.reference and plain.reference.read)
    if name == "scores":
        algorithm = subject.make(**settings)
        rows = rescored(step(algorithm, situation.seed, columns=situation.columns))
        return difference(plain, trial(algorithm, prepared(algorithm, situation, rows), situation)) > 0
    seed = situation.seed + 100
    other = replace(situation, reference_seed=seed) if name == "reference" else replace(situation, value_seed=seed)
    said = subject.tried(other, settings)
    return said is not None and difference(plain, said) > 0


def _reads(subject: Subject, name: str) -> bool:
    """Whether anything comes out differently with another number in a column, with some settings."""
    for settings in subject.variations():
        algorithm = subject.make(**settings)
        rows = rows_of(algorithm, APART)
        other = [
            replace(
                group,
                columns=_less(group.columns, name),
                completions=[replace(one, columns=_less(one.columns, name)) for one in group.completions],
            )
            for group in rows
        ]
        try:
            one, two = (trial(algorithm, prepared(algorithm, APART, some), APART) for some in (rows, other))
        except DataError:
            continue
        if math.isnan(one.loss) and math.isnan(two.loss):
            raise Cross(
                f"the loss is NaN where rows lack the column '{name}': they have NaN in batch.columns and "
                "batch.group_columns; put something else there, with torch.where(values.isnan(), 0.0, values)"
            )
        if difference(one, two) > 0:
            return True
    return False


def _less(columns: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The same numbers, with another one in the column ``name``."""
    return {key: 1.0 - value if key == name else value for key, value in columns.items()}
