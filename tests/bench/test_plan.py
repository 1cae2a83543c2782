"""What a suite is made of: methods, grids, files and flags; and one message for whatever cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import suite
from xpo.bench.reading import read
from xpo.bench.suite import Suite, plan
from xpo.errors import XpoError
from xpo.plugins import load
from xpo.train.sources import from_argv


def planned(line: str) -> Suite:
    return plan(read(from_argv([*line.split(), "--output_dir", "out"])), load())


def settings(line: str) -> dict[str, dict[str, Any]]:
    """Settings of the cells of the first seed, without those that every cell has."""
    made = planned(line)
    usual = {"save_strategy", "report_to", "reference_cache"}
    return {
        f"{cell.method} {cell.setting}".strip(): {key: one for key, one in cell.settings.items() if key not in usual}
        for cell in made.cells
        if cell.seed == made.options.seeds[0]
    }


def test_cells_are_methods_times_settings_times_seeds_and_the_first_seed_of_all_comes_first() -> None:
    cells = planned("--algos dpo,simpo --seeds 3,1 --grid beta=0.1,0.5").cells
    assert [str(cell) for cell in cells] == [
        f"{method}, beta={beta}, seed {seed}" for seed in (3, 1) for method in ("dpo", "simpo") for beta in (0.1, 0.5)
    ]
    assert len({cell.place for cell in cells}) == 8


def test_settings_reach_those_they_are_for() -> None:
    found = settings("--algos dpo,simpo --max_steps 7 --dpo.beta 0.3 --simpo.gamma_beta_ratio=0.4 --use_peft")
    assert found == {
        "dpo": {"max_steps": 7, "beta": 0.3, "use_peft": True},
        "simpo": {"max_steps": 7, "gamma_beta_ratio": 0.4, "use_peft": True},
    }


def test_what_judges_samples_is_for_those_who_sample() -> None:
    found = settings("--algos dpo,rloo --reward testbed --rloo.num_generations 2")
    assert found == {"dpo": {}, "rloo": {"reward": ["testbed"], "num_generations": 2}}
    assert planned("--algos dpo --reward testbed").shared["examined_by"]["reward"] == ["testbed"]
    assert planned("--algos dpo,rloo").shared["examined_by"]["reward"] == ["testbed"]
    other = planned("--algos dpo,rloo --reward testbed --eval_judge mine.py:judge").shared["examined_by"]
    assert (other["reward"], other["judge"]) == (None, "mine.py:judge")


def test_a_grid_is_for_methods_that_have_the_setting() -> None:
    line = "--algos dpo,sft --grid beta=0.1,0.5 --grid dpo.label_smoothing=0,0.1"
    assert list(settings(line)) == [
        *(f"dpo beta={beta} label_smoothing={share}" for beta in (0.1, 0.5) for share in (0.0, 0.1)),
        "sft",
    ]
    assert planned(line).notes == ["sft has none of the settings that are tried; it runs with its own"]
    assert list(settings("--algos dpo --grid learning_rate=5e-4,1e-3")) == [
        "dpo learning_rate=0.0005",
        "dpo learning_rate=0.001",
    ]
    found = settings(
        "--algos dpo --grid reference_cache=off,disk --grid use_peft=no,yes --grid lr_scheduler_type=linear"
    )
    assert list(found) == [  # words, as behind flags of training
        f"dpo lr_scheduler_type=linear reference_cache={cache} use_peft={peft}"
        for cache in ("off", "disk")
        for peft in (False, True)
    ]
    assert list(settings("--algos dpo,simpo --grid beta=0.1,0.5 --grid simpo.beta=2")) == [
        "dpo beta=0.1",
        "dpo beta=0.5",
        "simpo beta=2.0",
    ]


def test_a_budget_of_tokens_is_the_only_bound_and_no_schedule_depends_on_it() -> None:
    [cell] = planned("--algos dpo --budget_tokens 5000").cells
    assert cell.settings["max_steps"] == 1_000_000
    assert (cell.settings["lr_scheduler_type"], cell.settings["warmup_steps"]) == ("constant", 0)
    [cell] = planned("--algos dpo --budget_tokens 5000 --max_steps 9").cells
    assert cell.settings["max_steps"] == 9


def test_a_suite_file_holds_everything_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(
        "algos: [dpo, dpo online, simpo]\n"
        "seeds: [0, 1]\n"
        "max_steps: 9\n"
        "methods:\n"
        "  dpo: {label_smoothing: 0.1}\n"
        "  dpo online: {algo: dpo, online: true}\n"
        "grid: {beta: [0.1, 0.5], simpo.gamma_beta_ratio: [0.3]}\n"
    )
    made = planned(f"--config {file}")
    assert dict(made.methods) == {"dpo": "dpo", "dpo online": "dpo", "simpo": "simpo"}
    assert len(made.cells) == 3 * 2 * 2
    assert {cell.settings["max_steps"] for cell in made.cells} == {9}
    over = settings(f"--config {file} --algos dpo --seeds 4 --max_steps 3 --dpo.label_smoothing 0.2 --grid beta=0.7")
    assert over == {"dpo beta=0.7": {"max_steps": 3, "label_smoothing": 0.2, "beta": 0.7}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"name the methods to compare with --algos"),
        ("--algos dpo,simp", r"'simp'.*Did you mean 'simpo'"),
        ("--algos dpo,npo", r"npo learns to forget"),
        ("--algos dpo,preference_model", r"trains a preference model; xpo bench compares policies"),
        ("--algos dpo,dpo", r"--algos names dpo twice"),
        ("--algos dpo,simpo,DPO", r"--algos names one method twice: dpo and DPO"),
        ("--algos dpo --seeds 1,1", r"--seeds names 1 twice"),
        ("--algos dpo --seeds x", r"--seeds takes"),
        ("--algos dpo --seeds 0,-1", r"--seeds takes numbers from 0 to 4294967295, not -1"),
        ("--algos dpo --seeds 4294967296", r"--seeds takes numbers from 0 to 4294967295, not 4294967296"),
        ("--algos dpo --budget_token 9", r"not a setting of xpo bench or xpo train. Did you mean '--budget_tokens'"),
        ("--algos dpo --gird beta=1,2", r"Did you mean '--grid'"),
        ("--algos dpo --dpo.bta 0.1", r"--dpo.bta is not a setting of xpo train. Did you mean '--dpo.beta'"),
        ("--algos dpo --dpoo.beta 0.1", r"dpoo is not among --algos, which are dpo. Did you mean '--dpo.beta'"),
        ("--algos dpo --dpo.output_dir x", r"--dpo.output_dir: all methods of a suite share it"),
        ("--algos dpo --dpo.max_length 9", r"--dpo.max_length: all methods of a suite share it"),
        ("--algos dpo --grid eval_prompts=3,4", r"--grid eval_prompts: all methods of a suite share it"),
        ("--algos dpo --sample_completions 3", r"--sample_completions is not for xpo bench"),
        ("--algos dpo --grid =0.1", r"--grid =0.1: write it as --grid NAME=VALUE,VALUE"),
        ("--algos dpo --grid dpoo.beta=0.1", r"--grid dpoo.beta: none of dpo has it. Did you mean 'dpo.beta'"),
        ("--algos dpo --grid temperature=1,2", r"--grid temperature: it is for methods that sample"),
        ("--algos dpo --max_steps 0", r"dpo: --max_steps must be positive"),
        ("--algos dpo --seed 1", r"--seed is not for xpo bench: name the seeds with --seeds"),
        ("--algos dpo --num_train_epochs 1", r"a pass of the data is more steps for one method than for another"),
        ("--algos dpo --eval_strategy steps", r"--eval_strategy is not for xpo bench"),
        ("--algos dpo --bta 0.1", r"dpo: --bta is not a setting of xpo train. Did you mean '--beta'|--bta is not"),
        ("--algos dpo,sft --beta 0.1", r"--beta is a setting of .*; sft has"),
        ("--algos dpo --kto.beta 0.1", r"kto.beta"),
        ("--algos dpo,simpo --dpo.max_steps 4", r"all methods of a suite share it"),
        ("--algos dpo --grid max_steps=2,4", r"all methods of a suite share it"),
        ("--algos dpo --grid model=a,b", r"all methods of a suite share it"),
        ("--algos dpo --grid beta", r"--grid beta: write it as --grid NAME=VALUE,VALUE"),
        ("--algos dpo --grid beta=", r"--grid beta has no values"),
        ("--algos dpo --grid beta=0.1,0.1", r"--grid beta names a value twice"),
        ("--algos dpo --grid bta=0.1", r"--grid bta: none of dpo has it. Did you mean 'beta'"),
        ("--algos dpo,simpo --grid dpo.gamma=1", r"dpo has no setting 'gamma'; it has beta"),
        ("--algos dpo --grid beta=-1,0.1", r"^dpo: beta must be positive"),
        ("--algos dpo --grid beta=much", r"--grid beta takes a number, not 'much'"),
        ("--algos dpo --jobs 0", r"--jobs must be positive, not 0"),
        ("--algos dpo --address here", r"--address has no effect without --executor ray"),
        ("--algos dpo --executor slurm", r"--executor takes one of local, ray"),
        ("--algos dpo --judge_url http://x", r"--judge_url has no effect without --judge"),
        ("--algos dpo --reward a --judge b", r"--reward and --judge both say"),
        ("--algos dpo --eval_reward a --eval_judge b", r"--eval_reward and --eval_judge both say"),
        ("--algos rloo --num_generations 1", r"rloo: .*compares completions and needs 2"),
        ("--algos dpo --model somewhere", r"say how long every method trains: --max_steps N or --budget_tokens N"),
        ("--algos sppo --sppo.online true --sppo.rounds 3 --budget_tokens 9", r"--rounds divides a number of steps"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_message(line: str, message: str) -> None:
    with pytest.raises(XpoError, match=message) as caught:
        planned(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('algos: [dpo]\ngrid: {beta: ["0.1", 0.1]}\n', r"--grid: dpo is to try beta=0.1 twice"),
        ("algos: [dpo]\ndpo: {beta: 0.1}\n", r"settings of one method stand below 'methods:', as in methods: {dpo: "),
        ("algos: [hot]\nmethods: {hot: {beta: 0.1}}\n", r"no algorithm 'hot'.* say what it is: methods: {hot: {algo: "),
        ('algos: ["a\\nb"]\n', r"--algos: 'a\\nb' must be a line of printable characters"),
        ("algos: [dpo]\nsedes: [1]\n", r"suite.yaml: sedes is not a setting .* Did you mean 'seeds'"),
    ],
)
def test_mistakes_in_a_suite_file_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(text)
    with pytest.raises(XpoError, match=message):
        planned(f"--config {file}")


def test_the_methods_that_a_message_names_are_installed() -> None:
    with pytest.raises(XpoError, match=r"--algos \w+,\w+,\w+$") as caught:
        planned("")
    names = str(caught.value).rpartition(" ")[2].split(",")
    assert list(planned(f"--algos {','.join(names)}").methods) == names


def test_methods_may_have_dots_and_names_of_their_own(tmp_path: Path) -> None:
    found = settings("--algos dpo+0.2*sft,dpo --dpo+0.2*sft.dpo.beta 0.3 --dpo.beta 0.4")
    assert found == {"dpo+0.2*sft": {"dpo__beta": 0.3}, "dpo": {"beta": 0.4}}
    found = settings("--algos dpo+0.2*sft --grid dpo+0.2*sft.dpo.beta=0.3,0.4")
    assert [one["dpo__beta"] for one in found.values()] == [0.3, 0.4]
    assert settings("--algos mild-one --mild-one.algo dpo --mild-one.beta 0.3") == {"mild-one": {"beta": 0.3}}
    found = settings("--algos mild-one,dpo+0.2*sft --mild-one.algo dpo --grid mild-one.beta=0.3,0.4")
    assert list(found) == ["mild-one beta=0.3", "mild-one beta=0.4", "dpo+0.2*sft"]
    found = settings("--algos dpo,dpo+0.2*sft --grid dpo.beta=0.3,0.4")
    assert list(found) == ["dpo beta=0.3", "dpo beta=0.4", "dpo+0.2*sft"]
    made = planned("--algos dpo,simpo --online true --dpo.online false --reward testbed")
    assert [("reward" in cell.settings) for cell in made.cells] == [False, True]


def test_settings_of_a_method_that_is_not_there_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text("algos: [dpo, simpo]\nmethods: {simp: {beta: 1}}\n")
    with pytest.raises(XpoError, match=r"settings for 'simp', which is not among --algos. Did you mean 'simpo'"):
        planned(f"--config {file}")


@pytest.mark.parametrize(
    ("rows", "algos", "message"),
    [
        (
            [{"prompt": f"w{n}", "completion": "w2", "label": n % 2 == 0} for n in range(9)],
            "kto,dpo",
            "dpo cannot learn",
        ),
        ([{"prompt": f"w{n}", "completion": "w2"} for n in range(9)], "sft,kto", "kto cannot learn"),
        ([{"words": "w1"} for n in range(9)], "dpo", "dpo cannot learn from this data"),
    ],
)
def test_methods_that_cannot_learn_from_the_data_are_named_before_anything_starts(
    rows: list[Any], algos: str, message: str, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(XpoError, match=message):
        suite(f"--algos {algos} --model m --dataset {data} --eval_size 2 --max_steps 1 --output_dir {tmp_path / 'one'}")
    assert not (tmp_path / "one").exists()


def test_data_with_nothing_held_out_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(XpoError, match=r"pass --eval_size 0.1 or --eval_dataset"):
        suite(f"--algos dpo --model m --dataset {small}/pairs.jsonl --max_steps 1 --output_dir {tmp_path / 'one'}")


def test_what_would_hold_out_rows_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(XpoError, match="--eval_size has no effect here: testbed has held-out rows of its own"):
        suite(f"--algos dpo --eval_size 0.1 --output_dir {tmp_path / 'one'}")


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(XpoError, match=r"holds thesis.tex and no suite"):
        suite(f"--algos dpo --output_dir {tmp_path}")
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "mine/start").mkdir(parents=True)
    (tmp_path / "mine/start/thesis.tex").write_text("mine")  # a folder of that name is not always the suite's
    with pytest.raises(XpoError, match=r"holds start and no suite"):
        suite(f"--algos dpo --output_dir {tmp_path}/mine")
    assert (tmp_path / "mine/start/thesis.tex").read_text() == "mine"


def test_a_launcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(XpoError, match="start it without a launcher"):
        suite(f"--algos dpo --output_dir {tmp_path / 'one'}")
