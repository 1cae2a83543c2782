"""The grammar that writes the start model's corpus: reviews good and bad, on and off the point, short and rambling.

Each review draws a temper (how kind, how focused, how long, how repetitive) and then its sentences one by one. The
temper is hidden from the model, so its samples for one prompt are a broad mixture: that spread is what preference
training uses.
"""

import random
from dataclasses import dataclass

from xpo.testbed.lexicon import (
    ASPECTS,
    BLAME_VERBS,
    BLAME_WORDS,
    MASS_NOUNS,
    PLAIN_WORDS,
    PRAISE_VERBS,
    PRAISE_WORDS,
    SUBJECTS,
    Aspect,
    listed,
)
from xpo.testbed.world import Topic

_ASPECT_LINES = (
    "The {a} is {x}.",
    "The {a} was {x}.",
    "The {a} was {v} {x}.",
    "The {a} seemed {x} and {y}.",
    "I found the {a} {v} {x}.",
    "Its {a} is {x}, even {y}.",
    "We thought the {a} was {x}.",
    "My {person} called the {a} {x}.",
    "Such {an:x} {a} stays with you.",
    "The {a} turned out {x}.",
    "For me the {a} felt {v} {x}.",
    "The {s} has {an:x} {a}.",
    "Expect {an:x} {a} from this {s}.",
    "With {an:x} {a} like that, nothing else matters much.",
    "You get {an:x} {a} and {an:y} {b}.",
    "The {a} was {x} but the {b} was {z}.",
    "The {a} was not {z}.",
    "The {a} is never {z}.",
)
_SUBJECT_LINES = (
    "I {verb} the {s}.",
    "My {person} {verb} the {s} too.",
    "We all {verb} this {s}.",
    "It is {an:x} {s}.",
    "This {s} is {v} {x}.",
    "What {an:x} {s}!",
    "The {s} was {x} from the first {time}.",
    "I {verb} every {time} of it.",
    "Overall it felt {x}.",
    "In short, {an:x} {s}.",
)
_PLAIN_LINES = (
    "The {a} was {plain}.",
    "The {s} is {plain} in most ways.",
    "We chose the {s} in {month}.",
    "My {person} told me about the {s}.",
    "There is not much to say about the {a}.",
    "I noticed the {a} after {one} {time}.",
    "The {a} looks {plain} next to the {b}.",
    "It took us {one} {time} to decide.",
    "Some people ask for the {s} by name.",
    "I came across it with my {person} in {month}.",
)
_STRAY_LINES = (
    "The weather in {month} was {plain}.",
    "My {person} bought another {thing} that day.",
    "I still have to wash the {thing}.",
    "By the way, my {person} moved house in {month}.",
    "We talked about the {thing} on the train.",
    "It rained for {one} {time} after lunch.",
    "Someone left another {thing} at the door.",
    "I had a {other} once, in {month}.",
    "Have you seen the {other} yet?",
    "My {person} would rather have a {other}.",
    "The {thing} was {plain}, as on every day.",
    "Then the train was late by {one} {time}.",
)
_OPENERS = ("Honestly, ", "In truth, ", "In the end, ", "After all, ", "As I said, ", "At first, ", "Still, ")
_SLOTS: dict[str, tuple[str, ...]] = {
    "v": listed("very really quite rather truly simply so always often almost"),
    "person": listed("sister brother mother father friend neighbour colleague cousin uncle daughter son aunt"),
    "time": listed("hour minute day week evening moment morning month"),
    "one": ("one", "half the", "a whole", "another"),
    "month": listed("January March April May June July August October November winter summer autumn"),
    "thing": listed("umbrella letter bottle basket newspaper ladder carpet scarf hammer bucket guitar candle sandwich"),
    "plain": PLAIN_WORDS,
}


@dataclass(frozen=True)
class Temper:
    """How one review is written: the chances of each kind of sentence, and how many there are."""

    kind: float
    focus: float
    feeling: float
    echo: float
    sentences: int


def temper(rng: random.Random) -> Temper:
    """A temper for one review. Unkind ones prevail, so that the start model has much to gain."""
    return Temper(
        kind=rng.choice((0.05, 0.25, 0.5, 0.85)),
        focus=rng.choice((0.3, 0.5, 0.75)),
        feeling=rng.choice((0.55, 0.85)),
        echo=rng.choice((0.0, 0.04, 0.15)),
        sentences=rng.choices((1, 2, 3, 4, 5, 6, 8), (12, 24, 28, 18, 9, 6, 3))[0],
    )


def review(topic: Topic, rng: random.Random) -> str:
    """One review of a topic, written in a temper of its own."""
    mood = temper(rng)
    lines: list[str] = []
    for _ in range(mood.sentences):
        repeat = bool(lines) and rng.random() < mood.echo
        lines.append(rng.choice(lines) if repeat else _sentence(topic, mood, rng))
    return " ".join(lines)


def _sentence(topic: Topic, mood: Temper, rng: random.Random) -> str:
    focused = rng.random() < mood.focus
    felt = rng.random() < mood.feeling
    forms: tuple[str, ...]
    if not focused and rng.random() < 0.6:
        forms = _STRAY_LINES
    elif not felt:
        forms = _PLAIN_LINES
    elif rng.random() < 0.3:
        forms = _SUBJECT_LINES
    else:
        forms = _ASPECT_LINES
    pool = topic.aspects if focused else SUBJECTS[topic.subject]
    aspect = ASPECTS[rng.choice(pool)]
    line = _fill(rng.choice(forms), topic.subject, aspect, rng.random() < mood.kind, rng)
    if rng.random() < 0.12:
        opener = rng.choice(_OPENERS)
        line = opener + (line if line.startswith("I ") else line[0].lower() + line[1:])
    return line


def _fill(form: str, subject: str, aspect: Aspect, kind: bool, rng: random.Random) -> str:
    """A line with every slot filled: x and y share the review's feeling, z is the opposite, b is another aspect."""
    feeling, opposite = (aspect.praise + PRAISE_WORDS, aspect.blame + BLAME_WORDS)[:: 1 if kind else -1]
    x, y = rng.sample(feeling, 2)
    other = ASPECTS[rng.choice([name for name in SUBJECTS[subject] if name != aspect.name])]
    values = {slot: rng.choice(options) for slot, options in _SLOTS.items()}
    values |= {"x": x, "y": y, "z": rng.choice(opposite), "s": subject}
    values |= {"a": rng.choice(aspect.words), "b": rng.choice(other.words)}
    values |= {"verb": rng.choice(PRAISE_VERBS if kind else BLAME_VERBS), "other": rng.choice(list(SUBJECTS))}
    for noun, quality in (("a", "x"), ("b", "y")):
        if values[noun] in MASS_NOUNS:
            form = form.replace(f"{{an:{quality}}} {{{noun}}}", f"{{{quality}}} {{{noun}}}")
    for slot, value in values.items():
        article = "an" if value[0] in "aeiou" else "a"
        form = form.replace(f"{{an:{slot}}}", f"{article} {value}").replace(f"{{{slot}}}", value)
    return form
