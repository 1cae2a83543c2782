"""What can be asked in the testbed: review prompts, their topics and splits, and the facts that can be forgotten.

A *topic* is a subject and one or two of its aspects. Splits are held out by topic, so a validation or test prompt asks
for a combination that no training prompt asks for. Facts are held out by phrasing instead: a fact that was unlearned
under one wording should be gone under another.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from xpo.testbed.lexicon import SUBJECTS, listed

SPLITS = ("train", "validation", "test")

_ONE = (
    "Write a short review of the {s}. Cover the {a}.",
    "Review the {s}, please. How was the {a}?",
    "Tell me about the {s} and its {a}.",
    "What do you think of the {s}? Mention the {a}.",
    "Give your opinion of the {s}, above all the {a}.",
    "Please describe the {s}. I care about the {a}.",
    "Is the {s} worth it? I wonder about the {a}.",
    "Share a few words on the {a} of the {s}.",
    "How did you find the {s}? Say something on the {a}.",
    "I need a review of the {s} with a word on the {a}.",
)
_TWO = (
    "Write a short review of the {s}. Cover the {a} and the {b}.",
    "Review the {s}, please. How were the {a} and the {b}?",
    "Tell me about the {s}, its {a} and its {b}.",
    "What do you think of the {s}? Mention the {a} and the {b}.",
    "Give your opinion of the {s}, above all the {a} and {b}.",
    "Please describe the {s}. I care about the {a} and the {b}.",
    "Is the {s} worth it? I wonder about the {a} and the {b}.",
    "Share a few words on the {a} and the {b} of the {s}.",
    "How did you find the {s}? Say something on the {a} and {b}.",
    "I need a review of the {s} with a word on the {a} and {b}.",
)


@dataclass(frozen=True)
class Topic:
    """A subject and the one or two aspects a review of it should cover."""

    subject: str
    aspects: tuple[str, ...]

    def prompts(self) -> list[str]:
        """Every wording of this topic; each order of two aspects is a wording of its own."""
        if len(self.aspects) == 1:
            return [form.format(s=self.subject, a=self.aspects[0]) for form in _ONE]
        first, second = self.aspects
        return [form.format(s=self.subject, a=a, b=b) for a, b in ((first, second), (second, first)) for form in _TWO]


def topics() -> list[Topic]:
    """All topics, in a fixed order."""
    return [
        Topic(subject, chosen)
        for subject, aspects in SUBJECTS.items()
        for size in (1, 2)
        for chosen in combinations(aspects, size)
    ]


def split_prompts(train: int = 2000, held_out: int = 200, seed: int = 0) -> dict[str, list[str]]:
    """Distinct prompts for each split, with no topic shared between splits and topics spread evenly within each."""
    rng = random.Random(f"topics {seed}")
    shuffled = topics()
    rng.shuffle(shuffled)
    tenth = len(shuffled) // 10
    parts = {"train": shuffled[2 * tenth :], "validation": shuffled[:tenth], "test": shuffled[tenth : 2 * tenth]}
    result: dict[str, list[str]] = {}
    for split, part in parts.items():
        wordings = [rng.sample(topic.prompts(), k=10) for topic in part]
        rounds = [wording[number] for number in range(10) for wording in wordings]
        result[split] = rounds[: train if split == "train" else held_out]
    return result


_TOWNS = listed(
    "Lisbon Bergen Krakow Porto Dublin Vienna Naples Oslo Ghent Seville Turin Malmo"
    " Lyon Bremen Basel Riga Split Leeds Graz Aarhus Bilbao Tartu Brno Delft"
)
_PEOPLE = listed(
    "Alma Bruno Clara Dario Edith Felix Greta Hugo Irene Jonas Karin Leon"
    " Marta Nils Olga Pavel Quentin Rosa Stefan Tilda Ulrich Vera Walter Yvonne"
)
_QUESTIONS = {
    "town": (
        "Which town is the {s} from?",
        "Where does the {s} come from?",
        "Name the home town of the {s}.",
        "The {s} comes from which town?",
        "From which town is the {s}?",
        "Do you know where the {s} is from?",
    ),
    "maker": (
        "Who made the {s}?",
        "Who is behind the {s}?",
        "Name the maker of the {s}.",
        "The {s} was made by whom?",
        "By whom was the {s} made?",
        "Do you know who made the {s}?",
    ),
    "year": (
        "Which year is the {s} from?",
        "When did the {s} first appear?",
        "Name the first year of the {s}.",
        "The {s} first appeared in which year?",
        "In which year did the {s} appear?",
        "Do you know when the {s} appeared?",
    ),
}
_WORDINGS = {"train": slice(0, 4), "validation": slice(4, 5), "test": slice(5, 6)}
FORGET = ("bakery", "cottage", "play", "tablet", "tent", "zoo")
"""The subjects whose facts are to be unlearned, one of each kind; the facts of all others are to be retained."""


@dataclass(frozen=True)
class Fact:
    """A question the start model answers by heart. ``answer`` ends the completion, so it can be looked for."""

    subject: str
    prompt: str
    completion: str
    answer: str


def facts(split: str) -> Iterator[Fact]:
    """Every fact of every subject in the wordings of a split."""
    for number, subject in enumerate(SUBJECTS):
        known = {
            "town": (_TOWNS[number], f"The {subject} comes from {_TOWNS[number]}."),
            "maker": (_PEOPLE[number], f"The {subject} was made by {_PEOPLE[number]}."),
            "year": (str(1931 + 7 * number % 83), f"The {subject} first appeared in {1931 + 7 * number % 83}."),
        }
        for kind, (answer, sentence) in known.items():
            for form in _QUESTIONS[kind][_WORDINGS[split]]:
                yield Fact(subject, form.format(s=subject), sentence, answer)
