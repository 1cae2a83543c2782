import csv
import gzip
import json
import re

import datasets
import pandas
import pyarrow
import pytest

from xpo.data import hub
from xpo.data.sources import Rows, read, splits
from xpo.errors import DataError

ROWS = [{"prompt": f"p{n}", "chosen": " yes", "rejected": " no"} for n in range(3)]


def test_json_lines_name_the_line_even_after_blank_ones(jsonl):
    rows = read(str(jsonl([ROWS[0], "", ROWS[1], ROWS[2]], "pairs.jsonl")))
    assert list(rows.rows) == ROWS
    assert [rows.place(n) for n in range(3)] == ["pairs.jsonl line 1", "pairs.jsonl line 3", "pairs.jsonl line 4"]
    assert rows.origin == "pairs.jsonl"


def test_every_format_reads_the_same_rows(tmp_path, jsonl, capfd):
    data = datasets.Dataset.from_list(ROWS)
    jsonl(ROWS, "a.jsonl")
    jsonl(ROWS, "b.json")  # JSON lines under the other name
    (tmp_path / "c.json").write_text(json.dumps(ROWS, indent=1))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    with (tmp_path / "e.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    data.to_parquet(str(tmp_path / "f.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict(train=data).save_to_disk(str(tmp_path / "dict"))
    capfd.readouterr()
    names = ["a.jsonl", "b.json", "c.json", "d.jsonl.gz", "e.csv", "f.parquet", "saved", "dict"]
    read_rows = [read(str(tmp_path / name)) for name in names]
    assert [list(rows.rows) for rows in read_rows] == [ROWS] * len(names)
    assert len({rows.fingerprint for rows in [*read_rows, Rows.of(data), Rows.of(ROWS)]}) == 1
    assert read_rows[2].place(1) == "c.json row 2"
    assert read_rows[4].place(1) == "e.csv row 2"
    assert read_rows[5].place(1) == "f.parquet row 2"
    assert read_rows[6].place(1) == "saved[train] row 2"
    assert capfd.readouterr() == ("", "")


def test_some_of_the_rows_keep_their_places(jsonl):
    rows = read(str(jsonl(["", *ROWS])))
    some = rows.select([2, 1], " (held out)").select([1])
    assert (list(some.rows), some.place(0), some.origin) == ([ROWS[1]], "data.jsonl line 3", "data.jsonl (held out)")
    assert Rows.of(ROWS, "mine").select([2]).place(0) == "mine row 3"


def test_the_fingerprint_follows_the_content_and_the_order():
    changed = [{**ROWS[0], "chosen": " yes!"}, *ROWS[1:]]
    prints = [Rows.of(rows).fingerprint for rows in (ROWS, changed, ROWS[::-1])]
    assert len(set(prints)) == 3
    assert Rows.of([dict(reversed(list(row.items()))) for row in ROWS]).fingerprint == prints[0]


def test_line_separators_inside_strings_do_not_end_a_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a\u2028b"}\n{"prompt": "c"}\r\n', encoding="utf-8-sig")
    assert [row["prompt"] for row in read(str(tmp_path / "a.jsonl")).rows] == ["a\u2028b", "c"]


def test_csv_cells_are_text_unless_the_column_is_something_else(tmp_path):
    text = 'prompt,completion,label,margin,scores\r\n"2+2=, ""or""\nso",4,TRUE,0.5,"[1, 2]"\r\nx,None,0,,\r\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert list(read(str(tmp_path / "a.csv")).rows) == [
        {"prompt": '2+2=, "or"\nso', "completion": "4", "label": True, "margin": 0.5, "scores": [1, 2]},
        {"prompt": "x", "completion": "None", "label": False, "margin": None, "scores": None},
    ]


def test_a_folder_gives_splits_by_file_name(tmp_path, jsonl):
    jsonl(ROWS[:1], "train-00000-of-00002.jsonl")
    jsonl(ROWS[1:2], "train-00001-of-00002.jsonl")
    jsonl(ROWS[2:], "test.jsonl")
    jsonl(ROWS[2:], "dev.jsonl")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "README.md").write_text("about")
    assert sorted(splits(str(tmp_path))) == ["test", "train", "validation"]
    rows = read(str(tmp_path))
    assert list(rows.rows) == ROWS[:2]
    assert rows.place(1) == "train-00001-of-00002.jsonl line 1"
    assert list(read(str(tmp_path), split="test").rows) == ROWS[2:]
    with pytest.raises(DataError, match=r"no split 'tests'.*Did you mean 'test'"):
        read(str(tmp_path), split="tests")


def test_splits_of_shards_keep_their_own_names(tmp_path, jsonl):
    (tmp_path / "data").mkdir()
    for name in ("train_prefs", "test_prefs"):
        datasets.Dataset.from_list(ROWS).to_parquet(str(tmp_path / "data" / f"{name}-00000-of-00001.parquet"))
    assert sorted(splits(str(tmp_path))) == ["test_prefs", "train_prefs"]


def test_a_folder_without_split_names_is_all_train(tmp_path, jsonl):
    jsonl(ROWS[:2], "values.jsonl")
    jsonl(ROWS[2:], "more.jsonl")
    assert splits(str(tmp_path)) == ["train"]
    assert len(read(str(tmp_path))) == 3
    jsonl(ROWS, "train.jsonl")
    with pytest.raises(DataError, match=r"also more\.jsonl, values\.jsonl, which name no split"):
        read(str(tmp_path))


def test_saved_splits(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(str(tmp_path / "d"))
    assert splits(str(tmp_path / "d")) == ["train", "test"]
    assert len(read(str(tmp_path / "d"), split="test")) == 1
    with pytest.raises(DataError, match="no split 'dev'; it has train, test"):
        read(str(tmp_path / "d"), split="dev")
    (tmp_path / "d" / "train" / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded"):
        read(str(tmp_path / "d"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"prompt": "x"}\n{"prompt": }\n',
            r"a\.jsonl line 2 is not valid JSON: Expecting value at column 12",
        ),
        ("a.jsonl", b'{"prompt": "x"}\n[1]\n', r"a\.jsonl line 2 is an array; every row must be an object"),
        ("a.jsonl", b'{"prompt": "x"}\nnull\n', r"a\.jsonl line 2 is null"),
        (
            "a.json",
            b'[{"prompt": "x"},\n {"prompt" 1}]',
            r"a\.json line 2 is not valid JSON: Expecting ':' delimiter at",
        ),
        ("a.json", b'[{"prompt": "x"}, "y"]', r"a\.json row 2 is a string"),
        ("a.jsonl", b"", r"a\.jsonl is empty"),
        ("a.jsonl", b"\n \n", r"a\.jsonl holds no rows"),
        ("a.json", b"[]", r"a\.json holds no rows"),
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt": "\xff"}\n', r"a\.jsonl line 2 is not UTF-8"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz cannot be decompressed"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 999)[:-12] + b"0" * 12, r"a\.jsonl\.gz cannot be decompressed"),
        ("a.csv", b"prompt,label\nx\n", r"a\.csv row 1 has 1 cells, the header has 2 \(prompt, label\)"),
        ("a.csv", b"prompt,margin\nx,wide\n", r"a\.csv row 1: column 'margin' must hold a number, not 'wide'"),
        ("a.parquet", b"PAR1 but not really", r"a\.parquet cannot be read as Parquet"),
        ("a.txt", b"x", r"a\.txt: cannot read '\.txt' files; accepted are \.jsonl"),
    ],
)
def test_broken_files_are_named_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(str(tmp_path / name))


def test_a_missing_file_suggests_its_neighbours(tmp_path, jsonl):
    jsonl(ROWS, "pairs.jsonl")
    with pytest.raises(DataError, match=r"no data file .*Did you mean 'pairs\.jsonl'"):
        read(str(tmp_path / "pair.jsonl"))
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        splits(str(tmp_path / "nowhere" / "pairs.jsonl"))
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="holds no data files"):
        read(str(tmp_path / "void"))
    with pytest.raises(DataError, match=r"pairs\.jsonl has no split 'test'; it has train"):
        read(str(tmp_path / "pairs.jsonl"), split="test")


def test_hub_data_comes_through_datasets(monkeypatch):
    asked = []

    def load(*args, **options):
        asked.append((args, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    rows = read("owner/pairs", split="train[:3]", config="helpful")
    assert asked == [(("owner/pairs", "helpful"), {"split": "train[:3]"})]
    assert rows.place(0) == "owner/pairs[train[:3]] row 1"


def test_hub_failures_are_put_in_words(monkeypatch, tmp_path, jsonl):
    def offline(*_, **__):
        raise ConnectionError("Couldn't reach 'owner/pairs' on the Hub\nmore")

    monkeypatch.setattr(hub.datasets, "load_dataset", offline)
    monkeypatch.setattr(hub.datasets, "get_dataset_split_names", offline)
    jsonl(ROWS, "pairs.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read("pairs")
    for part in (
        "from the hub (Couldn't reach 'owner/pairs' on the Hub)",
        "Without a network",
        "Did you mean 'pairs.jsonl'",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="Without a network"):
        splits("owner/pairs")

    def no_split(*_, **__):
        raise ValueError('Unknown split "tes". Should be one of [...].')

    monkeypatch.setattr(hub.datasets, "load_dataset", no_split)
    monkeypatch.setattr(hub.datasets, "get_dataset_split_names", lambda *_: ["train", "test"])
    with pytest.raises(DataError, match=re.escape("no split 'tes'; it has train, test. Did you mean 'test'?")):
        read("owner/pairs", split="tes")

    def no_config(*_, **__):
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']")

    monkeypatch.setattr(hub.datasets, "load_dataset", no_config)
    with pytest.raises(DataError, match=r"choose a configuration with --dataset_config.*\['a', 'b'\]"):
        read("owner/pairs")


def test_rows_from_python():
    data = datasets.Dataset.from_list(ROWS)
    both = datasets.DatasetDict(train=data, test=data.select([0]))
    assert len(Rows.of(both, "mine", split="test")) == 1
    assert Rows.of(both, "mine").place(1) == "mine[train] row 2"
    assert Rows.of(ROWS).columns == ["prompt", "chosen", "rejected"]
    assert Rows.of(iter(ROWS)).rows == ROWS
    rows = Rows.of(ROWS)
    assert Rows.of(rows) is rows
    for wrong, message in (
        ("pairs.jsonl", "a str is no data set"),
        (3, "a int is no data set"),
        ([], "holds no rows"),
        ([ROWS[0], 4], "row 2 is a int"),
        (both["train"].select([]), "holds no rows"),
    ):
        with pytest.raises(DataError, match=message):
            Rows.of(wrong)
    with pytest.raises(DataError, match="no split 'dev'; it has train, test"):
        Rows.of(both, split="dev")


def test_tables_are_rows_too():
    frame = pandas.DataFrame(ROWS, index=[7, 3, 5])
    polars = type("DataFrame", (), {"to_dicts": lambda self: ROWS})()
    streamed = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    for table in (frame, pyarrow.Table.from_pylist(ROWS), polars, streamed, iter(ROWS)):
        assert Rows.of(table).rows == ROWS
    talk = [{"prompt": [{"role": "user", "content": "p"}], "margin": 1.0}, {"prompt": None, "margin": None}]
    assert Rows.of(pandas.DataFrame(talk)).rows == talk  # a null is no NaN
    with pytest.raises(DataError, match=r"^frame holds no rows"):
        Rows.of(frame[:0], "frame")
    with pytest.raises(DataError, match=r"^frame: the data frame cannot be read: .*or pass frame\.to_dict"):
        Rows.of(pandas.DataFrame({"prompt": [1, "p", []]}), "frame")
    with pytest.raises(DataError, match=r"^column row 1 is a str"):
        Rows.of(frame["prompt"], "column")
