"""From rows as read to groups in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Group, Kind
from xpo.data.convert import Pairing, convert
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.sources import Rows
from xpo.data.tokenize import tokenize
from xpo.errors import DataError


@dataclass(frozen=True)
class Prepared:
    """Groups and how they came about.

    Attributes:
        groups: the groups, in the order of the data.
        have: the kind of the data as read.
        counts: what happened to the rows.
        conversion: the sentence on what the data was turned into; None when it already was what was wanted.
    """

    groups: list[Group]
    have: Kind
    counts: Counts
    conversion: str | None

    def lines(self) -> list[str]:
        """What a user should know about the data."""
        return ([self.conversion] if self.conversion else []) + self.counts.lines()


def prepare(
    rows: Rows,
    want: Kind,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    max_prompt_length: int | None = None,
    pairing: Pairing = "best_worst",
    forget_column: str | None = None,
    extras: Mapping[str, Sequence[str]] | None = None,
    columns: Sequence[str] = (),
    scored: bool = False,
) -> Prepared:
    """The rows as groups of the kind ``want``; see the modules for each step and its arguments."""
    counts = Counts()
    have = detect(rows.columns, want=want, forget_column=forget_column, scored=scored, origin=rows.origin)
    found = canonical(
        rows,
        have,
        counts,
        forget_column=forget_column,
        extras=extras,
        columns=columns,
        scored=scored and have == want,  # what is made of another kind is given its numbers below
    )
    found, conversion = convert(found, have, want, counts, pairing=pairing, scored=scored, origin=rows.origin)
    groups, _ = tokenize(found, tokenizer, max_length=max_length, max_prompt_length=max_prompt_length, counts=counts)
    if not groups:
        raise DataError(f"{rows.origin}: no row is left to learn from. {'; '.join(counts.lines())}.")
    return Prepared(groups, have, counts, conversion)
