"""``Batch``: who is who among the completions of a micro-batch. ``Scores``: what a model says about each of them.

The completions of all groups are laid end to end: C completions, padded to T tokens. A batch knows nothing of how
the model computed its numbers (one row a completion, or a tree of branches): layouts differ, scores do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from xpo.api.groups import Group
from xpo.api.vocabulary import Distributions
from xpo.errors import PluginError

Reduce = Callable[[Tensor], Tensor]


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Batch:
    """The completions of some groups, in one order, with everything known about them except the model's opinion.

    Shapes: C completions, T tokens of the longest, G groups, P pairs.

    Attributes:
        groups: the groups themselves.
        group: (C,) index of the group each completion belongs to.
        roles: C role names.
        ids: (C, T) completion token ids, padded with 0 on the right.
        mask: (C, T) True where a token is real. Made from lengths, never from token ids.
        trainable: (C,) False where a completion is scored without gradient.
        chosen, rejected: (P,) indices of the completions of each pair.
        labels: (C,) desirable or not; False where unknown.
        scores: (C,) scores or rewards; NaN where unknown.
        columns: further numbers by name, (C,) or (C, T).
        group_columns: numbers by name, (G,).
        reduce: sums a tensor over all ranks that hold a part of the same global batch.
        idle: True for a stand-in that only keeps ranks in step: it must not count anywhere.
    """

    groups: Sequence[Group]
    group: Tensor
    roles: tuple[str, ...]
    ids: Tensor
    mask: Tensor
    trainable: Tensor
    chosen: Tensor
    rejected: Tensor
    labels: Tensor
    scores: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    group_columns: dict[str, Tensor] = field(default_factory=dict)
    reduce: Reduce = _same
    idle: bool = False
    _parts: dict[str, tuple[Batch, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        groups: Sequence[Group],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        reduce: Reduce = _same,
        idle: bool = False,
    ) -> Batch:
        """Lay out the completions of ``groups``; floating-point columns get ``dtype``."""
        completions = [completion for group in groups for completion in group.completions]
        width = max((len(completion.ids) for completion in completions), default=0)
        ids = torch.zeros(len(completions), width, dtype=torch.long)
        mask = torch.zeros(len(completions), width, dtype=torch.bool)
        for row, completion in enumerate(completions):
            ids[row, : len(completion.ids)] = torch.tensor(completion.ids, dtype=torch.long)
            mask[row, : len(completion.ids)] = True
        starts: list[int] = []
        owner: list[int] = []
        for index, group in enumerate(groups):
            starts.append(len(owner))
            owner.extend([index] * len(group.completions))
        pairs = [(start + a, start + b) for start, group in zip(starts, groups, strict=True) for a, b in group.pairs]
        nan = float("nan")
        return cls(
            groups=groups,
            group=torch.tensor(owner, dtype=torch.long, device=device),
            roles=tuple(completion.role for completion in completions),
            ids=ids.to(device),
            mask=mask.to(device),
            trainable=torch.tensor([completion.trainable for completion in completions], device=device),
            chosen=torch.tensor([a for a, _ in pairs], dtype=torch.long, device=device),
            rejected=torch.tensor([b for _, b in pairs], dtype=torch.long, device=device),
            labels=torch.tensor([bool(completion.label) for completion in completions], device=device),
            scores=torch.tensor(
                [nan if completion.score is None else completion.score for completion in completions],
                dtype=dtype,
                device=device,
            ),
            columns={
                name: _column(name, [completion.columns.get(name) for completion in completions], width, dtype, device)
                for name in sorted({name for completion in completions for name in completion.columns})
            },
            group_columns={
                name: torch.tensor([group.columns.get(name, nan) for group in groups], dtype=dtype, device=device)
                for name in sorted({name for group in groups for name in group.columns})
            },
            reduce=reduce,
            idle=idle,
        )

    def __len__(self) -> int:
        return len(self.roles)

    def part(self, name: str) -> tuple[Batch, Tensor]:
        """What one part of a composed method sees: a batch of its own completions, and their indices in this one.

        The batch itself where there is one method, which is the part without a name.
        """
        if name not in self._parts:
            alone = not name and not any(one.part for group in self.groups for one in group.completions)
            self._parts[name] = (self, torch.arange(len(self), device=self.mask.device)) if alone else self._part(name)
        return self._parts[name]

    def _part(self, name: str) -> tuple[Batch, Tensor]:
        groups: list[Group] = []
        index: list[int] = []
        start = 0
        for group in self.groups:
            own = [position for position, one in enumerate(group.completions) if one.part == name]
            if own:
                place = {position: number for number, position in enumerate(own)}
                pairs = [(place[a], place[b]) for a, b in group.pairs if a in place and b in place]
                groups.append(replace(group, completions=[group.completions[p] for p in own], pairs=pairs))
            index += [start + position for position in own]
            start += len(group.completions)
        device, dtype = self.mask.device, self.scores.dtype
        view = Batch.of(groups, device=device, dtype=dtype, reduce=self.reduce, idle=self.idle)
        return view, torch.tensor(index, dtype=torch.long, device=device)

    @cached_property
    def lengths(self) -> Tensor:
        """(C,) number of tokens of each completion, EOS included."""
        return self.mask.sum(-1)

    def where(self, *roles: str) -> Tensor:
        """Indices of the completions that have one of ``roles``, in order."""
        found = [index for index, role in enumerate(self.roles) if role in roles]
        return torch.tensor(found, dtype=torch.long, device=self.mask.device)

    def pairs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Split (C, ...) values into those of the chosen and those of the rejected completions, each (P, ...)."""
        return values[self.chosen], values[self.rejected]

    @cached_property
    def slots(self) -> tuple[Tensor, Tensor]:
        """((G, K) index of each group's trainable completions, (G, K) True where there is one), K the longest list."""
        members: list[list[int]] = [[] for _ in self.groups]
        trainable = self.trainable.tolist()
        for position, owner in enumerate(self.group.tolist()):
            if trainable[position]:
                members[owner].append(position)
        width = max((len(indices) for indices in members), default=0)
        index = torch.tensor([m + [0] * (width - len(m)) for m in members], dtype=torch.long, device=self.mask.device)
        real = torch.tensor(
            [[True] * len(m) + [False] * (width - len(m)) for m in members], dtype=torch.bool, device=self.mask.device
        )
        return index.reshape(len(members), width), real.reshape(len(members), width)

    def lists(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Arrange (C,) values as (G, K), one row a group, ``fill`` where a group has fewer than K completions."""
        index, real = self.slots
        return torch.where(real, values[index], torch.as_tensor(fill, dtype=values.dtype, device=values.device))

    def unlists(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`lists`: (G, K) values back to (C,), 0 for completions that are not trainable."""
        index, real = self.slots
        flat = torch.zeros(len(self), dtype=values.dtype, device=values.device)
        flat[index[real]] = values[real]
        return flat

    def global_mean(self, values: Tensor) -> Tensor:
        """Mean of 1-D ``values`` over every rank's part of this global micro-batch, without gradient; 0 if empty."""
        values = values.detach()
        if self.idle:
            values = values[:0]
        total = self.reduce(torch.stack([values.sum(), values.new_tensor(float(values.numel()))]))
        return total[0] / total[1].clamp_min(1.0)

    def global_moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n - 1 in the divisor) of 1-D ``values`` over every rank's part."""
        mean = self.global_mean(values)
        values = values.detach()[: 0 if self.idle else None]
        total = self.reduce(torch.stack([(values - mean).square().sum(), values.new_tensor(float(values.numel()))]))
        return mean, (total[0] / (total[1] - 1.0).clamp_min(1.0)).sqrt()


def _column(
    name: str,
    values: list[float | Sequence[float] | None],
    width: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """One column of numbers as (C,), or as (C, T) padded with 0 when it has a number per token; NaN where missing."""
    if not any(isinstance(value, Sequence) for value in values):
        return torch.tensor([float("nan") if value is None else value for value in values], dtype=dtype, device=device)
    column = torch.zeros(len(values), width, dtype=dtype)
    for row, value in enumerate(values):
        if isinstance(value, Sequence):
            column[row, : len(value)] = torch.tensor(value, dtype=dtype)
        elif value is not None:
            raise TypeError(f"column '{name}' mixes one number a completion with one number a token")
    return column.to(device)


@dataclass(frozen=True)
class Scores:
    """What one model says about each completion of a batch.

    Attributes:
        logps: (C, T) log-probability of each completion token given the prompt and the tokens before it, in nats;
            0 where the mask is False. NaN throughout where the model is a reward model, which has none.
        mask: (C, T) the batch's mask.
        distributions: the full distributions behind them, for algorithms that need them.
        values: (C, T) value of the state before each completion token, read where the token is predicted; 0 where the
            mask is False. The first is the value of the prompt. For algorithms that need them.
        rewards: (C,) what a reward model reads at the last token of each completion.
    """

    logps: Tensor
    mask: Tensor
    distributions: Distributions | None = None
    values: Tensor | None = None
    rewards: Tensor | None = None

    def sum(self) -> Tensor:
        """(C,) log-probability of each completion: the sum over its tokens, in float32 at least."""
        return _wide(self.logps).sum(-1)

    def mean(self) -> Tensor:
        """(C,) average log-probability a token; an empty completion counts as one token."""
        return self.sum() / self.lengths

    @property
    def lengths(self) -> Tensor:
        """(C,) number of tokens, at least 1."""
        return self.mask.sum(-1).clamp_min(1)

    def detach(self) -> Scores:
        """The same numbers without gradient."""
        return replace(
            self,
            logps=self.logps.detach(),
            distributions=None if self.distributions is None else self.distributions.detach(),
            values=None if self.values is None else self.values.detach(),
            rewards=None if self.rewards is None else self.rewards.detach(),
        )

    def at(self, completions: Tensor) -> Scores:
        """The scores of some completions, by their (m,) indices, as wide as the longest of them."""
        mask = self.mask[completions]
        width = int(mask.sum(-1).max()) if mask.numel() else 0
        distributions = self.distributions
        if distributions is not None:
            places = self.mask.flatten().cumsum(0).reshape(self.mask.shape) - 1
            distributions = distributions.at(places[completions][mask])
        return Scores(
            self.logps[completions][:, :width],
            mask[:, :width],
            distributions,
            None if self.values is None else self.values[completions][:, :width],
            None if self.rewards is None else self.rewards[completions],
        )

    def over_vocabulary(
        self, statistic: Callable[..., Tensor], *others: Scores, beside: Sequence[Tensor] = ()
    ) -> Tensor:
        """(C, T) a statistic of the full distribution at every token; 0 where the mask is False.

        Args:
            statistic: (m, V) log-probabilities of this model, and of each of the ``others``, to (m,) values.
            others: what other models say about the same batch, such as the reference.
            beside: (C, T) tensors, such as token ids, of which the statistic gets (m,) parts as its last arguments.

        Raises:
            PluginError: the distributions were not asked for, with ``Needs(vocabulary=True)``.
        """
        found = [scores.distributions for scores in (self, *others)]
        known = [distributions for distributions in found if distributions is not None]
        if len(known) < len(found):
            raise PluginError("full distributions are there for algorithms that declare Needs(vocabulary=True)")
        values = known[0].over(statistic, *known[1:], beside=[tensor[self.mask] for tensor in beside])
        return torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device).masked_scatter(self.mask, values)

    def entropies(self) -> Tensor:
        """(C, T) entropy of the distribution each token was picked from, in nats."""
        return self.over_vocabulary(lambda logps: -(logps.exp() * logps).sum(-1))


def _wide(values: Tensor) -> Tensor:
    # bf16 sums over a thousand tokens are wrong by about a nat, which is of the order of a preference margin.
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
