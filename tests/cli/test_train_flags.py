"""Flags of ``xpo train``: what is written is understood, honoured, or refused by name."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import trl
from transformers import TrainingArguments

import xpo.train.run  # noqa: F401 - before the registry is replaced: a module imported then would keep it
from xpo.api.algorithm import Algorithm, Config, Needs, Paper, option
from xpo.cli import train as command
from xpo.errors import PluginError, SettingError
from xpo.plugins import Entry, Registry, Supplier
from xpo.train.flags import from_keywords, parse
from xpo.train.settings import Settings
from xpo.train.trl_flags import ALIASES, FOREIGN, REFUSED
from xpo.train.vocabulary import SECTIONS, slots_of

COMMON = {name for section, cls in SECTIONS.items() for name in slots_of(section, cls)}


@dataclass
class PairConfig(Config):
    beta: float = option(0.1, "strength")
    margin: float | None = option(None, "lead")


class Pair(Algorithm[PairConfig]):
    name = "pair"
    summary = "for tests"
    paper = Paper("A paper", "https://example.org", 2024)
    equation = "L = 0"
    data = "pairs"
    needs = Needs(reference=True)
    Config = PairConfig
    training: ClassVar = {"learning_rate": 5e-7}
    aliases: ClassVar = {"pair_margin": "margin"}
    accepts: ClassVar = {"loss_type": ("sigmoid", "pair")}


@dataclass
class OtherConfig(Config):
    gamma: float = option(1.0, "lead")


class Other(Pair):
    name = "other"
    Config = OtherConfig
    aliases: ClassVar = {}
    accepts: ClassVar = {}


@dataclass
class OwnConfig(Config):
    group_by_length: bool = option(False, "not what transformers means by it")


class Own(Pair):
    name = "own"
    Config = OwnConfig
    aliases: ClassVar = {}


class Rolled(Other):
    name = "rolled"
    data = "rollouts"
    needs = Needs(samples=2)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    supplier = Supplier("tests", "1", "tests", "tests")
    classes = (Pair, Other, Rolled)
    found = Registry(
        {cls.name: Entry(cls, supplier) for cls in classes},
        suppliers={supplier: [("algorithm", cls.name) for cls in classes]},
    )
    monkeypatch.setattr("xpo.train.flags.load", lambda: found)
    monkeypatch.setattr("xpo.plugins.load", lambda: found)
    return found


def flags(line: str, algo: str = "pair") -> Settings:
    return parse(["--algo", algo, *line.split()])


def refused(line: str, algo: str = "pair") -> str:
    with pytest.raises(SettingError) as error:
        flags(line, algo)
    return str(error.value)


def test_flags_reach_every_section() -> None:
    settings = flags("--beta 0.5 --model m --dataset d --use_peft --lora_r 8 --learning_rate 1e-4 --max_length none")
    assert settings.algorithm.beta == 0.5
    assert (settings.model.model_name_or_path, settings.model.use_peft, settings.model.lora_r) == ("m", True, 8)
    assert (settings.run.dataset_name, settings.run.max_length) == ("d", None)
    assert settings.training.learning_rate == 1e-4
    assert settings.given == {
        *("algo", "beta", "model_name_or_path", "dataset_name", "use_peft", "lora_r", "learning_rate", "max_length")
    }


def test_spellings() -> None:
    line = "--per-device-train-batch-size=4 --no_disable_dropout --logging_first_step false --seed 1 --seed 2"
    settings = flags(line)
    assert settings.training.per_device_train_batch_size == 4
    assert settings.run.disable_dropout is False
    assert settings.training.logging_first_step is False
    assert settings.training.seed == 2
    assert flags("--pair_margin 0.3").algorithm.margin == 0.3
    assert flags("--model m --dataset d --lora_target_modules q k --use_peft").model.lora_target_modules == ["q", "k"]
    assert flags("--resume_from_checkpoint").training.resume_from_checkpoint is True
    assert flags("--gradient_checkpointing").training.gradient_checkpointing is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lerning_rate 1", "--lerning_rate is not a setting of xpo train. Did you mean '--learning_rate'"),
        ("--learning 1", "--learning is not a setting"),  # no abbreviations
        ("--gamma 1", "--gamma is a setting of other, rolled and means nothing to pair; pair has --beta, --margin"),
        ("--temperature 1", "--temperature is for methods that sample completions while training (rolled); pair"),
        ("--beta", "--beta needs a value: a number"),
        ("--beta x", "--beta takes a number, not 'x'"),
        ("--beta 1 2", "--beta takes a number, not '1 2'"),
        ("--no_beta", "--no_beta is not a setting"),
        ("--lr_scheduler_type fast", "--lr_scheduler_type takes one of linear, cosine"),
        ("--dtype float8", "--dtype takes one of auto, bfloat16"),
        ("--model a --model_name_or_path b", "--model and --model_name_or_path are two names of one setting"),
        ("--warmup_ratio 3", "must be below 1"),
        ("--label_smoothing_factor 0.1", "--label_smoothing_factor cannot be honoured"),
        ("--loss_type ipo", "pair is loss_type sigmoid or pair and no other; choose the method with --algo"),
        (
            "--use_vllm",
            "is for methods that sample completions while training (rolled); pair learns from pairs, of samp",
        ),
        ("--min_p 0.1", "--min_p cannot be honoured: samples are drawn from the model's whole distribution"),
        ("--truncation_mode keep_start", "loses the beginning of its prompt"),
        ("--packing", "--packing cannot be honoured: a batch is counted in rows of the data"),
        ("--dataset_num_proc many", "--dataset_num_proc cannot be honoured: rows are prepared in one process"),
        ('--model_init_kwargs {"device_map":"auto"}', "--model_init_kwargs: device_map cannot be honoured"),
        ("--bogus 1", "--bogus is not a setting of xpo train. `xpo train"),  # only its dashes are like --rounds'
        ("--early_stopping_patience 3", "--early_stopping_patience cannot be honoured"),
        ("--peft_config x", "use_peft=True, lora_r=16"),
    ],
)
def test_what_cannot_be_honoured_is_named(line: str, message: str) -> None:
    assert message in refused(line)


def test_flags_for_what_happens_anyway_are_accepted() -> None:
    line = "--loss_type sigmoid --use_vllm false --no_padding_free --truncation_mode keep_end --use_cache false"
    assert flags(line).given == {"algo", "use_cache"}
    assert "belongs to one method" in refused("--loss_type sigmoid", "other")


def test_flags_on_which_no_result_hangs_are_taken_and_told() -> None:
    settings = flags("--dataset_num_proc 2 --pad_to_multiple_of 8 --precompute_ref_batch_size 4 --packing false")
    assert settings.given == {"algo"}
    assert list(settings.notes) == [
        f"--{name} {value} changes nothing: {FOREIGN[name].reason}"
        for name, value in (("dataset_num_proc", 2), ("pad_to_multiple_of", 8), ("precompute_ref_batch_size", 4))
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--group_by_length", {"train_sampling_strategy": "group_by_length"}),
        ("--group_by_length false", {"train_sampling_strategy": "random"}),
        ("--no_shuffle_dataset", {"train_sampling_strategy": "sequential"}),
        ('--model m --dataset d --model_init_kwargs {"dtype":"bfloat16","revision":"r"}', {"dtype": "bfloat16"}),
        ('--model m --dataset d --model_init_kwargs {"dtype":"bfloat16","revision":"r"}', {"model_revision": "r"}),
        ('--model_init_kwargs {"attn_implementation":null}', {"attn_implementation": None}),
        ("--max_seq_length 9", {"max_length": 9}),
    ],
)
def test_what_another_setting_says_becomes_that(line: str, expected: dict[str, object]) -> None:
    settings = flags(line)
    assert {name: settings.source(name) for name in expected} == expected


def test_types_of_torch_are_understood_from_python() -> None:
    settings = from_keywords("pair", model="m", dataset="d", model_init_kwargs={"torch_dtype": torch.float16})
    assert settings.model.dtype == "float16"


def test_a_setting_of_the_method_comes_before_what_others_mean_by_it(registry: Registry) -> None:
    registry.algorithms["own"] = Entry(Own, next(iter(registry.suppliers)))
    settings = flags("--group_by_length", "own")
    assert settings.algorithm.group_by_length is True
    assert settings.training.train_sampling_strategy == "random"


def test_rewards_of_both_names_add_up() -> None:
    settings = flags("--dataset d --reward_model_name_or_path rm --reward_funcs a b --reward_weights 1 2 3", "rolled")
    assert settings.rollout is not None
    assert settings.rollout.reward == ["rm", "a", "b"]


def test_a_method_must_be_chosen() -> None:
    with pytest.raises(SettingError, match="choose a method with --algo: other, pair, rolled"):
        parse(["--beta", "1"])
    with pytest.raises(SettingError, match="unexpected 'pair'"):
        parse(["pair"])


def test_a_kind_in_place_of_a_method_lists_those_of_the_kind() -> None:
    def said(name: str) -> str:
        with pytest.raises(PluginError) as error:
            flags("", name)
        return str(error.value)

    assert said("rollouts") == "there is no algorithm 'rollouts'; those that learn from rollouts are rolled"
    assert said("pairs").endswith("those that learn from pairs are pair, other")
    assert said("reward") == "there is no algorithm 'reward'. `xpo algos` lists all of them."  # none is installed


# The settings file


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    text = "algo: pair\nbeta: 0.5\nlearning_rate: 1e-5\neval_strategy: no\nmax_length: null\nmodel: m\n"
    path = write(tmp_path, text)
    settings = parse(["--beta", "0.3", "--config", path, "--model_name_or_path", "n"])
    assert settings.algorithm.beta == 0.3
    assert (settings.training.learning_rate, settings.training.eval_strategy) == (1e-5, "no")
    assert settings.run.max_length is None
    assert settings.model.model_name_or_path == "n"


def test_env_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPO_TEST_VARIABLE", "before")
    flags("--config " + write(tmp_path, "env:\n  XPO_TEST_VARIABLE: 1\n"))
    assert os.environ["XPO_TEST_VARIABLE"] == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("betta: 1\n", "run.yaml: betta is not a setting of xpo train. Did you mean 'beta'"),
        ("gamma: 1\n", "run.yaml: gamma is a setting of other, rolled and means nothing to pair; pair has beta"),
        ("learning_rate: fast\n", "run.yaml: learning_rate takes a number, not 'fast'"),
        ("datasets:\n  - path: x\n", "run.yaml: datasets cannot be honoured: a run trains on one source"),
        ("- a\n", "must hold lines of 'name: value', not a list"),
        ("a: [\n", "is not valid YAML"),
        ("env: 3\n", "'env' must hold lines"),
        ("config: x\n", "cannot name another one"),
        ("warmup-steps: 1\nwarmup_steps: 2\n", "'warmup_steps' is set twice"),
        ("beta: 0.1\nmax_steps: 2\nbeta: 0.5\n", "line 3: 'beta' is set twice"),
        ("lr_scheduler_kwargs:\n  power: 2\n  power: 3\n", "line 3: 'power' is set twice"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused("--config " + write(tmp_path, text))


def test_a_missing_file_is_named() -> None:
    assert "--config nowhere.yaml: No such file" in refused("--config nowhere.yaml")
    assert "--config takes one YAML file" in refused("--config")


# Other libraries


@pytest.mark.parametrize(
    "config",
    [
        *(trl.DPOConfig, trl.KTOConfig, trl.RLOOConfig, trl.SFTConfig, trl.GRPOConfig, trl.RewardConfig),
        *(trl.ScriptArguments, trl.DatasetMixtureConfig, trl.ModelConfig),
    ],
)
def test_every_flag_of_trl_is_known(config: type) -> None:
    """A new release of TRL with a new flag fails here: give it a setting, an alias or a reason."""
    assert {item.name for item in fields(config)} - COMMON - set(ALIASES) - set(FOREIGN) == set()


def test_the_table_of_flags_is_in_order() -> None:
    assert {item.name for item in fields(TrainingArguments)} <= COMMON
    assert set(REFUSED) <= {item.name for item in fields(TrainingArguments)}
    assert not set(FOREIGN) & (COMMON | set(ALIASES))
    assert set(ALIASES.values()) <= COMMON


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_every_foreign_flag_is_refused_with_its_reason(name: str) -> None:
    said = refused(f"--{name} surely-not-the-default", "other")
    if name == "beta":
        assert said == "--beta is a setting of pair and means nothing to other; other has --gamma"
    else:
        assert said == f"--{name} cannot be honoured: {FOREIGN[name].reason}"


def test_what_a_foreign_flag_accepts_changes_nothing() -> None:
    accepted = {name: rule.accepts[0] for name, rule in FOREIGN.items() if rule.accepts}
    assert from_keywords("other", **accepted).given == {"algo"}


# The command


def test_the_command_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr("xpo.train.run.execute", seen.append)
    assert command.run(["--algo", "pair", "--beta", "2"]) == 0
    assert seen[0].algorithm.beta == 2.0


def test_help_without_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--max_length               most tokens" in out
    assert "prompts with all their samples, of which TRL counts each [8]" in " ".join(out.split())
    assert "label_smoothing_factor" not in out
    assert "other pair rolled" in " ".join(out.split())


def test_help_of_a_method_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--algo", "pair", "-h"]) == 0
    out = capsys.readouterr().out
    assert "--beta                     strength [0.1]" in out
    assert "recommended: learning_rate=5e-07" in out
    assert "--temperature" not in out
    assert command.run(["--algo", "rolled", "-h"]) == 0
    assert "--temperature" in capsys.readouterr().out
