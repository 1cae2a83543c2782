"""Conversations in cells of text: read where a column is full of them, and never learned as JSON without a word."""

import csv
import json

import pandas
import pytest

from tests.data.test_formats import CHAT, PAIR, assistant, rows_of, user
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.sources import Rows, read
from xpo.errors import DataError

TALK = [CHAT, {**CHAT, "prompt": [user("it's \u201cq\u201d,\nisn't it?")]}]
SPEAKERS = {"prompt": [{"from": "human", "value": "p"}], "chosen": [{"from": "gpt", "value": "yes"}]}


def contents(rows):
    counts = Counts()
    found = canonical(rows, detect(rows.columns), counts)
    return [(row.prompt, [answer.content for answer in row.answers]) for row in found], counts.lines()


@pytest.mark.parametrize("write", [json.dumps, str])
def test_csv_of_conversations_is_read_as_conversations(tmp_path, write):
    """``str`` is what pandas and datasets write for a list."""
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CHAT)
        writer.writerows([write(cell) for cell in row.values()] for row in TALK)
    found, lines = contents(read(str(tmp_path / "rows.csv")))
    assert found == contents(Rows.of(TALK))[0]
    assert lines == [f"Column '{column}' holds messages written as text; they are read as messages." for column in CHAT]


def test_what_pandas_writes_is_read(tmp_path):
    pandas.DataFrame(TALK).to_csv(tmp_path / "rows.csv", index=False)
    found, _ = contents(read(str(tmp_path / "rows.csv")))
    assert found == contents(Rows.of(TALK))[0]


def test_rewards_see_messages():
    (row,) = rows_of({key: json.dumps(cell) for key, cell in CHAT.items()})
    assert row.source["prompt"] == [user("p")]


def test_speakers_in_text():
    row = {key: json.dumps(cell) for key, cell in SPEAKERS.items()}
    (found,) = rows_of({**row, "rejected": json.dumps([{"from": "gpt", "value": "no"}])})
    assert (found.prompt, found.answers[0].content) == ([user("p")], [assistant("yes")])


def test_text_stays_text():
    for text in ("[1, 2]", '[{"a": 1}]', '{"role": "user", "content": "x"}', "[{role: user}]"):
        counts = Counts()
        (row,) = rows_of({**PAIR, "chosen": text}, counts=counts)
        assert (row.answers[0].content, counts.lines()) == (text, [])


def test_a_column_of_both_stays_text_and_is_told_of():
    counts = Counts()
    rows = rows_of(PAIR, {**PAIR, "chosen": json.dumps([assistant("yes")])}, counts=counts)
    assert isinstance(rows[1].answers[0].content, str)
    assert "1 of 2 cells of column 'chosen' look like messages written as text" in counts.lines()[0]


def test_a_cell_that_cannot_be_read_is_named():
    broken = str([user("a"), user("b")]).replace("}, {", "}\n {")  # as numpy prints what it holds
    row = {key: json.dumps(cell) for key, cell in CHAT.items()}
    with pytest.raises(DataError, match=r"^mine row 2: column 'prompt' looks like messages.*json\.dumps"):
        rows_of(row, {**row, "prompt": broken})
