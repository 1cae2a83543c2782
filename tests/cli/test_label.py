"""``xpo label`` as a command: help, the embedded prompts, and one message for every mistake, with nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import MakePackage
from tests.refusals import refused
from xpo.cli import main
from xpo.testbed import reward

PROMPTS = [{"prompt": "w1"}, {"prompt": "w2"}]
PAIRS = [{"prompt": "w1", "chosen": "w2", "rejected": "w3"}]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in, but for some data."""
    monkeypatch.chdir(tmp_path)
    files = {
        "prompts": PROMPTS,
        "pairs": PAIRS,
        "bad": [*PAIRS, {"prompt": "w1", "chosen": "w2"}],
        "worse": [*PROMPTS, {"prompt": 7}],
        "lists": [{"prompt": "w1", "completions": "w2"}],
        "same": [{"prompt": "w1", "chosen": "w2", "rejected": "w2"}],
        "texts": [{"text": "w1"}],
        "answers": [{"completions": ["w1", "w2"]}],
    }
    for name, rows in files.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("mine.py").write_text("def judge(prompts, completions, **columns):\n    raise OSError('away')\n")
    Path("folder.jsonl").mkdir()


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from xpo.label.settings import slots

    assert main(["label", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in slots())
    assert "Works only with LoRA" not in text  # what TRL says of training
    assert "None" not in text


def test_the_testbed_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--dataset testbed --limit 4 --max_completion_length 48 --output out.jsonl"
    assert main(["label", *line.split()]) == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        for side in ("chosen", "rejected"):
            if not row[f"finished_{side}"]:
                continue
            [score] = reward.testbed_reward(prompts=[row["prompt"]], completions=[row[side]])
            assert row[f"score_{side}"] == pytest.approx(score)
        assert row["score_chosen"] > row["score_rejected"]
        assert (row["model"], row["rewards"]) == ("testbed", ["testbed"])
    out = capsys.readouterr().out
    assert out.startswith(f"4 prompts, {len(rows)} rows written\n")
    assert out.endswith("saved to out.jsonl\n")
    assert "16 completions sampled" in out


def test_its_data_can_be_had_in_every_knob_and_split() -> None:
    words = "label --dataset testbed:seed=3 --dataset_train_split test --limit 2 --max_completion_length 9"
    assert main([*words.split(), "--to", "lists", "--output", "out.jsonl"]) in (0, 1)
    assert json.loads(Path("out.jsonl.label").read_text())["data"]["origin"] == "testbed:seed=3[test]"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--dataset pairs.jsonl --judge mine.py:judge", "--output is missing"),
        ("--dataset pairs.jsonl --output out.jsonl", "somebody must say what completions are worth"),
        (
            "--dataset pairs.jsonl --output out.jsonl --judge mine.py:judge --reward testbed",
            "--reward and --judge both say",
        ),
        ("--dataset pairs.jsonl --output out.jsonl --judge slef", "judge 'slef' is unknown. Did you mean 'self'?"),
        ("--dataset pairs.jsonl --output out.jsonl --reward testbet", "reward 'testbet' is unknown. Did you mean"),
        ("--dataset pairs.jsonl --output none/out.jsonl --judge mine.py:judge", "the folder 'none' does not exist"),
        ("--dataset pairs.jsonl --output out.json --judge mine.py:judge", "give a name that ends in .jsonl"),
        ("--dataset pairs.jsonl --output folder.jsonl --judge mine.py:judge", "folder.jsonl cannot be written"),
        ("--dataset pairs.jsonl --output pairs.jsonl --judge mine.py:judge", "is the data itself"),
        ("--dataset texts.jsonl --output out.jsonl --judge mine.py:judge", "texts.jsonl is for language modelling"),
        ("--dataset answers.jsonl --output out.jsonl --judge mine.py:judge", "line 1: column 'prompt' is missing"),
        ("--dataset nothing.jsonl --output out.jsonl --judge mine.py:judge", "There is no data file 'nothing.jsonl'"),
        (
            "--dataset bad.jsonl --output out.jsonl --judge mine.py:judge",
            "bad.jsonl line 2: column 'rejected' is missing",
        ),
        (
            "--dataset worse.jsonl --model m --output out.jsonl --judge mine.py:judge",
            "worse.jsonl line 3: column 'prompt' holds 7",
        ),
        (
            "--dataset lists.jsonl --output out.jsonl --judge mine.py:judge",
            "lists.jsonl line 1: column 'completions' holds the string 'w2'; it must be a list",
        ),
        ("--dataset same.jsonl --output out.jsonl --judge mine.py:judge", "no row is left to label. 1 of 1 rows"),
        ("--dataset prompts.jsonl --output out.jsonl --judge mine.py:judge", "give the model that is to answer them"),
        (
            "--dataset prompts.jsonl --output out.jsonl --judge mine.py:judge --model ./none",
            "tokenizer './none' cannot be loaded: there is no such directory",
        ),
        ("--output out.jsonl --num_generations 1", "--num_generations must be at least 2"),
        ("--output out.jsonl --temperature 0", "--temperature must be positive, not 0"),
        ("--output out.jsonl --top_p 0", "--top_p must be above 0"),
        ("--output out.jsonl --batch_size 0", "--batch_size must be positive"),
        ("--output out.jsonl --limit 0", "--limit must be positive"),
        ("--output out.jsonl --to pears", "--to takes one of pairs, labels, lists, not 'pears'"),
        ("--output out.jsonl --temprature 1", "is not a setting of xpo label. Did you mean '--temperature'?"),
        ("--output out.jsonl --algo dpo", "--algo is not a setting of xpo label"),
        ("--output out.jsonl --model a --model_name_or_path b", "two names of one setting"),
        ("--output out.jsonl --to lists --online_pairs all", "--online_pairs has no effect here: it is about pairs"),
        ("--output out.jsonl --label_threshold 1", "--label_threshold has no effect here: it is about labels"),
        ("--output out.jsonl --judge_timeout 3", "--judge_timeout has no effect without --judge"),
        (
            "--output out.jsonl --judge mine.py:judge --judge_timeout 3",
            "--judge_timeout has no effect here: it is for --judge openai:MODEL",
        ),
        ("--output out.jsonl --judge mine.py:judge --judge_url http://x", "--judge_url is for language models"),
        ("--output out.jsonl --judge mine.py:judge --missing_eos_score 1", "--missing_eos_score has no effect here"),
        ("--output out.jsonl --missing_eos_score 1 --missing_eos_penalty 1", "--missing_eos_score takes the place"),
        ("--output out.jsonl --reward testbed --reward_weights 1 2", "has 2 numbers for 1 rewards"),
        ("--output out.jsonl --dataset testbed:nonsense=1", "nonsense"),
        ("--output out.jsonl --dataset testbed --dataset_train_split none", "no split 'none'"),
        (
            "--dataset pairs.jsonl --output out.jsonl --judge mine.py:judge",
            "judge 'judge' raised OSError: away",
        ),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(["label", *line.split()], capsys)


@pytest.mark.parametrize("kind", ["judge", "reward"])
def test_a_broken_plugin_is_explained(package: MakePackage, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    package("gone", {"gone.py": "raise ValueError('no')"}, {"point": "gone"})
    assert main(["label", "--dataset", "pairs.jsonl", "--output", "out.jsonl", f"--{kind}", "gone"]) == 2
    message = f"xpo: there is no {kind} 'gone', and the plugin of that name is broken: gone 1.0 "
    assert capsys.readouterr().err.splitlines()[-1].startswith(message)  # behind a line about all that is broken
    assert not Path("out.jsonl").exists()


def test_one_process_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["label", "--output", "out.jsonl"]) == 2
    assert "xpo label is one process" in capsys.readouterr().err
