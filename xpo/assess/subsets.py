"""Subsets: which of them a row is of, and how many rows each has."""

from __future__ import annotations

from collections import Counter

from xpo.data.content import refuse, shown
from xpo.data.rows import Row
from xpo.data.sources import Rows
from xpo.errors import SettingError, did_you_mean

#: Name of the only subset, where the data has none.
WHOLE = "all"
#: The column of subsets that is looked for where none is named.
SUBSET = "subset"


def column_of(rows: Rows, wanted: str | None) -> str | None:
    """The column that tells subsets; None where there is none.

    Raises:
        SettingError: the ``wanted`` one is not there.
    """
    columns = rows.columns
    if wanted is None:
        return SUBSET if SUBSET in columns else None
    if wanted not in columns:
        names = ", ".join(f"'{name}'" for name in columns)
        raise SettingError(
            f"--subset_column {wanted}: {rows.origin} has no such column.{did_you_mean(wanted, columns)} It has {names}"
        )
    return wanted


def subset_of(row: Row, column: str | None) -> str:
    """The subset a row is of.

    Raises:
        DataError: it is neither a name nor a whole number.
    """
    if column is None:
        return WHOLE
    value = row.source.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise refuse(row.place, column, f"holds {shown(value)}", "the subset of a row is a name or a whole number")
    return str(value)


def rows_by_subset(rows: Rows, column: str | None) -> Counter[str]:
    """How many rows of the data each subset has, those that prefer nothing among them."""
    if column is None:
        return Counter({WHOLE: len(rows.rows)})
    values = [row.get(column) for row in rows.rows]
    return Counter(str(value) for value in values if isinstance(value, str | int) and value != "")
