"""Whatever is wrong: exit status 2, one message that names the place and the way out, and nothing written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.refusals import one_message
from tests.runs.conftest import Train, command

Refused = Callable[..., str]
PAIRS = tiny.rows("pairs", 6)
PAIR = PAIRS[0]
LORA = "--use_peft --lora_r 2 --lora_target_modules all-linear"


@pytest.fixture
def refused(train: Train) -> Refused:
    """The one message of a command that cannot work, after checking that nothing else has happened."""

    def run(*arguments: Any, began: bool = False, **options: Any) -> str:
        done = train(*arguments, **options)
        said = one_message(done.status, done.err)
        assert not done.folder.exists()
        assert done.out == ""
        if not began:  # what is found before the model is loaded comes alone
            assert done.err.startswith("xpo: ")
        assert len(said) < 1200
        return said

    return run


# Data


@pytest.mark.parametrize(
    ("algo", "rows", "message"),
    [
        ("dpo", [], "rows.jsonl is empty"),
        ("dpo", [PAIR, "", '{"prompt": "w1", '], "rows.jsonl line 3 is not valid JSON"),
        ("dpo", [PAIR, "[1, 2]"], "rows.jsonl line 2 is an array; every row must be an object"),
        ("dpo", [PAIR, "3"], "rows.jsonl line 2 is a int; every row must be an object"),
        ("dpo", [{"prompt": "w1", "chosen": "w2"}], "Columns needed: prompt, chosen, rejected"),
        ("dpo", [{"question": "w1", "answer": "w2"}], "'question', 'answer', which is no kind of preference data"),
        ("dpo", [{"messages": [{"role": "user", "content": "w1"}]}], "is for language modelling"),
        ("dpo", [PAIR, {"prompt": "w1", "chosen": "w2"}], "rows.jsonl line 2: column 'rejected' is missing"),
        ("dpo", [{**PAIR, "chosen": 3}], "rows.jsonl line 1: column 'chosen' holds 3; it must be text"),
        ("dpo", [{**PAIR, "chosen": None}], "rows.jsonl line 1: column 'chosen' holds null"),
        ("dpo", [{**PAIR, "chosen": ""}], "rows.jsonl line 1: column 'chosen' is empty; fill it or remove the row"),
        (
            "dpo",
            [{**PAIR, "chosen": [{"role": "assistant", "content": "w1"}]}],
            "is messages, but the prompt is text; a row must be all text or all messages",
        ),
        (
            "dpo",
            [{"prompt": [{"role": "user"}], "chosen": PAIR["chosen"], "rejected": PAIR["rejected"]}],
            "column 'prompt[0]' is an object without role and content",
        ),
        (
            "kto",
            [{"prompt": "w1", "completion": "w2", "label": "good"}],
            "rows.jsonl line 1: column 'label' holds the string 'good'; a label is true or false",
        ),
        (
            "dpo",
            [{"system": "w1", "question": "w2", "chosen": "w3 w4", "rejected": "w3 w5"}],
            "there is no column 'prompt', and what chosen and rejected both begin with does not hold 'system' and "
            "'question'",
        ),
        ("dpo", [PAIR, {**PAIR, "images": ["cat.png"]}], "rows.jsonl line 2: column 'images' holds pictures"),
        ("kto", [{"prompt": "w1", "completion": "w2"}], "add a column 'label'"),
        ("simpo", [{"prompt": "w1", "completions": ["w2", "w3"], "scores": [1]}], "has 1 numbers for 2 completions"),
        ("simpo", [{"prompt": "w1", "completions": ["w2", "w3"], "scores": [1, "2"]}], "column 'scores[1]' holds"),
        (
            "dpo",
            [{**PAIR, "rejected": PAIR["chosen"]}] * 2,
            "no row is left to learn from. 2 of 2 rows dropped: chosen",
        ),
        ("simpo", [{"prompt": "w1", "completions": ["w2", "w3"], "scores": [1, 1]}], "no completion scores above"),
    ],
)
def test_rows(refused: Refused, algo: str, rows: list[Any], message: str) -> None:
    text = refused(f"--algo {algo}", data=rows)
    assert message in text
    assert "rows.jsonl" in text


def test_files(refused: Refused, write: Callable[..., Path], tmp_path: Path) -> None:
    write(PAIRS, "pairs.jsonl")
    assert "There is no data file" in (text := refused("--algo dpo", data=tmp_path / "pair.jsonl"))
    assert "Did you mean 'pairs.jsonl'" in text
    assert "does not exist" in refused("--algo dpo", data=tmp_path / "nowhere" / "pairs.jsonl")
    assert "accepted are .jsonl" in refused("--algo dpo", data=write(PAIRS, "pairs.txt"))
    (tmp_path / "folder").mkdir()
    assert "holds no data files" in refused("--algo dpo", data=tmp_path / "folder")
    assert "cannot be decompressed" in refused("--algo dpo", data=write(PAIRS, "pairs.jsonl.gz"))
    assert "cannot be read as Parquet" in refused("--algo dpo", data=write(PAIRS, "pairs.parquet"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "w1"}\n{"prompt": "\xe9"}\n')
    assert "latin.jsonl line 2 is not UTF-8" in refused("--algo dpo", data=tmp_path / "latin.jsonl")
    (tmp_path / "cells.csv").write_text("prompt,chosen,rejected\nw1,w2,w3\nw1,w2\n")
    assert "cells.csv row 2 has 2 cells, the header has 3" in refused("--algo dpo", data=tmp_path / "cells.csv")
    assert "no data set of that name could be loaded" in refused("--algo dpo", data="someone/pairs")
    line = "--algo dpo --dataset_train_split trein"
    assert "has no split 'trein'; it has train. Did you mean 'train'" in refused(line, data=tmp_path / "pairs.jsonl")


def test_lengths(refused: Refused) -> None:
    assert "longer than --max_length 3 allows" in refused("--algo dpo --max_length 3", data=[PAIR])
    assert "--max_length must be positive, not 0" in refused("--algo dpo --max_length 0", data=PAIRS)
    assert "leaves nothing to train or evaluate on" in refused("--algo dpo --eval_size 6", data=PAIRS)
    said = refused("--algo kto --per_device_train_batch_size 8", data=tiny.rows("labels", 1), began=True)
    assert "needs at least 2 in a batch" in said


# Flags


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--algo dpoo", "there is no algorithm 'dpoo'. Did you mean 'dpo'"),
        ("", "choose a method with --algo: all_pairs, alphapo"),
        ("--algo dpo --lerning_rate 1", "Did you mean '--learning_rate'"),
        ("--algo dpo --gamma 1", "; dpo has --beta, --label_smoothing"),
        (
            "--algo dpo --temperature 0.7",
            "--temperature is for methods that sample completions while training (exploratory, ",
        ),
        ("--algo simpo --reward testbed", "--reward is for methods that sample"),
        ("--algo dpo --beta strong", "--beta takes a number, not 'strong'"),
        ("--algo dpo --max_steps 0", "--max_steps must be positive, or -1"),
        ("--algo dpo --max_steps many", "--max_steps takes a whole number, not 'many'"),
        (
            "--algo dpo --load_in_4bit",
            "--load_in_4bit: quantised weights cannot be trained; train adapters: --use_peft",
        ),
        ("--algo dpo --lora_r 8", "--lora_r has no effect without --use_peft"),
        ("--algo kto --per_device_train_batch_size 1", "Set --per_device_train_batch_size 2"),
        ("--algo rloo", "give --reward a name from `xpo plugins`"),
        ("--algo rloo --reward testbet", "reward 'testbet' is unknown. Did you mean 'testbed'"),
        ("--algo rloo --reward nowhere.py:judge", "there is no file 'nowhere.py'"),
        ("--algo rloo --reward no_such_module:judge", "No module named 'no_such_module'"),
        ("--algo rloo --reward json:loadz", "'json' has no function 'loadz'. Did you mean 'load' or 'loads'"),
        ("--algo rloo --num_generations 1 --reward testbed", "compares completions and needs 2"),
        ("--algo simpo --reference_model x", "uses no reference"),
        ("--algo dpo --report_to nowhere", "--report_to nowhere: not installed or unknown"),
        ("--algo dpo --use_peft --lora_target_modules nothing", "not found in the base model"),
        ("--algo dpo --attn_implementation fastest", 'attn_implementation="fastest"'),
    ],
)
def test_settings(refused: Refused, line: str, message: str) -> None:
    assert message in refused(line, data=PAIRS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beta: [\n", "is not valid YAML"),
        ("betta: 0.1\n", "betta is not a setting of xpo train. Did you mean 'beta'"),
        ("- beta\n", "must hold lines of 'name: value', not a list"),
        ("beta: high\n", "beta takes a number, not 'high'"),
    ],
)
def test_settings_files(refused: Refused, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    said = refused("--algo dpo", "--config", tmp_path / "run.yaml", data=PAIRS)
    assert message in said
    assert "run.yaml" in said


def test_a_missing_settings_file(refused: Refused) -> None:
    assert "--config nowhere.yaml: No such file" in refused("--algo dpo --config nowhere.yaml", data=PAIRS)


# Models


@pytest.fixture
def broken(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with one file changed, or taken away."""

    def make(file: str, content: bytes | None) -> Path:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model, folder)
        (folder / file).unlink(missing_ok=content is not None)
        if content is not None:
            (folder / file).write_bytes(content)
        return folder

    return make


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, "no file named model.safetensors"),
        ("model.safetensors", b"", "header"),
        ("model.safetensors", b"\x10garbage" * 20, "header too large"),
        ("config.json", None, "there is no config.json in it"),
        ("config.json", b"{", "not a valid JSON file"),
        ("config.json", b"{}", "`model_type`"),
        ("config.json", b'{"model_type": "bert", "hidden_size": "many"}', "cannot be loaded"),
        ("tokenizer.json", b"{}", "not in a form that can be read"),
        ("tokenizer.json", b"{", "cannot be loaded"),
        ("chat_template.jinja", b"{% if %}", ""),
    ],
)
def test_broken_models(refused: Refused, broken: Callable[..., Path], file: str, content: bytes, message: str) -> None:
    folder = broken(file, content)
    if file == "chat_template.jinja":
        rows = [{key: [{"role": "user" if key == "prompt" else "assistant", "content": "w1 " + key}] for key in PAIR}]
        said = refused("--algo dpo", data=rows, base=folder)
        assert "rows.jsonl line 1: the chat template refuses the messages" in said
        return
    said = refused("--algo dpo", data=PAIRS, base=folder)
    assert message in said
    assert str(folder) in said


def test_models_that_are_not_there(refused: Refused, broken: Callable[..., Path], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert f"'{nowhere}' cannot be loaded: there is no such directory" in refused(
        "--algo dpo", data=PAIRS, base=nowhere
    )
    said = refused("--algo dpo", data=PAIRS, base="someone/model")
    assert "'someone/model' is neither a directory here nor a model that can be had from the hub" in said
    (tmp_path / "empty").mkdir()
    assert "there is no config.json in it" in refused("--algo dpo", data=PAIRS, base=tmp_path / "empty")
    folder = broken("tokenizer.json", None)
    (folder / "tokenizer_config.json").unlink()
    assert "there is none beside the model; save it" in refused("--algo dpo", data=PAIRS, base=folder)
    said = refused(f"--algo dpo --reference_model {nowhere}", data=PAIRS)
    assert "there is no such directory" in said


def test_models_that_do_not_fit_the_data(refused: Refused, tmp_path: Path, model: Path) -> None:
    talk = [{key: [{"role": "user" if key == "prompt" else "assistant", "content": "w1 " + key}] for key in PAIR}]
    assert "--chat_template_path" in (said := refused("--algo dpo", data=talk))
    assert "rows.jsonl line 1" in said
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(shutil.copytree(model, tmp_path / "endless"))
    assert "no EOS token" in refused("--algo dpo", data=PAIRS, base=tmp_path / "endless")
    small = tmp_path / "small"
    tiny.model(vocabulary=30).save_pretrained(small)
    tiny.tokenizer().save_pretrained(small)
    assert "the model has embeddings for 30 tokens only" in refused("--algo dpo", data=PAIRS, base=small)


def test_broken_adapters(refused: Refused, train: Train, tmp_path: Path) -> None:
    good = train(f"--algo dpo {LORA}", data=PAIRS, out="adapter").folder
    assert "add --use_peft to go on training it" in refused("--algo dpo", data=PAIRS, base=good)
    for file, content, message in (
        ("adapter_config.json", "{", "Expecting property name"),
        ("adapter_model.safetensors", "garbage", "header"),
        ("adapter_model.safetensors", None, "there is no adapter_model.safetensors in it"),
    ):
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_text(content)
        said = refused("--algo dpo --use_peft", data=PAIRS, base=folder)
        assert message in said
        assert f"adapter '{folder}' cannot be loaded" in said


# Rewards


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('length')", "reward 'judge' raised KeyError: 'length'"),
        ("return [1.0]", "reward 'judge' returned 1 numbers for"),
        ("return [float('nan')] * len(completions)", "reward 'judge' returned nan for completion 0"),
        ("return [1.0] + [float('inf')] * (len(completions) - 1)", "reward 'judge' returned inf for completion 1"),
        ("return ['good'] * len(completions)", "reward 'judge' must return a list of numbers"),
        ("return None", "reward 'judge' must return a list of numbers"),
        ("return [None] * len(completions)", "no reward function scored"),
        ("columns['log_extra']('why', [])", "reward 'judge': log_extra('why', ...) has 0 values for"),
    ],
)
@pytest.mark.parametrize("held_out", ["", "--eval_size 2 --eval_prompts 2"])
def test_rewards(refused: Refused, tmp_path: Path, body: str, message: str, held_out: str) -> None:
    """A reward is tried before the run begins, with held-out prompts and without."""
    (tmp_path / "judge.py").write_text(f"def judge(completions, **columns):\n    {body}\n")
    line = f"--algo rloo --max_completion_length 4 --reward {tmp_path / 'judge.py'}:judge {held_out}"
    assert message in refused(line, data=PAIRS, began=True)


def test_reward_files_that_do_not_import(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(:\n")
    line = f"--algo rloo --reward {tmp_path / 'judge.py'}:judge"
    assert "cannot be imported: invalid syntax" in refused(line, data=PAIRS)
    assert "cannot be loaded: there is no such directory" in refused(
        f"--algo rloo --reward {tmp_path}/none", data=PAIRS
    )


# The machine


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", "a-file")


@pytest.mark.parametrize(
    "place",
    ["transformers.PreTrainedModel.save_pretrained", "xpo.train.run.plot_history", "xpo.train.output.os.replace"],
)
def test_a_full_disk(train: Train, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(place, full)
    done = train("--algo dpo", data=PAIRS)
    assert done.status == 2
    last = done.err.splitlines()[-1]
    assert last.startswith("xpo: no space left on the disk for 'a-file'")
    assert "write elsewhere" in last
    assert "Traceback" not in done.err


def test_places_that_cannot_be_written(refused: Refused, train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = train("--algo dpo", data=PAIRS, out="file/out")
    assert done.status == 2
    assert "is not a directory; choose another --output_dir" in done.err


def test_a_process_of_its_own_says_the_same(tmp_path: Path, model: Path, write: Callable[..., Path]) -> None:
    data = write([PAIR, "{"])
    words = ["train", "--algo", "dpo", "--model", model, "--dataset", data, "--output_dir", "out"]
    done = command(words, tmp_path)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("xpo: rows.jsonl line 2 is not valid JSON")
    assert len(done.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_debug_shows_the_traceback(tmp_path: Path, write: Callable[..., Path]) -> None:
    data = write([PAIR, "{"])
    done = command(["train", "--algo", "dpo", "--dataset", data], tmp_path, {"XPO_DEBUG": "1"})
    assert done.status == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("xpo: rows.jsonl line 2")
