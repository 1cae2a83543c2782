"""Checks that a step leaves behind what it may, and no more: inputs, groups, randomness, state, checkpoints."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group
from xpo.testing.fabricate import step
from xpo.testing.outcome import difference
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import APART, NEAR, Subject, listed
from xpo.testing.trial import Situation, prepared, trial


def purity(subject: Subject) -> str:
    """The loss changes nothing that it is given, and says the same when it is asked again."""
    for situation in subject.situations:
        algorithm, again = subject.make(), subject.make()
        with _seeded(1):
            groups = prepared(algorithm, situation)
            kept = copy.deepcopy(groups)
            one = trial(algorithm, groups, situation)
        if one.changed:
            raise Cross(f"the loss writes into {one.changed[0]}; others read that too, so work on a copy")
        if groups != kept:
            raise Cross("the loss changes the groups it is given; work on copies")
        with _seeded(1):
            other = trial(again, prepared(again, situation), situation)
        if difference(one, other) > 0:
            raise Cross(
                "the same step has another loss in another run of the same process: it keeps something between calls "
                "that is not of the instance, in the class, the module or a default argument; keep it in self, and in "
                "state_dict"
            )
        again = subject.make()
        with _seeded(2):
            other = trial(again, prepared(again, situation), situation)
        if difference(one, other) > 0:
            raise Cross(
                "the loss draws random numbers: the same step has another one the second time; draw them from a seed "
                "and the row of a group, so that runs can be repeated"
            )
    return "twice the same"


def collation(subject: Subject) -> str:
    """``collate`` returns as many groups, in the same order, and depends on the groups alone."""
    if subject.cls.collate is Algorithm.collate:
        raise NotApplicable("it has no collate of its own")
    for situation in (NEAR, APART):
        algorithm = subject.make()
        given = step(algorithm, situation.seed, columns=situation.columns)
        with _seeded(1):
            made = list(algorithm.collate(copy.deepcopy(given)))
        if [(group.row, group.prompt_ids) for group in made] != [(group.row, group.prompt_ids) for group in given]:
            raise Cross(
                f"collate got the rows {[group.row for group in given]} and returned {[group.row for group in made]}, "
                "or changed prompts; return as many groups in the same order, empty where there is nothing to learn"
            )
        if lost := _lost(given, made):
            raise Cross(f"collate drops {lost}; change groups with dataclasses.replace, which keeps the rest of them")
        used = copy.deepcopy(given)
        with _seeded(1):
            twice = [list(copy.deepcopy(algorithm).collate(used)) for _ in range(2)][1]
        if twice != made:
            raise Cross(
                "collate changes the groups it is given, and makes something else of them the next time; what is given "
                "is used again, so make new groups and completions with dataclasses.replace"
            )
        with suppress(Exception):  # what is wrong with the loss another check says
            trial(algorithm, prepared(algorithm, situation), situation)
        with _seeded(2):
            again = list(algorithm.collate(copy.deepcopy(given)))
        if again != made:
            raise Cross(
                "collate returns something else the second time; every process calls it and must get the same, so let "
                "it depend on the groups alone: on no state and on no random numbers"
            )
    return "as many, in order"


def _lost(given: Sequence[Group], made: Sequence[Group]) -> str | None:
    """What was known about rows and is not any more, of rows that have still something to learn."""
    for before, after in zip(given, made, strict=True):
        if columns := sorted(before.columns.keys() - after.columns.keys()):
            return f"the columns {listed(columns)} of row {before.row}"
        known = {tuple(one.ids): one for one in before.completions}
        for one in after.completions:
            own = known.get(tuple(one.ids))
            if own is not None and one.trainable and own.columns.keys() - one.columns.keys():
                return (
                    f"the columns {listed(own.columns.keys() - one.columns.keys())} of a completion of row {before.row}"
                )
    return None


def state(subject: Subject) -> str:
    """A run that is resumed goes on as if it had not stopped, and an evaluation leaves no trace."""
    straight, stopped, resumed = subject.make(), subject.make(), subject.make()
    for algorithm in (straight, stopped):
        for situation in (NEAR, APART):
            trial(algorithm, prepared(algorithm, situation), situation)
    saved = stopped.state_dict()
    try:
        kept = json.dumps(saved, sort_keys=True)
    except TypeError as error:
        raise Cross(f"state_dict() is not JSON ({error}); keep plain numbers, texts, lists and dictionaries") from error
    resumed.load_state_dict(json.loads(kept))
    if json.dumps(resumed.state_dict(), sort_keys=True) != kept:
        raise Cross("load_state_dict does not take up all that state_dict gave out; hold the two together")
    with torch.no_grad():
        trial(resumed, prepared(resumed, NEAR), NEAR, gradient=False)
    if json.dumps(resumed.state_dict(), sort_keys=True) != kept:
        raise Cross("an evaluation moves the running state; change it only where torch.is_grad_enabled()")
    last = Situation(seed=2)
    one, other = (trial(algorithm, prepared(algorithm, last), last) for algorithm in (straight, resumed))
    if difference(one, other) > 1e-12:
        raise Cross(
            f"it keeps state between calls that is not in state_dict: resumed after an evaluation the next loss is "
            f"{other.loss:.8g}, otherwise {one.loss:.8g}; keep in state_dict all that a step leaves behind, and change "
            "it only where torch.is_grad_enabled()"
        )
    if not saved:
        raise NotApplicable("it keeps no state")
    return ", ".join(saved)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of the process start from ``seed``, and go on afterwards as if nothing had been."""
    kept = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(kept)
