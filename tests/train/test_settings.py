"""What a setting ends up as: precedence, presets, values of every kind, contradictions, the record."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from xpo.api.algorithm import Algorithm, Config, Needs, Paper, option
from xpo.errors import PluginError, SettingError
from xpo.plugins import Entry, Registry, Supplier
from xpo.train.describe import samples_of_a_step
from xpo.train.flags import from_keywords
from xpo.train.settings import TESTBED, Settings, TrainingArguments
from xpo.train.sources import Words
from xpo.train.values import convert, plain


@dataclass
class PairConfig(Config):
    beta: float = option(0.1, "strength")
    free: bool = option(False, "without a reference")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class Pair(Algorithm[PairConfig]):
    name = "pair"
    summary = "for tests"
    paper = Paper("None", "https://example.org", 2024)
    equation = "L = 0"
    data = "pairs"
    Config = PairConfig
    training: ClassVar = {"learning_rate": 5e-7, "warmup_ratio": 0.1}
    lora_training: ClassVar = {"learning_rate": 5e-6}

    def __init__(self, config: PairConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=not self.config.free)


class Batchwise(Pair):
    name = "batchwise"

    def __init__(self, config: PairConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(least=2)


class Rating(Pair):
    name = "rating"
    model = "reward"


class Rolled(Pair):
    name = "rolled"
    data = "rollouts"
    training: ClassVar = {}

    def __init__(self, config: PairConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(samples=4)


@dataclass
class ClashConfig(Config):
    seed: int = option(0, "a name of TrainingArguments")


class Clash(Pair):
    name = "clash"
    Config = ClashConfig


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    supplier = Supplier("tests", "1", "tests", "tests")
    classes = (Pair, Batchwise, Rating, Rolled, Clash)
    found = Registry(
        {cls.name: Entry(cls, supplier) for cls in classes},
        suppliers={supplier: [("algorithm", cls.name) for cls in classes]},
    )
    monkeypatch.setattr("xpo.train.flags.load", lambda: found)
    return found


def settle(algo: str = "pair", **keywords: Any) -> Settings:
    return from_keywords(algo, **{"model": "some/model", "dataset": "some/data", **keywords})


def refused(algo: str = "pair", **keywords: Any) -> str:
    with pytest.raises(SettingError) as error:
        settle(algo, **keywords)
    return str(error.value)


# Precedence


def test_the_testbed_preset_needs_both_to_be_embedded() -> None:
    assert from_keywords("pair").training.learning_rate == TESTBED["learning_rate"]
    assert from_keywords("pair", dataset="testbed:noise=0.3").training.learning_rate == TESTBED["learning_rate"]
    assert from_keywords("pair", model="some/model").training.learning_rate == 5e-7
    assert from_keywords("pair", dataset="some/data").training.learning_rate == 5e-7
    assert from_keywords("pair", dataset=[{"prompt": "p"}]).training.learning_rate == 5e-7


def test_what_is_given_wins_over_every_preset() -> None:
    assert from_keywords("pair", learning_rate=1e-3).training.learning_rate == 1e-3


def test_recommendations_follow_the_adapters() -> None:
    assert settle().training.learning_rate == 5e-7
    assert settle(use_peft=True).training.learning_rate == 5e-6
    assert settle("rolled", reward="r").training.learning_rate == 1e-6
    # warmup_ratio is what older releases called a warmup_steps below 1
    assert settle().training.warmup_steps == 0.1
    assert settle(warmup_steps=7).training.warmup_steps == 7


def test_an_unknown_recommendation_is_the_plugins_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pair, "training", {"lr": 1.0})
    with pytest.raises(PluginError, match="recommends 'lr'"):
        settle()


def test_a_plugin_cannot_take_a_name_of_every_run() -> None:
    with pytest.raises(PluginError, match="'seed' has the name of a setting of every run"):
        settle("clash")


def test_keywords_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1e-5\nbeta: 0.5\n")
    settings = settle(config=path, beta=0.3)
    assert (settings.training.learning_rate, settings.algorithm.beta) == (1e-5, 0.3)


def test_defaults_without_a_gpu() -> None:
    training = settle(use_cpu=True).training
    assert (training.bf16, training.report_to, training.disable_tqdm) == (False, [], False)
    assert (training.logging_steps, training.logging_first_step) == (10, True)
    assert training.output_dir == "runs/pair"


def test_an_interval_of_evaluation_is_used() -> None:
    assert settle(eval_steps=50).training.eval_strategy == "steps"
    assert settle(eval_steps=50, eval_strategy="no").training.eval_strategy == "no"


# Objects


def test_objects_stand_in_for_names() -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    model, reward = object(), len
    settings = from_keywords("rolled", model=model, tokenizer=object(), dataset=rows, reward=reward, eval_dataset=rows)
    assert settings.source("model_name_or_path") is model
    assert settings.source("dataset_name") is rows
    assert settings.source("reward") == [reward]
    assert not settings.testbed_model
    assert not settings.testbed_data
    assert {"model_name_or_path", "dataset_name", "reward", "eval_dataset"} <= settings.given
    assert settings.to_dict()["objects"]["reward"] == ["len"]


def test_a_loaded_model_cannot_be_loaded_otherwise() -> None:
    assert "already loaded" in refused(model=object(), dtype="bfloat16")


def test_names_and_functions_mix_as_rewards() -> None:
    settings = settle("rolled", reward=["length", len], reward_weights=[1, 0.5])
    assert settings.source("reward") == ["length", len]


# Contradictions


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beta": -1.0}, "pair: beta must be positive"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size= must be positive, not 0"),
        ({"learning_rate": -1.0}, "learning_rate="),
        ({"lora_r": 8}, "lora_r= has no effect without use_peft"),
        ({"load_in_4bit": True}, "quantised weights cannot be trained"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "8 bit and 4 bit"),
        ({"max_length": 100, "max_prompt_length": 100}, "leaves no room"),
        ({"eval_dataset": "x", "eval_size": 0.1}, "give one of them"),
        ({"free": True, "reference_model": "x"}, "uses no reference"),
        ({"forget_column": "x"}, "methods that unlearn"),
        ({"accelerator_config": {"split_batches": True}}, "cannot be honoured"),
        ({"lora_task_type": "SEQ_CLS", "use_peft": True}, "must be CAUSAL_LM, for pair trains a policy"),
        ({"lora_task_type": "SEQ_CLS"}, "has no effect without use_peft"),
        ({"lora_dropout": 1.5, "use_peft": True}, "lora_dropout= must be at least 0 and below 1"),
        ({"save_steps": 2.5}, "training settings: --save_steps must be an integer"),
        ({"hub_model_id": "x"}, "has no effect without push_to_hub"),
    ],
)
def test_contradictions_are_refused(keywords: dict[str, Any], message: str) -> None:
    assert message in refused(**keywords)


def test_a_reward_model_is_a_classifier_to_peft() -> None:
    assert settle("rating", use_peft=True, lora_task_type="SEQ_CLS").model.lora_task_type == "SEQ_CLS"
    assert "must be SEQ_CLS, for rating trains a reward model" in refused(
        "rating", use_peft=True, lora_task_type="TOKEN_CLS"
    )


def test_an_adapter_says_the_dropout_it_was_trained_with() -> None:
    assert settle(use_peft=True).model.lora_dropout == 0
    assert settle(use_peft=True, disable_dropout=False).model.lora_dropout == 0.05
    assert settle(use_peft=True, disable_dropout=False, lora_dropout=0.9).model.lora_dropout == 0.9
    assert settle(use_peft=True, lora_dropout=0).model.lora_dropout == 0
    for told in (0.9, 0.05):  # TRL's own default among them: as there it is without effect, and here that is said
        settings = settle(use_peft=True, lora_dropout=told)
        assert settings.model.lora_dropout == 0
        [note] = settings.notes
        assert note.startswith(f"lora_dropout= {told} changes nothing: dropout is off, in the adapters too; ")
        assert note.endswith("disable_dropout false turns it on")
    assert settle(use_peft=True, lora_dropout=0).notes == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("q_proj", ["q_proj"]),
        (["q_proj"], ["q_proj"]),
        ("q_proj,v_proj", ["q_proj", "v_proj"]),
        (["q_proj,v_proj", "o_proj"], ["q_proj", "v_proj", "o_proj"]),
        ("model.layers.0.self_attn.q_proj", ["model.layers.0.self_attn.q_proj"]),
        ("all-linear", "all-linear"),
        (r".*\.\d{1,2}\.q_proj", r".*\.\d{1,2}\.q_proj"),  # a pattern, whose comma is its own
    ],
)
def test_parts_of_a_model_are_named(given: Any, expected: Any) -> None:
    model = settle(use_peft=True, lora_target_modules=given).model
    assert model.lora_target_modules == expected
    assert replace(model).lora_target_modules == expected


def test_a_batch_of_prompts_is_told_in_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "use_cpu": True}
    rolled = settle("rolled", reward="length", num_generations=5, **chosen)
    assert samples_of_a_step(rolled) == "a step: 6 prompts x 5 samples = 30 completions"
    online = settle("pair", online=True, reward="length", **chosen)
    assert samples_of_a_step(online) == "a step: 6 prompts x 2 samples = 12 completions"
    assert samples_of_a_step(settle(**chosen)) is None
    monkeypatch.setattr(TrainingArguments, "world_size", 4)
    assert samples_of_a_step(rolled) == "a step: 24 prompts x 5 samples = 120 completions"


def test_defaults_may_be_spelt_out() -> None:
    assert settle(lora_r=16, lists_to_pairs="best_worst", reference_model=None).model.lora_r == 16


def test_settings_of_named_data_need_named_data() -> None:
    with pytest.raises(SettingError, match="has no effect without dataset_name"):
        from_keywords("pair", dataset_config="x")


def test_an_adapter_keeps_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is an adapter with its own settings" in refused(model=str(tmp_path), use_peft=True, lora_r=8)


def test_statistics_of_a_micro_batch_need_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Set --per_device_train_batch_size 2" in refused("batchwise", per_device_train_batch_size=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert settle("batchwise", per_device_train_batch_size=1).training.per_device_train_batch_size == 1


def test_rollouts_need_samples_and_a_reward() -> None:
    settings = settle("rolled", reward="length")
    assert settings.rollout is not None
    assert settings.rollout.num_generations == 4
    assert settle().rollout is None
    assert "compares completions" in refused("rolled", reward="length", num_generations=1)
    assert "needs to hear" in refused("rolled")
    assert "2 numbers for 1 rewards" in refused("rolled", reward="length", reward_weights=[1, 2])
    assert from_keywords("rolled").rollout is not None  # the testbed knows its reward


# The record


def test_the_record_is_json_without_secrets() -> None:
    settings = settle(hub_token="hf_secret", seed=3, eval_strategy="epoch")
    record = settings.to_dict()
    assert "hf_secret" not in json.dumps(record)
    assert (record["training"]["seed"], record["training"]["eval_strategy"]) == (3, "epoch")
    assert record["algorithm"] == {"beta": 0.1, "free": False}
    assert record["supplier"] == "tests 1"
    assert "seed" in record["given"]
    assert "learning_rate" not in record["given"]


def test_every_run_gets_an_algorithm_of_its_own() -> None:
    settings = settle(beta=0.7)
    first, second = settings.make_algorithm(), settings.make_algorithm()
    assert first is not second
    assert first.config.beta == 0.7


# Values


class Colour(Enum):
    RED = "red"
    NO = "no"


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (Words(["0.5"]), float, 0.5),
        ("1e-6", float, 1e-6),  # what YAML makes of 1e-6 is text
        (Words(["1e3"]), int, 1000),
        (8.0, int, 8),
        (Words(["0.1"]), float | int | None, 0.1),
        (Words(["100"]), float | int | None, 100),
        (Words([]), bool, True),
        (Words(["False"]), bool, False),
        (Words(["none"]), int | None, None),
        (Words(["none"]), None | str | list[str], "none"),
        (Words(["a"]), None | str | list[str], "a"),
        (Words(["a", "b"]), None | str | list[str], ["a", "b"]),
        (Words(["a"]), list[str] | None, ["a"]),
        (Words(["1", "-0.5"]), list[float], [1.0, -0.5]),
        (Words(["[1, 2]"]), list[float], [1.0, 2.0]),
        (Words(["-5", "5"]), tuple[float, float] | None, (-5.0, 5.0)),
        (Words(['{"a": 1}']), dict | str | None, {"a": 1}),
        (Words(["file.json"]), dict | str | None, "file.json"),
        ("red", Colour | str, "red"),
        (Colour.RED, Colour | str, "red"),
        (False, Colour | str, "no"),  # what YAML makes of a bare no
        ("two", Literal["one", "two"], "two"),
        (Path("a/b"), str | None, "a/b"),
    ],
)
def test_values_become_what_the_setting_takes(value: Any, hint: Any, expected: Any) -> None:
    found = convert(value, hint)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (Words(["x"]), float, "takes a number, not 'x'"),
        (Words(["nan"]), float, "takes a number"),
        (Words([]), float, "needs a value: a number"),
        (Words(["1", "2"]), float, "takes a number, not '1 2'"),
        (Words(["1.5"]), int, "takes a whole number"),
        (True, int, "takes a whole number"),
        (None, float, "takes a number, not null"),
        (Words(["maybe"]), bool, "takes true or false"),
        ("blue", Colour | str, "takes one of red, no, not 'blue'"),
        (Words(["{a}"]), dict | str | None, "is not valid JSON"),
        (Words(["1"]), tuple[float, float], "takes a number and a number"),
        (3, str, "takes text"),
    ],
)
def test_values_that_do_not_fit_say_what_would(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        convert(value, hint)


def test_undeclared_words_are_read_as_yaml_reads_them() -> None:
    assert [plain(Words([word])) for word in ("true", "1", "none", "text")] == [True, 1, None, "text"]
    assert plain(Words([])) is True
    assert plain(["sigmoid"]) == "sigmoid"
