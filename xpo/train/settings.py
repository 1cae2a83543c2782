"""Everything a run is told, in one frozen bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import transformers
from trl import ModelConfig

from xpo.api.algorithm import Algorithm, Config, option
from xpo.api.mixture import JOINT, Imitation, Part, helped
from xpo.plugins import Entry

#: The embedded data set and its reward.
EMBEDDED = "testbed"

#: Training arguments for the embedded model on the embedded data.
TESTBED: Mapping[str, Any] = {
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "learning_rate": 5e-4,
    "max_steps": 120,
    "save_strategy": "no",
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "logging_steps": 5,
}


@dataclass
class RunSettings:
    """The method, the data and the end of a run."""

    algo: str = option("", "method to train with; `xpo algos` lists them")
    dataset_name: str | None = option(None, "hub id, local file or directory; the embedded testbed if not given")
    dataset_config: str | None = option(None, "configuration of a hub data set")
    dataset_train_split: str = option("train", "split to train on")
    dataset_test_split: str = option("test", "split to evaluate on, if there is one")
    eval_dataset: str | None = option(None, "another source to evaluate on")
    eval_size: float | int | None = option(None, "share (below 1) or number of rows to hold out, by prompt")
    lists_to_pairs: Literal["best_worst", "all"] = option("best_worst", "pairs to make of scored lists")
    max_length: int | None = option(1024, "most tokens of prompt and completion; none for no limit")
    max_prompt_length: int | None = option(None, "most tokens of a prompt, cut from the left")
    forget_column: str | None = option(None, "column that says which rows to forget")
    retain_dataset: str | None = option(
        None, "rows to retain, where they are not in the data itself: all rows of the data are then to be forgotten"
    )
    sft_coef: float = option(0.0, "weight of an added NLL on the best completion of each row, a mean over tokens")
    replay_dataset: str | None = option(
        None, "demonstrations or plain text to learn beside the data, a row beside every row, so as not to forget them"
    )
    replay_split: str = option("train", "split of them to use")
    replay_coef: float = option(1.0, "weight of their NLL, a mean over tokens")
    chat_template_path: str | None = option(None, "Jinja file, or model whose chat template to use")
    reference_model: str | None = option(None, "frozen reference; the model as it starts if not given")
    layout: Literal["tree", "padded"] = option(
        "tree", "rows the model reads: prompts once, with their completions as branches; or one row a completion"
    )
    reference_cache: Literal["off", "memory", "disk"] = option(
        "disk", "keep the reference's log-probabilities: for other runs over the same data (`xpo cache`), for this one"
    )
    disable_dropout: bool = option(True, "switch dropout off, in the adapters too")
    sample_completions: int = option(2, "prompts whose completions before and after training are shown at the end")
    eval_prompts: int | None = option(None, "held-out prompts to sample at the end, for the win rate; 0 for none")
    overwrite: bool = option(False, "replace another run in the output directory")


@dataclass
class RolloutSettings:
    """Sampling and feedback, for methods that learn from completions sampled while training."""

    num_generations: int | None = option(None, "completions of every prompt; the method's own number if not given")
    max_completion_length: int = option(256, "most tokens to sample")
    temperature: float = option(1.0, "temperature of sampling and of the log-probabilities")
    reward: list[str] | None = field(
        default=None,
        metadata={"help": "rewards: a name (`xpo plugins`), module:function, file.py:function, or a reward model"},
    )
    num_iterations: int = option(1, "updates made with every sample")
    reward_weights: list[float] | None = field(default=None, metadata={"help": "factor of each reward; 1 if not given"})
    missing_eos_penalty: float | None = option(None, "taken off the reward of a completion that did not end")


@dataclass
class ModelSettings(ModelConfig):  # type: ignore[misc]  # trl is not followed by mypy
    """TRL's ``ModelConfig``, and leave to run a model's own code, which TRL keeps among its training arguments."""

    trust_remote_code: bool = option(False, "run Python code that comes with the model")


@dataclass
class TrainingArguments(transformers.TrainingArguments):  # type: ignore[misc]  # nor is transformers
    """``transformers.TrainingArguments`` with defaults for preference optimisation."""

    learning_rate: float = field(default=1e-6, metadata={"help": "highest learning rate of the schedule"})
    # None rather than False: the default depends on the device and on fp16.
    bf16: bool | None = field(
        default=None, metadata={"help": "bfloat16 autocast; on wherever a GPU has it, unless fp16 is"}
    )
    logging_steps: float = field(default=10, metadata={"help": "steps between two lines of the log; below 1 a share"})
    logging_first_step: bool = field(default=True, metadata={"help": "log the first step"})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "look for weights a batch did not use; every one takes part in scoring"}
    )
    # Otherwise transformers would show a loss that is not a number as 0.
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "leave losses that are not finite out of the log"}
    )
    disable_tqdm: bool | None = field(default=False, metadata={"help": "plain lines in place of a progress bar"})
    resume_from_checkpoint: str | bool | None = field(
        default=None, metadata={"help": "checkpoint to go on from; true for the last one in the output directory"}
    )
    # None rather than False: on where running out of memory is an error, and not the end of the process.
    auto_find_batch_size: bool | None = field(
        default=None,
        metadata={
            "help": "lower the batch to what fits into memory and raise accumulation: the same update; on with a GPU"
        },
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "not used"})

    def __post_init__(self) -> None:
        if self.bf16 is None:
            self.bf16 = not (self.fp16 or self.use_cpu) and _fast_bf16()
        if self.bf16 and not torch.accelerator.is_available():
            # transformers wants to hear that a CPU is meant, and there is nothing else.
            object.__setattr__(self, "use_cpu", True)
        super().__post_init__()
        if self.n_gpu > 1:
            # One process would otherwise split its batch over all GPUs, and no loss may see a part of a micro-batch.
            self._n_gpu = 1


@dataclass(frozen=True)
class Settings:
    """All settings of one run, checked.

    Attributes:
        entry: the algorithm's class and the package it comes from.
        run: method, data and end of the run.
        rollout: sampling and rewards; None for methods that learn from data.
        model: the model and its adapters.
        training: arguments of the training loop.
        algorithm: the method's own settings, an instance of its ``Config``.
        given: names somebody set, rather than left to a default.
        objects: what Python passed in place of a name: model, data set, rewards, by the name of the setting.
    """

    entry: Entry
    run: RunSettings
    rollout: RolloutSettings | None
    model: ModelSettings
    training: TrainingArguments
    algorithm: Config
    given: frozenset[str] = frozenset()
    objects: Mapping[str, Any] = field(default_factory=dict)

    def make_algorithm(self) -> Algorithm[Any]:
        """A fresh instance of the method; it belongs to one run."""
        algorithm: Algorithm[Any] = self.entry.cls(self.algorithm)
        helpers = []
        if self.run.sft_coef:
            helpers.append(Part("nll", self.run.sft_coef, Imitation()))
        if self.source("replay_dataset") is not None:
            helpers.append(Part("replay", self.run.replay_coef, Imitation(), replay=True))
        return helped(algorithm, helpers)

    def source(self, name: str) -> Any:
        """The setting ``name``, or the object that was passed in its place."""
        if name in self.objects:
            return self.objects[name]
        parts = (self.run, self.rollout, self.model, self.training, self.algorithm)
        return next((getattr(part, name) for part in parts if hasattr(part, name)), None)

    @property
    def testbed_model(self) -> bool:
        """Whether the model is the embedded one."""
        return self.source("model_name_or_path") is None

    @property
    def testbed_data(self) -> bool:
        """Whether the data is the embedded one."""
        return embedded(self.source("dataset_name"))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, without tokens."""
        training = {name: value for name, value in self.training.to_dict().items() if not name.endswith("_token")}
        settings = {
            "algo": self.run.algo,
            "supplier": str(self.entry.supplier),
            "run": asdict(self.run),
            "rollout": None if self.rollout is None else asdict(self.rollout),
            "model": asdict(self.model),
            "training": training,
            "algorithm": {name.replace(JOINT, "."): value for name, value in asdict(self.algorithm).items()},
            "given": sorted(self.given),
            "objects": {name: _kind(value) for name, value in self.objects.items()},
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        return plain


def embedded(dataset: Any) -> bool:
    """Whether a data source is the embedded one: none at all, or its name, perhaps with knobs after a colon."""
    return dataset is None or (isinstance(dataset, str) and dataset.partition(":")[0] == EMBEDDED)


def output_directory(algo: str) -> str:
    """Where a run goes when nobody says: one place for each method, so that methods can be compared side by side."""
    return "runs/" + re.sub(r"[^\w.]+", "-", algo)


def _fast_bf16() -> bool:
    """Whether the GPU computes in bfloat16 itself; older ones emulate it, which is slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _kind(value: Any) -> Any:
    if isinstance(value, list) and value and not isinstance(value[0], Mapping):
        return [_kind(item) for item in value]
    return value if isinstance(value, str) else getattr(value, "__qualname__", type(value).__qualname__)
