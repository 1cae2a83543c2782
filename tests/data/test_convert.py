import pytest

from xpo.data.convert import convert
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.sources import Rows
from xpo.errors import DataError

PAIRS = [{"prompt": "p", "chosen": " yes", "rejected": " no", "margin": 1.0, "score_chosen": 9.0}]


def turned(rows, want, **options):
    data, counts = Rows.of(rows), Counts()
    have = detect(data.columns)
    found, sentence = convert(canonical(data, have, counts), have, want, counts, **options)
    return found, sentence, counts


def test_the_same_kind_is_left_alone():
    rows, sentence, _ = turned(PAIRS, "pairs")
    assert sentence is None
    assert rows[0].columns == {"margin": 1.0}


def test_pairs_to_labels():
    rows, sentence, _ = turned(PAIRS, "labels")
    assert [(row.answers[0].content, row.answers[0].label) for row in rows] == [(" yes", True), (" no", False)]
    assert all(len(row.answers) == 1 and row.answers[0].role == "completion" and not row.pairs for row in rows)
    assert [row.index for row in rows] == [0, 0]
    assert sentence.count(".") == 1


def test_pairs_to_lists():
    (row,), sentence, _ = turned(PAIRS, "lists")
    assert [(answer.role, answer.score) for answer in row.answers] == [("completion", 1.0), ("completion", 0.0)]
    assert row.pairs == []
    assert sentence


LISTS = [
    {"prompt": "p", "completions": ["a", "b", "c", "d"], "scores": [1, 3, 3, 0]},
    {"prompt": "q", "completions": ["a", "b"], "scores": [1, 1]},
    {"prompt": "r", "completions": ["same", "same"], "scores": [1, 0]},
]


def test_lists_to_the_best_against_the_worst():
    (row,), sentence, counts = turned(LISTS, "pairs")
    assert [(answer.content, answer.role) for answer in row.answers] == [("b", "chosen"), ("d", "rejected")]
    assert row.pairs == [(0, 1)]
    assert (counts.tied, counts.identical) == (1, 1)
    assert "best" in sentence
    assert counts.lines() == [
        "1 of 3 rows dropped: chosen and rejected are the same",
        "1 of 3 rows dropped: no completion scores above another",
    ]


def test_lists_to_all_pairs_share_their_completions():
    (row,), _, counts = turned(LISTS, "pairs", pairing="all")
    assert len(row.answers) == 4
    assert row.pairs == [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]
    assert (counts.tied, counts.identical) == (1, 1)


def test_anything_to_prompts_each_once():
    rows = [{**PAIRS[0], "chosen": f" {n}"} for n in range(3)] + [{**PAIRS[0], "prompt": "q"}]
    found, sentence, counts = turned(rows, "rollouts")
    assert [(row.prompt, row.answers, row.index) for row in found] == [("p", [], 0), ("q", [], 3)]
    assert counts.merged == 2
    assert sentence


@pytest.mark.parametrize(
    ("row", "want"),
    [
        ({"prompt": "p", "completion": "c", "label": True}, "pairs"),
        ({"prompt": "p", "completion": "c", "label": True}, "lists"),
        ({"prompt": "p", "completion": "c", "split": "forget"}, "labels"),
        ({"prompt": "p"}, "pairs"),
        (PAIRS[0], "forget"),
        (LISTS[0], "labels"),
    ],
)
def test_what_would_have_to_be_made_up_is_refused(row, want):
    with pytest.raises(DataError, match=r"cannot be made from it\. Columns needed: prompt.* It has: prompt"):
        turned([row], want)
