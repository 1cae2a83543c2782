"""Pairs without a column for the prompt: what both completions begin with, where that is the prompt."""

import pytest

from tests.data.test_formats import PAIR, assistant, rows_of, user
from xpo.data.counts import Counts
from xpo.data.formats import detect
from xpo.errors import DataError

ORCA = {
    "system": "Be brief.",
    "question": "Why is the sky blue?",
    "chosen": "The air scatters it.",
    "rejected": "The sea.",
}
WHOLE = {"chosen": "Human: Why?\n\nAssistant: So.", "rejected": "Human: Why?\n\nAssistant: No idea."}


def test_an_implicit_prompt_is_the_common_beginning():
    (row,) = rows_of({"chosen": "The sky is blue.", "rejected": "The sky is green."})
    assert (row.prompt, [answer.content for answer in row.answers]) == ("The sky is", [" blue.", " green."])
    (row,) = rows_of({"chosen": [user("p"), assistant("yes")], "rejected": [user("p"), assistant("no")]})
    assert (row.prompt, [answer.content for answer in row.answers]) == (
        [user("p")],
        [[assistant("yes")], [assistant("no")]],
    )


def test_an_implicit_prompt_leaves_something_of_a_completion_that_is_the_others_beginning():
    (row,) = rows_of({"chosen": "Q? A: yes", "rejected": "Q? A: yes, maybe"})
    assert all(answer.content for answer in row.answers)
    assert row.prompt + row.answers[1].content == "Q? A: yes, maybe"


def test_an_implicit_prompt_must_be_there():
    for chosen, rejected in (("yes ", "no"), ([user("p"), assistant("a")], [user("q"), assistant("b")])):
        with pytest.raises(DataError, match=r"mine row 1: there is no column 'prompt'.*do not begin with the same"):
            rows_of({"chosen": chosen, "rejected": rejected})
    with pytest.raises(DataError, match="not both text or both messages"):
        rows_of({"chosen": "a", "rejected": [assistant("b")]})


@pytest.mark.parametrize(
    ("columns", "named", "remedy"),
    [
        (["question"], "'question';", "rename it to 'prompt', and if not, remove it"),
        (["system", "question"], "'system' and 'question';", "write them into one column 'prompt'"),
    ],
)
def test_a_prompt_in_a_column_of_another_name_is_not_lost(columns, named, remedy):
    """Both completions begin with "The ", which is no prompt: the question would never be read."""
    row = {name: value for name, value in ORCA.items() if name in (*columns, "chosen", "rejected")}
    with pytest.raises(DataError, match=r"^mine row 1: there is no column 'prompt', and what chosen and") as error:
        rows_of(row)
    assert f"begin with does not hold {named}" in str(error.value)
    assert remedy in str(error.value)
    with pytest.raises(DataError, match=f"does not hold {named}"):
        rows_of({**row, "rejected": "No."})  # without a common letter the column is named too


@pytest.mark.parametrize(
    "column",
    [
        {"question": "Why?"},  # the prompt has it
        {"question": " Why?\n"},
        {"input": ""},
        {"context": None},
        {"system": []},
        {"source": "orca"},  # of no name that prompts have
    ],
)
def test_columns_that_hold_nothing_more_do_not_stand_in_the_way(column):
    (row,) = rows_of({**WHOLE, **column})
    assert (row.prompt, row.answers[0].content) == ("Human: Why?\n\nAssistant:", " So.")


def test_a_conversation_has_its_prompt_whatever_else_there_is():
    said = {"chosen": [user("p"), assistant("yes")], "rejected": [user("p"), assistant("no")]}
    (row,) = rows_of({**said, "question": "something else"})
    assert row.prompt == [user("p")]


def test_prompts_that_are_accidents_are_told_of():
    counts = Counts()
    rows_of(
        {"chosen": "The air.", "rejected": "The sea."}, {"chosen": "Then.", "rejected": "They."}, WHOLE, counts=counts
    )
    assert (counts.implied, counts.short, counts.within) == (3, 2, 1)
    (line,) = counts.lines()
    assert line.startswith(
        "2 of 3 rows have no prompt but the one or two words that chosen and rejected both begin with"
    )
    assert "write it into a column 'prompt'" in line
    counts = Counts()
    rows_of(WHOLE, {"chosen": "Then.", "rejected": "They."}, {**PAIR, "prompt": ""}, counts=counts, kind="pairs")
    assert counts.lines() == []  # of a few it is chance, and a prompt of its own may be short


def test_prompts_that_end_within_a_word_are_told_of():
    counts = Counts()
    (row,) = rows_of({"chosen": "Human: Why? Robot: Because", "rejected": "Human: Why? Robot: Being"}, counts=counts)
    assert row.prompt == "Human: Why? Robot: Be"
    assert "1 of 1 rows have a prompt that ends within a word" in counts.lines()[0]
    counts = Counts()
    rows_of(
        {"chosen": "问：天空为什么是蓝色的？答：因为", "rejected": "问：天空为什么是蓝色的？答：因此"}, counts=counts
    )
    assert counts.within == 0  # words of one character end with every character


def test_what_may_be_the_prompt_is_named_where_nothing_fits():
    with pytest.raises(
        DataError, match=r"no kind.* If the prompt is in 'instruction' and 'input', write it into a column"
    ):
        detect(["instruction", "input", "output"])
