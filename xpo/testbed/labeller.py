"""The labeller: an imperfect judge of the true reward, whose every draw is a pure function of the seed.

It sees ``u + temperature * g`` in a completion, with the utility ``u = reward + length_bias * words`` and ``g``
standard Gumbel. Comparing two such views *is* a Bradley-Terry draw, ``P(a beats b) = sigmoid((u_a - u_b) /
temperature)``, and sorting several is a Plackett-Luce draw. So pairs, labels and lists of one seed are three ways to
report the same judgments, and a difference between kinds of data is not a difference between labellers.

Draws are hashed from what they are about, not taken from a stream: turning one knob leaves every other draw alone, and
a run with ``noise=0.3`` differs from one with ``noise=0.2`` only in the judgments turned round.
"""

import hashlib
import math

from xpo.testbed.knobs import Knobs
from xpo.testbed.reward import reward, words


def uniform(*about: object) -> float:
    """A number strictly between 0 and 1 that depends on the arguments alone."""
    digest = hashlib.blake2b("\x1f".join(map(str, about)).encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52


def view(prompt: str, completion: str, knobs: Knobs) -> float:
    """What the labeller sees in a completion."""
    gumbel = -math.log(-math.log(uniform("view", knobs.seed, prompt, completion)))
    utility = reward(prompt, completion) + knobs.length_bias * len(words(completion))
    return utility + knobs.temperature * gumbel


def mistaken(kind: str, about: str, knobs: Knobs) -> bool:
    """Whether noise turns this judgment round."""
    return uniform("noise", kind, knobs.seed, about) < knobs.noise


def order(prompt: str, knobs: Knobs) -> float:
    """Where a prompt comes in the data: sorting by this shuffles, and a smaller size is a prefix of a larger one."""
    return uniform("order", knobs.seed, prompt)
