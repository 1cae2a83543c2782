"""Groups: one prompt with K >= 1 completions and what is known about them, as token ids.

Every kind of data becomes groups, so there is one data path, one forward and one loop:

==============  =============================================================  ======================================
kind            completions of a group                                         what is known
==============  =============================================================  ======================================
pairs           ``chosen``, ``rejected``                                        ``Group.pairs = [(0, 1)]``
labels          one ``completion``                                              ``Completion.label``: desirable or not
lists           K of role ``completion``                                        ``Completion.score`` of each
forget          one ``forget`` or one ``retain``                                the role
demonstrations  one ``completion``                                              that it is worth imitating
rollouts        none in the data; K of role ``completion`` sampled in training  ``Completion.score``: the reward
==============  =============================================================  ======================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["pairs", "labels", "lists", "forget", "demonstrations", "rollouts"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: The columns a data set of each kind has, as the documentation and the error messages name them.
COLUMNS: Mapping[Kind, str] = {
    "pairs": "prompt, chosen, rejected (or chosen and rejected that both begin with the prompt)",
    "labels": "prompt, completion (or messages, whose last it is), label (true: desirable, false: undesirable)",
    "lists": "prompt, completions (a list), scores (a list as long)",
    "forget": "prompt, completion, split ('forget' or 'retain')",
    "demonstrations": "prompt, completion; or messages; or text",
    "rollouts": "prompt",
}


@dataclass(slots=True)
class Completion:
    """One completion of a prompt.

    Attributes:
        ids: token ids, EOS included when the completion ends with it; never the prompt, never padding.
        role: what the completion is in its group: ``chosen``, ``rejected``, ``completion``, ``forget``, ``retain``, a
            role of ``Algorithm.extras``, or one that an algorithm's ``collate`` invents.
        label: desirable or not, for labelled data.
        score: a number that says how good the completion is: a list's score, a rollout's reward.
        after: how many tokens of the prompt it continues, where it does not continue all of them. The prompt itself,
            as something to score, is ``Completion(prompt_ids[1:], after=1)``.
        finished: False when sampling or truncation cut the completion before its end.
        trainable: False for a completion that is scored without gradient and does not count in any mean.
        referenced: False for one whose log-probabilities under the reference nobody asks for; they are 0 then.
        part: which part of a composed method it belongs to; empty where there is one method.
        columns: further numbers that ride along to the loss, one for the completion or one per token.
    """

    ids: list[int]
    role: str = "completion"
    label: bool | None = None
    score: float | None = None
    after: int | None = None
    finished: bool = True
    trainable: bool = True
    referenced: bool = True
    part: str = ""
    columns: dict[str, float | Sequence[float]] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """One prompt and its completions.

    Attributes:
        prompt_ids: token ids of the prompt, with the generation prompt of a chat template; at least one token.
        completions: the K completions, in the order of the data.
        pairs: preferences among them, as (index of the preferred, index of the other).
        row: number of the data row the group came from: its identity for seeds, caches and messages.
        columns: numbers known about the whole group, such as a margin.
        source: the data row as it was read, for reward functions that want more than the text.
    """

    prompt_ids: list[int]
    completions: list[Completion] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    row: int = -1
    columns: dict[str, float] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def demonstration(self) -> Completion | None:
        """The completion most worth imitating: the chosen, the desirable, the best scored; None where none is."""
        for role in ("chosen", "replay", "retain"):
            for completion in self.completions:
                if completion.role == role:
                    return completion
        worth = [one for one in self.completions if one.role == "completion" and one.label is not False]
        return max(worth, key=lambda one: one.score if one.score is not None else 0.0, default=None)

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longest completion."""
        return len(self.prompt_ids) + max((len(completion.ids) for completion in self.completions), default=0)
