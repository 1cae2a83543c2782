"""The check of what a loss makes of the tokens of a completion: their sum or their average, and whether it says so.

Both are sound, and they differ by the length: what is meant for one of them, such as a beta, does not do for the other.
A text log pi(y|x) is the log-probability of the completion, which is the sum. An average has to be written as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xpo.api.loss import Term
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import NEAR, Subject, listed
from xpo.testing.trial import Twice

#: Rounding of float64.
ROUNDING = 1e-9
#: The same of what is worked out from gradients.
NEARLY = 1e-6
#: How an equation divides by the length of a completion: / |y|, 1/|y_w|, / |o_i|.
_DIVIDED = re.compile(r"/\s*\|\s*[yo][^|()]*\|")
#: Words for the same, and lengths in other places.
_AVERAGED = re.compile(
    r"\|\s*\w+\s*\||averag|mean log|normali[sz]|length|\blen\b|(per|each|a|over|of)( the| its| all)? ?-?tokens?\b", re.I
)


def tokens(subject: Subject) -> str:
    """Log-probabilities of tokens are added up, or averaged where the equation or the summary says so."""
    cls = subject.cls
    if cls.model != "policy":
        raise NotApplicable("a reward model reads one number of a completion")
    needs = subject.make().needs
    if needs.vocabulary or needs.reference_vocabulary:
        raise NotApplicable("full distributions are not stretched")
    added, averaged = (set(found) for found in (_same(subject, "split"), _same(subject, "repeat")))
    added, averaged = added - averaged, averaged - added
    told = f"{cls.equation} {cls.summary}"
    if averaged and not _AVERAGED.search(told):
        raise Cross(
            f"the term {listed(averaged)} averages log-probabilities over the tokens of a completion, but the equation "
            "has their sum, as nothing in it divides by a length: take policy.sum() for policy.mean(), or write "
            "log pi(y|x) / |y| if an average is meant"
        )
    pulled = _tokens_pulled(subject) if cls.data == "pairs" else []
    if _mixed(pulled):
        raise Cross(
            "of chosen and rejected completions one is averaged over its tokens and the other added up, so that their "
            "difference goes by length: take policy.sum() of both, or policy.mean() of both"
        )
    if not averaged and _DIVIDED.search(cls.equation) and (beside := _beside(pulled)):
        raise Cross(
            f"log-probabilities are divided by the length of a completion {beside:+g}, and the equation has the length "
            "itself: policy.lengths counts all tokens of a completion, its end among them, as policy.mean() does"
        )
    # What is divided may be a term of single tokens, which the loop averages.
    single = any(term.level == "token" for term in subject.once(NEAR).returned.terms)
    if added and not averaged and not single and _DIVIDED.search(cls.equation):
        raise Cross(
            f"the term {listed(added)} adds log-probabilities up over the tokens of a completion, but the equation "
            "divides them by its length: take policy.mean() for policy.sum(), or correct the equation"
        )
    found = [f"{word} over tokens: {listed(names)}" for word, names in (("sum", added), ("average", averaged)) if names]
    return "; ".join(found) or "neither a plain sum nor a plain average over tokens"


def _tokens_pulled(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    """Of pairs whose completions are both pulled, how much the tokens of the chosen and of the rejected one are."""
    found = subject.once(NEAR).pull
    both = [(found[row, 0], -found[row, 1]) for row, place in found if place == 1]
    return [(chosen, rejected) for chosen, rejected in both if chosen.any() and rejected.any()]


def _mixed(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether tokens of the chosen completion are pulled as much as all of the rejected one, or the reverse."""
    if len({(len(chosen), len(rejected)) for chosen, rejected in pairs}) < 2:
        return False
    tokens, whole = (
        torch.tensor([(float(reduce(chosen)), float(reduce(rejected))) for chosen, rejected in pairs])
        for reduce in (torch.mean, torch.sum)
    )
    return any(torch.allclose(tokens[:, side], whole[:, 1 - side], NEARLY, 0.0) for side in (0, 1))


def _beside(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """What is added to the lengths that log-probabilities are divided by; 0 where that is nothing, or not one number.

    A token is pulled by 1 / (length + x), times what is the same of both completions.
    """
    found = []
    for chosen, rejected in pairs:
        one, other = float(chosen.mean()), float(rejected.mean())
        if len(chosen) != len(rejected) and one != other:
            found.append((other * len(rejected) - one * len(chosen)) / (one - other))
    same = len(found) > 1 and max(found) - min(found) <= NEARLY * abs(found[0])
    return round(found[0], 3) if same else 0.0


def _same(subject: Subject, twice: Twice) -> Iterator[str]:
    """Terms that do not notice when every token comes twice."""
    situation = replace(NEAR, reused=subject.rollouts)  # on fresh samples a ratio is 1 whatever it is made of
    plain, stretched = (subject.once(one).returned.terms for one in (situation, replace(situation, twice=twice)))
    for one, other in zip(plain, stretched, strict=False):
        if one.level != "token" and _equal(one, other):
            yield one.name


def _equal(one: Term, other: Term) -> bool:
    return one.values.shape == other.values.shape and torch.allclose(one.values, other.values, ROUNDING, ROUNDING)
