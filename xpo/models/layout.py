"""Layout: the completions of a batch as the rows a model reads, and where in them each completion token is predicted.

``padded`` gives every completion a row of its own. ``tree`` computes what completions have in common once: a prompt is
followed by its completions as branches, branches part where their tokens do, and several such trees share a row.
Masks come from lengths and positions, so a padding token that equals EOS does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from xpo.api.batch import Batch

#: Widest row that trees are packed into; a mask of the square of it is held while a batch is scored.
WIDEST = 8192
#: Share of positions that must hold a token, where rows can be made so.
FILL = 0.85


@dataclass(frozen=True)
class Layout:
    """Rows for a model: R rows of L positions, which predict n completion tokens.

    Attributes:
        input_ids: (R, L) tokens; 0 where there is none.
        positions: (R, L) how many tokens come before each in its own sequence.
        real: (R, L) True where there is a token.
        ends: (R, L) in a tree the last column of what continues each token; None for padded rows, which are causal.
        completion, token: (n,) which completion of the batch, and which of its tokens, is predicted ...
        source: (n,) ... at which position, counted through all rows.
        last: (m, 2) which completion, and the position of its last token; only where rows hold ``whole`` completions.
    """

    input_ids: Tensor
    positions: Tensor
    real: Tensor
    ends: Tensor | None
    completion: Tensor
    token: Tensor
    source: Tensor
    last: Tensor | None = None

    def visible(self, window: int | None = None, chunk: int | None = None) -> Tensor:
        """(R, L, L) whether the token of the second index is seen from that of the first; for trees.

        With a ``window``, only that many tokens up to it in its own sequence, itself included; with a ``chunk``, only
        those in the same chunk of that many.
        """
        assert self.ends is not None
        column = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return sees(
            self.ends[:, None, :],
            self.positions[:, None, :],
            column,
            self.positions[:, :, None],
            column[:, None],
            window,
            chunk,
        )

    @property
    def fill(self) -> float:
        """Share of positions that hold a token."""
        return float(self.real.float().mean())


def sees(
    ends: Tensor,
    position: Tensor,
    column: Tensor,
    own_position: Tensor,
    own_column: Tensor,
    window: int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Whether a token sees another of its row: what the other is continued by must reach it. All arguments broadcast.

    Args:
        ends, position, column: of the other token: the last column that continues it, its place in its own sequence,
            and its place in the row.
        own_position, own_column: of the token itself.
        window, chunk: what a layer narrows its view to, counted in the sequence and not along the row.
    """
    seen = (column <= own_column) & (ends >= own_column)
    if window is not None:
        seen = seen & (position > own_position - window)
    if chunk is not None:
        seen = seen & (position // chunk == own_position // chunk)
    return seen


class Arrange(Protocol):
    """Lays out some completions of a batch.

    The last token of a completion predicts nothing that is asked for: it is in the rows of ``whole`` completions only.
    """

    def __call__(self, batch: Batch, completions: Tensor, whole: bool = False) -> Layout: ...


def padded(batch: Batch, completions: Tensor, whole: bool = False) -> Layout:
    """One row for each of the ``completions`` (indices into the batch): prompt, completion, padding on the right."""
    made = _Builder(whole)
    for index, prompt, after, ids in _chosen(batch, completions):
        made.row()
        made.prompt(prompt[:after])
        made.branches([(ids, index, 0)])
    return made.layout(batch, tree=False)


@dataclass(frozen=True)
class Tree:
    """Arranges completions as trees.

    Attributes:
        reach: row width at which looking at all positions of a row costs as much as everything else a layer does.
            Rows are packed so that the sum of both is least.
    """

    reach: float = 4096.0

    def __call__(self, batch: Batch, completions: Tensor, whole: bool = False) -> Layout:
        """Rows for the ``completions`` (indices into the batch); those with one prompt share it."""
        prompts: dict[tuple[int, ...], list[tuple[int, list[int], int]]] = {}
        for index, prompt, after, ids in _chosen(batch, completions):
            prompts.setdefault(tuple(prompt), []).append((after, ids, index))
        items = [_rooted(prompt, answers) for prompt, answers in prompts.items()]
        sizes = [len(stem) + _branch_size(branches, whole) for stem, branches in items]
        made = _Builder(whole)
        for bin_ in pack(sizes, self.reach):
            made.row()
            for number in bin_:
                stem, branches = items[number]
                made.prompt(stem)
                made.branches(branches)
        return made.layout(batch, tree=True)


def pack(sizes: Sequence[int], reach: float) -> list[list[int]]:
    """Spread trees over rows of one width so that computing all rows costs least: the indices of each row, in order.

    R rows of width L cost R L (1 + L / reach). For every R the trees are dealt out largest first, each to the row that
    is emptiest; rows with more gaps than ``FILL`` allows are not considered.
    """
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    longest, total = sizes[order[0]], sum(sizes)
    best: tuple[float, list[list[int]]] | None = None
    for count in range(1, len(sizes) + 1):
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for index in order:
            row = filled.index(min(filled))
            rows[row].append(index)
            filled[row] += sizes[index]
        width = max(filled)
        cost = count * width * (1.0 + width / reach)
        allowed = width <= max(WIDEST, longest) and (best is None or total >= FILL * count * width)
        if allowed and (best is None or cost < best[0]):
            best = cost, rows
        if width == longest:  # more rows are no narrower
            break
    assert best is not None
    return [sorted(row) for row in best[1]]


@dataclass
class _Builder:
    """Collects rows token by token: ids, positions, ends, and what each position predicts."""

    whole: bool
    ids: list[list[int]] = field(default_factory=list)
    positions: list[list[int]] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)
    predicted: list[tuple[int, int, int, int]] = field(default_factory=list)  # completion, token, row, column
    last: list[tuple[int, int, int]] = field(default_factory=list)  # completion, row, column
    start: int = 0  # column of the last prompt's first token

    def row(self) -> None:
        for rows in (self.ids, self.positions, self.ends):
            rows.append([])

    def prompt(self, ids: Sequence[int]) -> None:
        self.start = len(self.ids[-1])
        self.ids[-1].extend(ids)
        self.positions[-1].extend(range(len(ids)))
        self.ends[-1].extend([0] * len(ids))

    def branches(self, branches: Sequence[Branch]) -> None:
        """Completions of the last prompt."""
        row, ids, positions, ends = len(self.ids) - 1, self.ids[-1], self.positions[-1], self.ends[-1]
        path: list[int] = []  # columns of the branch in hand
        before: list[int] = []
        depth = len(ids) - self.start
        trunk = len(ids) - 1
        # In sorted order each branch leaves the one before it, and what continues a token follows it without a gap.
        for tokens, completion, skipped in sorted(branches):
            inputs = tokens if self.whole else tokens[:-1]
            common = _common(before, inputs)
            for column in path[common:]:
                ends[column] = len(ids) - 1
            del path[common:]
            path.extend(range(len(ids), len(ids) + len(inputs) - common))
            ids.extend(inputs[common:])
            positions.extend(range(depth + common, depth + len(inputs)))
            ends.extend([0] * (len(inputs) - common))
            places = [trunk, *path][skipped : len(tokens)]
            self.predicted.extend((completion, token, row, column) for token, column in enumerate(places))
            self.last.append((completion, row, path[-1] if path else trunk))
            before = inputs
        for column in (*path, *range(self.start, trunk + 1)):
            ends[column] = len(ids) - 1

    def layout(self, batch: Batch, *, tree: bool) -> Layout:
        width = max(map(len, self.ids))
        device = batch.mask.device
        missing = [width - len(ids) for ids in self.ids]

        def tensor(rows: list[list[int]]) -> Tensor:
            return torch.tensor([row + [0] * gap for row, gap in zip(rows, missing, strict=True)], device=device)

        real = torch.tensor([[True] * (width - gap) + [False] * gap for gap in missing], device=device)
        # A position without a token sees itself alone: a softmax over nothing would not be a number.
        ends = torch.where(real, tensor(self.ends), torch.arange(width, device=device)) if tree else None
        predicted = torch.tensor(self.predicted, dtype=torch.long, device=device).reshape(-1, 4)
        completion, token, row, column = predicted.unbind(1)
        last = [(completion, row * width + column) for completion, row, column in self.last]
        return Layout(
            tensor(self.ids),
            tensor(self.positions),
            real,
            ends,
            completion,
            token,
            row * width + column,
            torch.tensor(last, dtype=torch.long, device=device).reshape(-1, 2) if self.whole else None,
        )


#: (tokens, index of the completion, how many of the tokens belong to the prompt and are not predicted).
Branch = tuple[list[int], int, int]


def _chosen(batch: Batch, completions: Tensor) -> list[tuple[int, list[int], int, list[int]]]:
    """(index, prompt ids, how many of these it continues, completion ids) of some completions of a batch."""
    everyone = [
        (group.prompt_ids, len(group.prompt_ids) if one.after is None else one.after, one.ids)
        for group in batch.groups
        for one in group.completions
    ]
    return [(index, *everyone[index]) for index in completions.tolist()]


def _rooted(prompt: Sequence[int], answers: Sequence[tuple[int, list[int], int]]) -> tuple[list[int], list[Branch]]:
    """The part of a prompt that all ``answers`` continue, and their branches, with the rest of the prompt where due."""
    stem = min(after for after, _, _ in answers)
    return list(prompt[:stem]), [([*prompt[stem:after], *ids], index, after - stem) for after, ids, index in answers]


def _branch_size(branches: Sequence[Branch], whole: bool) -> int:
    size = 0
    before: list[int] = []
    for tokens, _, _ in sorted(branches):
        inputs = tokens if whole else tokens[:-1]
        size += len(inputs) - _common(before, inputs)
        before = inputs
    return size


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    for length, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return length
    return min(len(one), len(other))
