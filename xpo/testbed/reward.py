"""The known reward: what the testbed's labeller truly likes, as a pure function of two strings.

    reward = sentiment + subject + aspects + repetition + length

========== ============== =====================================================================================
part       range          meaning
========== ============== =====================================================================================
sentiment  (-2.5, 2.5)    2.5 tanh(v / 4), v = praise minus blame; a word counts once, a sentence at most +-2
subject    0 or 0.5       the completion names the subject the prompt asks about
aspects    0 .. 1.5       1.5 x the share of the aspects asked for that are named (by name or synonym)
repetition -3 .. 0        -3 x the share of word pairs already seen earlier in the completion
length     -3 .. 0        -0.06 a word beyond 40, -0.3 a word short of 6
========== ============== =====================================================================================

It counts words; it does not read. Grammar and sense are invisible to it, so a policy that is pushed far enough may
trade fluency for reward: that is over-optimisation, and the KL to the start model is where it shows.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from xpo.testbed.lexicon import ASPECTS, NEGATIONS, NEGATIVE, POSITIVE, SUBJECTS

Messages: TypeAlias = Sequence[Mapping[str, str]]

LONG = 40
SHORT = 6
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_SENTENCE_END = re.compile(r"[.!?]+")


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def asked(prompt: str) -> tuple[list[str], list[str]]:
    """The subjects and the aspects a prompt names, by the names prompts use; empty for a prompt of another world."""
    found = set(words(prompt))
    return [subject for subject in SUBJECTS if subject in found], [name for name in ASPECTS if name in found]


def valence(completion: str) -> int:
    """Praise minus blame.

    Each word counts once in a completion and a sentence counts at most two either way, so neither "great great great"
    nor a bare list of praise adds up. A negation just before a word turns it round.
    """
    total = 0
    seen: set[tuple[str, int]] = set()
    for sentence in _SENTENCE_END.split(completion):
        score = 0
        previous = ""
        for word in words(sentence):
            sign = (word in POSITIVE) - (word in NEGATIVE)
            sign = -sign if previous in NEGATIONS else sign
            if sign and (word, sign) not in seen:
                seen.add((word, sign))
                score += sign
            previous = word
        total += max(-2, min(2, score))
    return total


def explain(prompt: str, completion: str) -> dict[str, float]:
    """The parts of the reward by name; they add up to ``reward(prompt, completion)``."""
    subjects, aspects = asked(prompt)
    said = words(completion)
    named = set(said)
    covered = sum(not named.isdisjoint(ASPECTS[name].words) for name in aspects)
    pairs = list(pairwise(said))
    repeated = 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
    penalty = 0.06 * max(0, len(said) - LONG) + 0.3 * max(0, SHORT - len(said))
    return {
        "sentiment": 2.5 * math.tanh(valence(completion) / 4),
        "subject": 0.5 * (not named.isdisjoint(subjects)),
        "aspects": 1.5 * covered / len(aspects) if aspects else 0.0,
        "repetition": -3 * repeated,
        "length": -min(3.0, penalty),
    }


def reward(prompt: str, completion: str) -> float:
    """The true reward of a completion, about -3 to 4.5."""
    return sum(explain(prompt, completion).values())


def text(value: str | Messages) -> str:
    """The words in a string, or in the last turn of a conversation."""
    if isinstance(value, str):
        return value
    return value[-1]["content"] if value else ""


def testbed_reward(
    prompts: Sequence[str | Messages], completions: Sequence[str | Messages], **_: object
) -> list[float]:
    """``reward`` with the signature of TRL's reward functions: strings or conversations, and columns it ignores."""
    return [reward(text(prompt), text(completion)) for prompt, completion in zip(prompts, completions, strict=True)]
