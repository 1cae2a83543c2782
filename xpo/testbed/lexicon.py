"""The words of the testbed: subjects, aspects, and what counts as praise or blame.

Every list here is read by both the grammar (which writes with it) and the reward (which counts with it), so there is
one copy. A word has one role only: none is both praise and blame, and no praise or blame names a subject or an aspect.
"""

from dataclasses import dataclass


def listed(words: str) -> tuple[str, ...]:
    """The words of a line: a list of words reads best as a line of text."""
    return tuple(words.split())


@dataclass(frozen=True)
class Aspect:
    """Something a review can be asked to cover.

    ``words[0]`` is the name a prompt uses; any of ``words`` counts as covering it. All are singular, so that the
    grammar needs no agreement.
    """

    words: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.words[0]


def _aspect(words: str, praise: str, blame: str) -> Aspect:
    return Aspect(listed(words), listed(praise), listed(blame))


ASPECTS: dict[str, Aspect] = {
    aspect.name: aspect
    for aspect in (
        _aspect("coffee espresso", "rich smooth fragrant delicious", "bitter watery burnt stale"),
        _aspect("menu selection", "varied tempting seasonal inventive", "limited confusing repetitive tired"),
        _aspect("service staff", "friendly attentive prompt welcoming", "rude careless unhelpful grumpy"),
        _aspect("price cost", "fair reasonable generous affordable", "outrageous excessive unfair steep"),
        _aspect("atmosphere mood", "cosy relaxed cheerful inviting", "gloomy tense chaotic stuffy"),
        _aspect("location spot", "convenient central scenic handy", "remote shabby noisy unsafe"),
        _aspect("room bed", "spotless spacious airy cosy", "dirty cramped damp draughty"),
        _aspect("breakfast buffet", "fresh tasty generous delicious", "greasy stale soggy bland"),
        _aspect("view scenery", "stunning breathtaking scenic glorious", "ugly bleak spoiled dreary"),
        _aspect("plot story", "gripping clever moving original", "predictable dull muddled silly"),
        _aspect("cast hero", "charming believable brilliant touching", "wooden lifeless shallow irritating"),
        _aspect("ending finale", "satisfying moving surprising powerful", "rushed predictable abrupt unconvincing"),
        _aspect("pacing tempo", "brisk confident steady lively", "sluggish uneven tedious clumsy"),
        _aspect("dialogue wording", "witty sharp natural sparkling", "stilted clumsy flat unconvincing"),
        _aspect("opening prologue", "gripping bold memorable lively", "tedious confusing flat forgettable"),
        _aspect("battery charge", "durable dependable impressive efficient", "weak unreliable faulty feeble"),
        _aspect("screen display", "crisp bright vivid sharp", "blurry dim flickering scratched"),
        _aspect("sound speaker", "clear rich balanced crisp", "tinny muffled harsh distorted"),
        _aspect("design shape", "elegant sleek stylish clever", "ugly clumsy awkward flimsy"),
        _aspect("speed processor", "quick responsive impressive efficient", "sluggish laggy erratic feeble"),
        _aspect("comfort fit", "snug soft perfect soothing", "painful stiff awkward itchy"),
        _aspect("weight load", "manageable balanced ideal modest", "burdensome awkward tiring clumsy"),
        _aspect("colour shade", "vivid elegant tasteful glowing", "garish faded drab dreary"),
        _aspect("material fabric", "sturdy durable soft robust", "flimsy scratchy brittle cheap"),
        _aspect("food meal", "tasty delicious hearty fresh", "bland greasy soggy inedible"),
        _aspect("queue wait", "orderly painless brisk reasonable", "endless chaotic miserable exhausting"),
        _aspect("map signage", "clear handy thorough accurate", "misleading confusing outdated useless"),
    )
}

MASS_NOUNS: frozenset[str] = frozenset(
    listed("coffee service staff scenery dialogue wording comfort food signage pacing sound fabric")
)
"""Aspect words that take no article."""

_KINDS: tuple[tuple[str, str], ...] = (
    ("cafe restaurant bakery pub", "coffee menu service price atmosphere location"),
    ("hotel hostel campsite cottage", "room breakfast service price location view"),
    ("film novel play series", "plot cast ending pacing dialogue opening"),
    ("phone laptop tablet watch", "battery screen sound design price speed"),
    ("jacket tent backpack bicycle", "comfort design price weight colour material"),
    ("museum zoo garden festival", "location price service food queue map"),
)
SUBJECTS: dict[str, tuple[str, ...]] = {
    subject: listed(aspects) for subjects, aspects in _KINDS for subject in listed(subjects)
}
"""What can be reviewed, and the aspects each can be asked about."""

# Verbs are listed apart from adjectives because the grammar needs to know; the reward counts both alike.
PRAISE_WORDS: tuple[str, ...] = listed(
    "good great lovely excellent wonderful superb pleasant delightful splendid terrific marvellous fantastic fine"
    " outstanding remarkable superior refreshing beautiful solid amazing"
)
BLAME_WORDS: tuple[str, ...] = listed(
    "bad poor awful terrible dreadful disappointing horrible mediocre annoying unpleasant lousy dismal frustrating"
    " shoddy boring pathetic inferior sloppy hopeless grim"
)
PRAISE_VERBS: tuple[str, ...] = listed("loved enjoyed admired adored liked praised")
BLAME_VERBS: tuple[str, ...] = listed("hated disliked regretted resented loathed despised")
PLAIN_WORDS: tuple[str, ...] = listed(
    "ordinary average typical usual standard simple plain common familiar basic similar"
)

POSITIVE: frozenset[str] = frozenset(
    (*PRAISE_WORDS, *PRAISE_VERBS, *(word for aspect in ASPECTS.values() for word in aspect.praise))
)
NEGATIVE: frozenset[str] = frozenset(
    (*BLAME_WORDS, *BLAME_VERBS, *(word for aspect in ASPECTS.values() for word in aspect.blame))
)
NEGATIONS: frozenset[str] = frozenset({"not", "never", "hardly"})
