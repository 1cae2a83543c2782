import datasets
import pytest

from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.sources import Rows
from xpo.errors import DataError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


PAIR = {"prompt": "p", "chosen": " yes", "rejected": " no"}
CHAT = {"prompt": [user("p")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}
LIST = {"prompt": "p", "completions": ["a", "b", "c"], "scores": [0.1, 2, -1]}
LABEL = {"prompt": "p", "completion": "c", "label": True}
FORGET = {"prompt": "p", "completion": "c", "split": "forget"}


def rows_of(*rows, kind=None, counts=None, **options):
    data = Rows.of(rows, "mine")
    kind = kind or detect(data.columns, forget_column=options.get("forget_column"))
    return canonical(data, kind, Counts() if counts is None else counts, **options)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["prompt", "chosen", "rejected"], "pairs"),
        (["chosen", "rejected", "id"], "pairs"),
        (["prompt", "completion", "label"], "labels"),
        (["prompt", "completion", "label", "split"], "labels"),
        (["prompt", "completions", "scores"], "lists"),
        (["prompt", "completion", "split"], "forget"),
        (["prompt"], "rollouts"),
        (["prompt", "answer"], "rollouts"),
    ],
)
def test_detect(columns, kind):
    assert detect(columns) == kind


def test_detect_prefers_what_is_wanted_where_the_columns_allow_it():
    columns = ["prompt", "chosen", "rejected", "completions", "scores"]
    assert detect(columns) == "pairs"
    assert detect(columns, want="lists") == "lists"
    assert detect(columns, want="labels") == "pairs"
    assert detect(["prompt", "completion", "split_01"], forget_column="split_01") == "forget"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["messages"], {"want": "pairs"}, "language modelling.*Columns needed: prompt, chosen, rejected"),
        (["question", "answer"], {}, "'question', 'answer', which is no kind of preference data"),
        (["prompt", "completion"], {}, "nothing that says how good.*'label'"),
        (["prompt", "completion", "split_01"], {}, r"may say what to forget: split_01\."),
        (["prompt", "completion"], {"forget_column": "split_01"}, "no column 'split_01'; it has 'prompt'"),
    ],
)
def test_detect_says_what_is_missing(columns, options, message):
    with pytest.raises(DataError, match=message):
        detect(columns, **options)


def test_pairs_with_text():
    (row,) = rows_of({**PAIR, "margin": 2, "score_chosen": 7, "rejected_score": 3.5, "id": "x"})
    assert (row.prompt, [answer.content for answer in row.answers], row.pairs) == ("p", [" yes", " no"], [(0, 1)])
    assert [answer.role for answer in row.answers] == ["chosen", "rejected"]
    assert [answer.score for answer in row.answers] == [7.0, 3.5]
    assert row.columns == {"margin": 2.0}
    assert (row.index, row.place, row.source["id"]) == (0, "mine row 1", "x")
    assert not row.conversational


def test_pairs_with_messages_and_with_speakers():
    speakers = {
        "prompt": [{"from": "human", "value": "p"}],
        "chosen": [{"from": "gpt", "value": "yes"}],
        "rejected": [{"from": "gpt", "value": "no"}],
    }
    rows = rows_of(CHAT, speakers)
    assert rows[0].key() == rows[1].key()
    assert rows[0].conversational
    assert speakers["prompt"] == [{"from": "human", "value": "p"}]  # the user's rows are left as they are


def test_rows_of_datasets_hold_null_where_a_key_is_missing():
    data = datasets.Dataset.from_list(
        [{**CHAT, "margin": None}, {**CHAT, "prompt": [{**user("p"), "name": "x"}], "margin": 1.0}]
    )
    rows = rows_of(*data.to_list())
    assert (rows[0].columns, rows[1].columns) == ({}, {"margin": 1.0})
    assert (rows[0].prompt, rows[1].prompt) == ([user("p")], [{**user("p"), "name": "x"}])


def test_a_prompt_repeated_in_the_completions_is_taken_off():
    both = {"chosen": [user("p"), assistant("yes")], "rejected": [user("p"), assistant("no")]}
    as_text, as_messages, without = (
        rows_of({"prompt": "p", **both}),
        rows_of({"prompt": [user("p")], **both}),
        rows_of(CHAT),
    )
    assert as_text[0].key() == as_messages[0].key() == without[0].key()


def test_identical_pairs_are_dropped_and_repeats_counted():
    counts = Counts()
    same = {"prompt": "p", "chosen": "a", "rejected": "a"}
    rows = rows_of(PAIR, same, PAIR, {"prompt": "q", "chosen": "a", "rejected": "b"}, counts=counts)
    assert [row.index for row in rows] == [0, 2, 3]
    assert (counts.rows, counts.identical, counts.duplicates) == (4, 1, 1)
    assert counts.lines() == [
        "1 of 4 rows are kept though they repeat an earlier row",
        "1 of 4 rows dropped: chosen and rejected are the same",
    ]
    assert rows_of({"chosen": "same", "rejected": "same"}, PAIR, counts=counts, kind="pairs")


def test_lists_labels_forget_and_prompts():
    (row,) = rows_of(LIST)
    assert [(answer.content, answer.score) for answer in row.answers] == [("a", 0.1), ("b", 2.0), ("c", -1.0)]
    assert [row.answers[0].label for row in rows_of(LABEL, {**LABEL, "label": 0})] == [True, False]
    assert [row.answers[0].role for row in rows_of(FORGET, {**FORGET, "split": "retain"})] == ["forget", "retain"]
    marked = rows_of({**FORGET, "gone": True}, {**FORGET, "gone": False}, forget_column="gone")
    assert [row.answers[0].role for row in marked] == ["forget", "retain"]
    (row,) = rows_of({"prompt": [user("p")]})
    assert row.answers == []


def test_labels_may_be_written_in_every_way_that_says_one_thing():
    rows = rows_of(*({**LABEL, "label": label} for label in (True, 1, 1.0, "True", " true", "TRUE", "1", "1.0")))
    assert [row.answers[0].label for row in rows] == [True] * 8
    rows = rows_of(*({**LABEL, "label": label} for label in (False, 0, 0.0, "False", "false ", "0", "0.0")))
    assert [row.answers[0].label for row in rows] == [False] * 7
    rows = rows_of(*({**FORGET, "gone": side} for side in ("True", "false", "Retain")), forget_column="gone")
    assert [row.answers[0].role for row in rows] == ["forget", "retain", "retain"]


TALK = [user("p"), assistant("a"), user("q"), assistant("b")]


def test_labels_of_whole_conversations_are_about_the_last_turn():
    counts = Counts()
    rows = rows_of({"messages": TALK, "label": 1}, {"messages": TALK[:2], "label": "false"}, counts=counts)
    assert [(row.prompt, row.answers[0].content, row.answers[0].label) for row in rows] == [
        (TALK[:3], TALK[3:], True),
        (TALK[:1], TALK[1:2], False),
    ]
    (line,) = counts.lines()
    assert line.startswith("Of each conversation the last message of the assistant is the completion; 1 earlier")
    with pytest.raises(DataError, match="mine row 1: column 'messages' does not end with what the assistant says"):
        rows_of({"messages": TALK[:3], "label": True})


@pytest.mark.parametrize(
    ("columns", "options", "kind"),
    [
        (["messages", "label"], {"want": "labels"}, "labels"),
        (["conversations", "score"], {"want": "labels", "scored": True}, "labels"),
        (["prompt", "messages", "label"], {}, "labels"),
        (["messages", "label", "chosen", "rejected"], {"want": "labels"}, "pairs"),
        # A label beside a demonstration may say anything.
        (["messages", "label"], {"want": "demonstrations"}, "demonstrations"),
    ],
)
def test_detect_conversations_with_labels(columns, options, kind):
    assert detect(columns, **options) == kind


def test_a_conversation_as_demonstration_says_what_is_learned():
    counts = Counts()
    (row,) = rows_of({"messages": TALK}, kind="demonstrations", counts=counts)
    assert (row.prompt, row.answers[0].content) == (TALK[:3], TALK[3:])
    assert "1 earlier one is part of a prompt" in counts.lines()[0]
    with pytest.raises(DataError, match="column 'messages' ends with a message without content"):
        rows_of({"messages": [user("p"), assistant("")]}, kind="demonstrations")


def test_empty_columns_of_pictures_are_no_pictures():
    assert len(rows_of({**PAIR, "images": []}, {**PAIR, "prompt": "q", "images": None})) == 2


def test_a_system_prompt_that_is_not_read_is_told_of():
    counts = Counts()
    system = {"role": "system", "content": "Be brief."}
    rows_of(
        {**CHAT, "system": "Be brief."}, {**CHAT, "prompt": [system, user("p")], "system": "Be brief."}, counts=counts
    )
    line = "1 of 2 rows have a system prompt in a column of its own, which is not read: write it into the prompt"
    assert counts.lines() == [line]


def test_tools_and_template_options_ride_along():
    tool = {"type": "function", "function": {"name": "f"}}
    for tools in ([tool], '[{"type": "function", "function": {"name": "f"}}]'):
        (row,) = rows_of({**CHAT, "tools": tools, "chat_template_kwargs": {"enable_thinking": False}})
        assert row.template == {"tools": [tool], "enable_thinking": False}
    (row,) = rows_of({**CHAT, "tools": [], "chat_template_kwargs": None})
    assert row.template == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": None}, "column 'prompt' holds null; it must be text"),
        ({"prompt": 3}, "column 'prompt' holds 3; it must be text"),
        ({"prompt": []}, "column 'prompt' is an empty list"),
        ({"prompt": ["p"]}, r"column 'prompt\[0\]' is the string 'p' without role and content"),
        ({"prompt": [{"role": "user"}]}, r"column 'prompt\[0\]' is an object without role and content"),
        ({"prompt": [{"role": 1, "content": "p"}]}, "has the role 1"),
        ({"prompt": [{"role": "user", "content": None}]}, "has null as content"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "has a list as content; only text"),
        ({**PAIR, "chosen": ""}, "column 'chosen' is empty; fill it or remove the row"),
        ({**PAIR, "rejected": None}, "column 'rejected' holds null"),
        (
            {**PAIR, "chosen": [assistant("yes")]},
            "column 'chosen' is messages, but the prompt is text; a row must be all",
        ),
        ({**CHAT, "rejected": "no"}, "column 'rejected' is text, but the prompt is messages"),
        ({**CHAT, "chosen": [user("q"), assistant("a")]}, "messages of user, assistant after the prompt"),
        ({**CHAT, "chosen": [user("p")]}, "messages of nothing after the prompt"),
        ({**CHAT, "chosen": [assistant("")]}, "ends with a message without content"),
        ({**PAIR, "chosen": "so \ud83d"}, "column 'chosen' holds half of a surrogate pair"),
        ({**CHAT, "prompt": [user("\ude00")]}, r"column 'prompt\[0\]\.content' holds half of a surrogate pair"),
        ({**PAIR, "margin": "big"}, "column 'margin' holds the string 'big'; it must be a finite number"),
        ({**PAIR, "score_chosen": True}, "column 'score_chosen' holds True"),
        ({**LABEL, "label": "good"}, "column 'label' holds the string 'good'; a label is true or false"),
        ({**LABEL, "label": ""}, "column 'label' holds the string ''"),
        ({**LABEL, "label": [True]}, "column 'label' holds a list"),
        ({**LABEL, "label": None}, "column 'label' holds null"),
        ({**LABEL, "label": 2}, "column 'label' holds 2"),
        ({**LABEL, "label": 0.5}, r"column 'label' holds 0\.5"),
        ({**LABEL, "label": float("nan")}, "column 'label' holds nan"),
        ({**LIST, "scores": [1, 2]}, "column 'scores' has 2 numbers for 3 completions"),
        ({**LIST, "scores": [1, 2, float("nan")]}, r"column 'scores\[2\]' holds nan"),
        ({**LIST, "scores": [1, 2, "3"]}, r"column 'scores\[2\]' holds the string '3'"),
        ({**LIST, "completions": []}, "column 'completions' is an empty list"),
        ({**LIST, "completions": "a"}, "column 'completions' holds the string 'a'; it must be a list"),
        ({**LIST, "completions": ["a", "", "c"]}, r"column 'completions\[1\]' is empty"),
        ({**FORGET, "split": "train"}, "column 'split' holds the string 'train'; it must be 'forget' or 'retain'"),
        ({**FORGET, "split": 1}, "column 'split' holds 1"),
        (
            {**PAIR, "images": ["cat.png"]},
            "column 'images' holds pictures; only text can be trained on: remove the col",
        ),
        ({"prompt": "p", "image": {"bytes": b"x"}}, "column 'image' holds pictures"),
        ({**CHAT, "tools": "[{"}, "column 'tools' is not valid JSON"),
        ({**CHAT, "tools": 3}, "column 'tools' holds 3"),
        ({**CHAT, "chat_template_kwargs": 3}, "column 'chat_template_kwargs' holds 3"),
    ],
)
def test_bad_cells_name_place_column_and_fix(row, message):
    kind = detect(list(row))
    data = Rows.of([_good(kind), row], "mine")
    with pytest.raises(DataError, match=f"^mine row 2: .*{message}"):
        canonical(data, kind, Counts())


def _good(kind):
    return {"pairs": PAIR, "labels": LABEL, "lists": LIST, "forget": FORGET, "rollouts": {"prompt": "p"}}[kind]


def test_a_missing_column_names_those_that_are_there():
    with pytest.raises(DataError, match="mine row 2: column 'rejected' is missing; the row has 'prompt', 'chosen'"):
        rows_of(PAIR, {"prompt": "p", "chosen": "c"})
