"""``xpo eval`` as a command: help, the testbed, what is written, and one message for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.assess.conftest import SOURCE
from tests.refusals import refused
from xpo.cli import main

PAIRS = [
    {"prompt": "w1", "chosen": " w2", "rejected": " w3", "subset": "a", "kind": 1},
    {"prompt": "w4", "chosen": " w5 w6", "rejected": " w3", "subset": "b", "kind": 2},
]
FILES = {
    "pairs": PAIRS,
    "prompts": [{"prompt": "w1"}, {"prompt": "w2"}],
    "bad": [*PAIRS, {"prompt": "w1", "chosen": " w2", "subset": "a"}],
    "nosubset": [*PAIRS, {"prompt": "w1", "chosen": " w2", "rejected": " w4"}],
    "same": [{"prompt": "w1", "chosen": " w2", "rejected": " w2"}],
    "tied": [{"prompt": "w1", "completions": [" w2", " w3"], "scores": [1, 1]}],
    "good": [{"prompt": "w1", "completion": " w2", "label": True}],
    "texts": [{"text": "w1"}],
    "talk": [
        {
            "prompt": [{"role": "user", "content": "w1"}],
            "chosen": [{"role": "assistant", "content": "w2"}],
            "rejected": [{"role": "assistant", "content": "w3"}],
        }
    ],
    "theirs": [{"prompt": "w1", "completion": " w2"}],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.saved(folder / "m")
    tiny.saved(folder / "n", seed=1)
    tiny.classifier().save_pretrained(folder / "rm")
    tiny.tokenizer().save_pretrained(folder / "rm")
    tiny.saved(folder / "more", vocabulary=tiny.SIZE - 3)
    return folder


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with some data and models."""
    monkeypatch.chdir(tmp_path)
    for name, rows in FILES.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("m", "n", "rm", "more"):
        Path(name).symlink_to(models / name)
    Path("mine.py").write_text(SOURCE)
    Path("sections.yaml").write_text("One: [a]\n")
    Path("empty.jsonl").write_text("")
    Path("file").write_text("")
    Path("full").mkdir()
    (Path("full") / "notes.txt").write_text("mine")


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from xpo.assess.settings import slots

    assert main(["eval", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in slots())
    assert "Works only with LoRA" not in text  # what TRL says of training


def test_the_testbed_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    line = "eval --model testbed --reward testbed --dataset testbed:temperature=0,size=12 --output_dir out"
    assert main(line.split()) == 0
    body = json.loads(Path("out/eval.json").read_text())
    assert body["command"] == f"xpo {line}"
    assert body["data"]["origin"] == "testbed:temperature=0,size=12[test]"
    assert len(body["data"]["fingerprint"]) == 64
    truth = next(one for one in body["table"]["lines"] if one["name"].startswith("testbed (reward)"))
    assert truth["numbers"]["mean_over_all"]["value"] == 1.0  # the data was labelled by it
    assert body["xpo_version"]
    assert body["versions"]["torch"]
    assert body["device"]["kind"] in ("cpu", "cuda")
    assert len(next(one for one in body["table"]["lines"] if one["name"] == "testbed")["model"]) == 64
    assert sorted(path.name for path in Path("out").iterdir()) == ["eval.csv", "eval.json", "eval.md", "items.jsonl"]
    out = capsys.readouterr().out
    assert out.endswith("saved to out: eval.json, eval.md, eval.csv, items.jsonl\n")


def test_subsets_and_sections(capsys: pytest.CaptureFixture[str]) -> None:
    line = "eval --reward mine.py:length --dataset pairs.jsonl --sections sections.yaml --output_dir out"
    assert main(line.split()) == 0
    body = json.loads(Path("out/eval.json").read_text())
    assert [one["key"] for one in body["table"]["columns"]] == [
        *("mean_over_all", "mean_of_subsets", "section/One", "mean_of_sections", "subset/a", "subset/b"),
    ]
    [found, _] = body["table"]["lines"]
    assert [number["value"] for number in found["numbers"].values()] == [0.75, 0.75, 0.5, 0.5, 0.5, 1.0]
    assert body["data"]["subset_column"] == "subset"
    assert "subsets in no section: b" in capsys.readouterr().out
    head = Path("out/eval.csv").read_text().splitlines()[0]
    assert all(f",{name}," in head for name in ("subset/a", "subset/b", "mean_of_subsets", "mean_over_all", "n/a"))
    table = Path("out/eval.md").read_text()
    assert "| a (n 1) | b (n 1) |" in table


def test_a_subset_without_a_preference_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "w1", "completions": [" w2", " w3 w4"], "scores": [0, 1], "subset": "a"},
        {"prompt": "w1", "completions": [" w2", " w3"], "scores": [1, 1], "subset": "b"},
    ]
    Path("lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["eval", "--reward", "mine.py:length", "--dataset", "lists.jsonl", "--output_dir", "out"]) == 0
    assert "subset b has no preference in 1 rows and is left out" in capsys.readouterr().out
    assert json.loads(Path("out/eval.json").read_text())["table"]["subsets"] == {"a": 1, "b": 0}


def test_max_samples_takes_the_same_rows_every_time() -> None:
    rows = [{"prompt": f"w{n}", "chosen": " w2 w3", "rejected": " w4"} for n in range(30)]
    Path("many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for most in (5, 5, 12):
        out = f"out{len(found)}"
        line = f"eval --reward mine.py:length --dataset many.jsonl --max_samples {most} --output_dir {out}"
        assert main(line.split()) == 0
        found.append([json.loads(item)["row"] for item in Path(out, "items.jsonl").read_text().splitlines()])
    assert found[0] == found[1] == sorted(found[0])
    assert len(found[0]) == 5
    assert set(found[0]) < set(found[2])
    assert found[0] != list(range(5))


def test_an_evaluation_is_replaced_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    line = "eval --reward mine.py:length --dataset pairs.jsonl --output_dir out"
    Path("out").mkdir()  # empty
    assert main(line.split()) == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert main(line.split()) == 2
    assert "holds an earlier evaluation" in capsys.readouterr().err
    assert main([*line.split(), "--overwrite", "true", "--max_samples", "1"]) == 0
    assert len(Path("out/items.jsonl").read_text().splitlines()) == 1
    assert {path.name for path in Path("out").iterdir()} == set(before)
    # A replacement that fails leaves what was there.
    broken = "eval --reward mine.py:nothing --dataset pairs.jsonl --output_dir out --overwrite true"
    kept = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert main(broken.split()) == 2
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == kept
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


R = "--reward mine.py:length"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{R} --dataset pairs.jsonl", "--output_dir is missing"),
        ("--dataset pairs.jsonl --output_dir out", "--model is missing: the models to judge"),
        (f"{R} --dataset empty.jsonl --output_dir out", "empty.jsonl is empty"),
        (f"{R} --dataset prompts.jsonl --output_dir out", "which prefers no completion to another. Columns needed: "),
        (f"{R} --dataset texts.jsonl --output_dir out", "is for language modelling"),
        (f"{R} --dataset tied.jsonl --output_dir out", "no row prefers a completion to another. 1 of 1 rows are left"),
        (f"{R} --dataset good.jsonl --output_dir out", "1 of 1 prompts are left out: they have desirable completions"),
        (f"{R} --dataset same.jsonl --output_dir out", "1 of 1 rows dropped: chosen and rejected are the same"),
        (f"{R} --dataset bad.jsonl --output_dir out", "bad.jsonl line 3: column 'rejected' is missing"),
        (f"{R} --dataset nosubset.jsonl --output_dir out", "nosubset.jsonl line 3: column 'subset' holds null"),
        (
            f"{R} --dataset pairs.jsonl --subset_column subst --output_dir out",
            "pairs.jsonl has no such column. Did you mean 'subset'? It has 'prompt', 'chosen'",
        ),
        (f"{R} --dataset none.jsonl --output_dir out", "There is no data file 'none.jsonl'"),
        (f"{R} --dataset pairs.jsonl --dataset_split test --output_dir out", "has no split 'test'"),
        (f"{R} --dataset talk.jsonl --chat --output_dir out", "--chat has no effect here: the rows of talk.jsonl"),
        ("--model ./none --dataset pairs.jsonl --output_dir out", "tokenizer './none' cannot be loaded: there is no"),
        ("--model m,m --dataset pairs.jsonl --output_dir out", "--model names 'm' twice"),
        ("--model m --dataset talk.jsonl --output_dir out", "has no chat template"),
        ("--model m --ref_model ./none --dataset pairs.jsonl --output_dir out", "'./none' cannot be loaded"),
        ("--model m --ref_model more --dataset pairs.jsonl --output_dir out", "a vocabulary of"),
        ("--model m --scorer implicit --dataset pairs.jsonl --output_dir out", "--scorer implicit needs a reference"),
        (
            "--model m --scorer sum --dataset pairs.jsonl --output_dir out",
            "--scorer takes one of implicit, implicit_avg",
        ),
        ("--model m --scorer logp_avg --ref_model n --output_dir out", "is without a reference"),
        ("--model m --scorer logp_avg --beta 1 --output_dir out", "--beta has no effect here"),
        ("--model m --beta 1 --dataset pairs.jsonl --output_dir out", "no model is scored beside a reference"),
        (
            "--model rm --scorer logp_avg --dataset pairs.jsonl --output_dir out",
            "--scorer has no effect here: the models",
        ),
        (f"{R} --scorer logp_avg --output_dir out", "it is for scores of a language model; give --model"),
        (f"{R} --dataset pairs.jsonl --dtype bfloat16 --output_dir out", "--dtype has no effect here: no model is"),
        ("--model rm --dataset pairs.jsonl --load_in_4bit --output_dir out", "it is for language models, and none"),
        (
            f"{R} --eval_tokens 4 --output_dir out",
            "--eval_tokens has no effect here: nothing is sampled without --against",
        ),
        (f"{R} --seed 4 --output_dir out", "--seed has no effect here"),
        (f"{R} --dataset pairs.jsonl --max_samples 0 --output_dir out", "--max_samples must be positive, not 0"),
        (
            f"{R} --datset pairs.jsonl --output_dir out",
            "--datset is not a setting of xpo eval. Did you mean '--dataset'",
        ),
        (f"{R} --judge self --output_dir out", "--judge self: nobody judges by what is judged"),
        ("--judge mine.py:first --judge_timeout 3 --output_dir out", "it is for --judge openai:MODEL"),
        (f"{R} --judge_template x --output_dir out", "--judge_template has no effect without --judge"),
        ("--reward testbet --dataset pairs.jsonl --output_dir out", "reward 'testbet' is unknown. Did you mean"),
        (f"{R} --dataset pairs.jsonl --sections none.yaml --output_dir out", "--sections none.yaml: No such file"),
        (f"{R} --dataset talk.jsonl --sections sections.yaml --output_dir out", "the data has no subset of 'One' (a)"),
        (f"{R} --dataset pairs.jsonl --output_dir full", "full holds notes.txt, which xpo eval did not write"),
        (f"{R} --dataset pairs.jsonl --output_dir full --overwrite", "full holds notes.txt, which xpo eval did not"),
        (f"{R} --dataset pairs.jsonl --output_dir file", "file is not a directory"),
        (f"--model m --device tpux {R} --output_dir out", "--device tpux names no device"),
        (f"--model m --device cpu --use_cpu {R} --output_dir out", "give one of them"),
        ("--model m --against n --dataset prompts.jsonl --output_dir out", "somebody must say what answers are worth"),
        (f"--model m --against m {R} --dataset prompts.jsonl --output_dir out", "--against m is what --model is"),
        (f"--against m {R} --dataset prompts.jsonl --output_dir out", "--against needs --model"),
        (f"--model m --against n {R} --judge mine.py:first --output_dir out", "--reward and --judge both say"),
        (f"--model m --against n {R} --subset_column a --output_dir out", "it is about labelled preferences"),
        ("--model m --against theirs.jsonl --output_dir out", "somebody must say what answers are worth"),
        (f"--model theirs.jsonl {R} --output_dir out", "files of completions are compared, with --against"),
        (f"--model m --against n {R} --temperature 0 --output_dir out", "--temperature must be positive, not 0"),
        (
            "--model m --against n --judge mine.py:silent --eval_tokens 4 --dataset prompts.jsonl --output_dir out",
            "judge 'silent' came to no verdict on any prompt",
        ),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(["eval", *line.split()], capsys)


def test_one_process_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["eval", "--model", "m", "--output_dir", "out"]) == 2
    assert "xpo eval is one process" in capsys.readouterr().err
