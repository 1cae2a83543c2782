"""The testbed: a small world in which preference training can be watched exactly, because the true reward is known.

A prompt asks for a short review of a subject that covers one or two aspects. A start model of about a million
parameters, trained on the corpus of a small grammar, writes fluent reviews of every sort: kind and unkind, on the
point and off it, short and rambling. The reward is a function of the two strings. Everything is shipped, so a run
needs no download.

What is measured on it
    Reward of fresh samples on the test prompts, against KL to the start model; length; accuracy on pairs with
    ``temperature=0`` (the true order); exact answers on forgotten and retained facts.

Scale, at the defaults
    The start model scores 0.45 on test prompts (standard deviation 0.9), the best of 16 samples 2.2, the best in the
    pool 4.1. A completion has 19 words on average; 99% end within 64 tokens. The labeller sides with the better
    completion in 82% of pairs.

Knobs (``Knobs``, or text such as ``testbed:noise=0.3,length_bias=0.1``)
    =========== ======= ==========================================================================================
    knob        default meaning
    =========== ======= ==========================================================================================
    temperature 0.5     of the Bradley-Terry labeller, in units of reward; 0 always prefers the better completion
    noise       0       share of judgments turned round after they were drawn: swapped, flipped, reversed
    length_bias 0       added to what the labeller sees, per word
    desirable   0.5     share of labels that say desirable, before noise
    list_size   4       completions in a list
    size        all     prompts, at most
    seed        0       of the labeller's draws and of the order
    =========== ======= ==========================================================================================

Splits
    2000 train, 200 validation and 200 test prompts with no topic (subject and aspects) in common. Facts are split by
    the wording of the question. Knobs act on every split alike; take default or ``temperature=0`` knobs to evaluate.

Seeds
    The completions are fixed; ``seed`` redraws judgments and order. Draws are hashed one by one, so the knobs do not
    disturb each other: a smaller ``size`` is a prefix, more ``noise`` keeps the flips of less, and pairs, labels and
    lists of one seed report the judgments of one labeller. Vary ``seed`` for the spread over labels and the training
    seed for the spread over optimisation; neither says anything of another start model.

What it can and cannot show
    It shows whether an objective raises the reward it is told about, at what cost in KL, how it takes noisy or
    length-biased labels, and gross mistakes of an implementation. The pairs are on-policy for the start model, and go
    stale as training moves away from it. It does not show how methods rank on large models: the language is narrow,
    prompts are short, the reward is a sum of word counts that sees no sense or grammar (over-optimisation looks like
    ungrammatical praise), and there is nothing to reason about.
"""

from xpo.testbed.knobs import Knobs, parse
from xpo.testbed.pool import model_path, rows
from xpo.testbed.reward import testbed_reward

__all__ = ["Knobs", "model_path", "parse", "rows", "testbed_reward"]
