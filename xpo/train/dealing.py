"""What samples become for a method of pairs, labels or lists, dealt out anew to the micro-batches of their step.

A prompt may give no group, or several, and ``collate`` sees all of a step: so every rank tells the others what it has
formed, and takes its share of what all of them have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group
from xpo.data.order import MicroBatch
from xpo.data.spread import even, spread
from xpo.train.online import Forming
from xpo.train.supply import Step


@dataclass(frozen=True)
class Part:
    """A micro-batch of this rank that was sampled for.

    Attributes:
        micro: it, without samples.
        scored: its prompts with scored samples; None where no verdict can be learned from.
        riding: rows that ride along.
        stream: part of the seed.
        stand_in: what stands in for it.
    """

    micro: MicroBatch
    scored: list[Group | None]
    riding: list[Group]
    stream: str
    stand_in: Group


@dataclass(frozen=True)
class Brought:
    """What one rank brings to a step.

    Attributes:
        formed: (place of the prompt in the step, its groups).
        riding: (set, place, row that rides along).
        spare: stand-ins.
    """

    formed: list[tuple[int, list[Group]]] = field(default_factory=list)
    riding: list[tuple[int, int, Group]] = field(default_factory=list)
    spare: list[Group] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Prompts that gave nothing."""
        return sum(not groups for _, groups in self.formed)


@dataclass(frozen=True)
class Dealing:
    """Forms groups of scored samples, and deals those of all ranks out.

    Attributes:
        algorithm: whose ``collate`` and needs are met.
        forming: how samples become groups.
    """

    algorithm: Algorithm[Any]
    forming: Forming

    def bring(self, parts: Sequence[Part]) -> Brought:
        """What this rank has for a step, from its parts of it."""
        brought = Brought()
        for part in parts:
            brought.spare.append(part.stand_in)
            if part.micro.idle:
                continue
            for place, group in zip(part.micro.micro.part, part.scored, strict=True):
                formed = [] if group is None else self.forming.groups(group, part.stream)
                brought.formed.append((place, [one for one in formed if differ(one)]))
            sets = len(part.riding) // max(len(part.scored), 1)
            brought.riding.extend(
                (number % sets, part.micro.micro.part[number // sets], group)
                for number, group in enumerate(part.riding)
            )
        return brought

    def deal(self, step: Step, brought: Sequence[Brought], world: int, rank: int) -> Step:
        """This rank's micro-batches of a step, once the algorithm's ``collate`` has seen what all ranks brought."""
        formed = sorted((one for part in brought for one in part.formed), key=lambda one: one[0])
        riding = [one[2] for one in sorted((one for part in brought for one in part.riding), key=lambda one: one[:2])]
        groups = [group for _, some in formed for group in some]
        least = self.algorithm.needs.least
        if len({tuple(group.prompt_ids) for group in groups}) < least:  # a batch of one prompt is no batch either
            stand_in = self._stand_in(next(group for part in brought for group in part.spare))
            return [replace(micro, groups=[stand_in], idle=True) for micro in step]
        collated = self.algorithm.collate([*groups, *riding])
        used = min(len(step), len(groups) // least)
        sizes = [even(size, world) for size in even(len(groups), used)]
        parts = spread([group.length for group in groups], sizes, "kept" if least > 1 else "even")
        beside = spread([0] * len(riding), [even(size, world) for size in even(len(riding), used)], "kept")
        rest = collated[len(groups) :]
        own = [
            [*(collated[place] for place in places[rank]), *(rest[place] for place in more[rank])]
            for places, more in zip(parts, beside, strict=True)
        ]
        return [holding(micro, own[number] if number < used else [], collated[0]) for number, micro in enumerate(step)]

    def _stand_in(self, group: Group) -> Group:
        """A group as the algorithm wants it, of a prompt with samples that teach nothing."""
        formed, ids = self.forming.anyway(group)[0], group.prompt_ids
        # Collate may want several rows, and of different prompts.
        rows = [replace(formed, prompt_ids=[*ids, *ids[-1:] * number]) for number in range(self.algorithm.needs.least)]
        return self.algorithm.collate(rows)[0]


def differ(group: Group) -> bool:
    """Whether those of a pair differ: a judge that is not sure of itself may score one text twice, and differently."""
    return all(group.completions[a].ids != group.completions[b].ids for a, b in group.pairs)


def holding(micro: MicroBatch, groups: list[Group], stand_in: Group) -> MicroBatch:
    """The micro-batch with these groups; with a stand-in, and idle, where there are none."""
    return replace(micro, groups=groups or [stand_in], idle=not groups)
