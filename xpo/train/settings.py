"""Everything a run is told, in one frozen bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import transformers
from trl import ModelConfig

from xpo.api.algorithm import Algorithm, Config, option
from xpo.api.groups import Kind
from xpo.api.mixture import JOINT, Imitation, Part, helped
from xpo.plugins import Entry

#: The embedded data set and its reward.
EMBEDDED = "testbed"

#: Part of a model by its name, which a pattern is not.
_NAME = re.compile(r"[\w.]+")

#: Kinds of data that can be made of samples -> samples of a prompt, where neither the user nor the method says.
SAMPLES: Mapping[Kind, int] = {"pairs": 2, "labels": 2, "lists": 4}

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
    online: bool = option(
        False,
        "sample the completions of each prompt while training, and learn from what rewards or a judge say of them",
    )
    sync_ref_model: bool = option(False, "let the reference follow the policy while training")
    ref_model_mixup_alpha: float = option(0.6, "share of the policy in the reference that follows it; 1 to copy it")
    ref_model_sync_steps: int = option(512, "steps between two times that it follows")
    value_model: str | None = option(
        None, "model that values begin as, in place of the policy or of the reward model; a model of its own"
    )
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
    disable_dropout: bool = option(True, "switch dropout off, in the adapters too (--lora_dropout)")
    sample_completions: int = option(2, "prompts whose completions before and after training are shown at the end")
    eval_prompts: int | None = option(None, "held-out prompts to sample at the end, for the win rate; 0 for none")
    overwrite: bool = option(False, "replace another run in the output directory")


@dataclass
class RolloutSettings:
    """Sampling and feedback, for methods that learn from completions sampled while training, and for ``--online``."""

    num_generations: int | None = option(None, "completions of every prompt; the method's own number if not given")
    max_completion_length: int = option(256, "most tokens to sample")
    temperature: float = option(1.0, "temperature of sampling and of the log-probabilities")
    top_k: int | None = option(None, "sample from this many of the likeliest tokens, where a method allows it")
    top_p: float = option(
        1.0, "sample from the likeliest tokens of this probability together, where a method allows it"
    )
    use_vllm: bool = option(False, "sample with a vLLM server in place of transformers")
    vllm_server_base_url: str | None = option(None, "its address, such as http://localhost:8000")
    reward: list[str] | None = field(
        default=None,
        metadata={"help": "rewards: a name (`xpo plugins`), module:function, file.py:function, or a reward model"},
    )
    reward_weights: list[float] | None = field(default=None, metadata={"help": "factor of each reward; 1 if not given"})
    judge: str | None = option(
        None,
        "who prefers one completion to another: a name (`xpo plugins`), module:function, file.py:function, a "
        "preference or reward model, a language model that is asked, openai:MODEL, or self: the policy; with rubric: "
        "before one of the last three it grades each completion",
    )
    judge_url: str | None = option(None, "address of an OpenAI-compatible server, for --judge openai:MODEL")
    judge_timeout: float = option(60.0, "seconds that one question to a server may take")
    judge_retries: int = option(3, "further attempts at a question that failed")
    judge_concurrency: int = option(8, "questions under way at a time")
    judge_template: str | None = option(
        None, "file with the question, which names {prompt}, {first} and {second}; of a rubric {prompt} and {answer}"
    )
    missing_eos_penalty: float | None = option(None, "taken off the reward of a completion that did not end")
    missing_eos_score: float | None = option(None, "given as the reward of a completion that did not end")
    num_iterations: int = option(1, "updates made with every sample")
    refresh_steps: int | None = option(
        None, "steps whose prompts are sampled for at once, with the policy of the first; 1, or a round, if not given"
    )
    rounds: int = option(1, "parts of the run of which each begins with new samples and a new reference")
    round_reference: Literal["policy", "mixed", "kept"] = option(
        "policy", "reference of a new round: the policy as it is, mixed by --ref_model_mixup_alpha, or as it was"
    )
    online_pairs: Literal["best_worst", "all", "random"] = option(
        "best_worst", "pairs to make of the samples of a prompt, for --online with methods that learn from pairs"
    )
    label_threshold: float | None = option(
        None,
        "score above which a sample is desirable, for --online with methods that learn from labels; the mean of "
        "the samples of its prompt if not given",
    )
    log_completions: bool = option(False, "show samples while training, and write them to completions.jsonl")
    log_completions_steps: int = option(10, "steps between two looks at samples")
    num_completions_to_print: int = option(3, "prompts of such a look")

    @property
    def window(self) -> int | None:
        """Steps that are sampled for at once; None for all of a round."""
        return 1 if self.refresh_steps is None and self.rounds == 1 else self.refresh_steps

    @property
    def reuses(self) -> bool:
        """Whether updates are made with samples of an earlier policy."""
        return self.num_iterations > 1 or self.window != 1


@dataclass
class ModelSettings(ModelConfig):  # type: ignore[misc]  # trl is not followed by mypy
    """TRL's ``ModelConfig``, and leave to run a model's own code, which TRL keeps among its training arguments."""

    trust_remote_code: bool = option(False, "run Python code that comes with the model")
    lora_dropout: float = option(0.05, "dropout of the adapters; there is none without --disable_dropout false")

    def __post_init__(self) -> None:
        for name in ("lora_target_modules", "lora_target_parameters", "lora_modules_to_save"):
            setattr(self, name, _apart(getattr(self, name)))
        modules: list[str] | str | None = vars(self)["lora_target_modules"]
        super().__post_init__()
        # TRL takes a single name out of its list, and PEFT reads bare text as a pattern of whole paths.
        if isinstance(modules, list) and len(modules) == 1 and _NAME.fullmatch(modules[0]):
            self.lora_target_modules = modules


@dataclass
class TrainingArguments(transformers.TrainingArguments):  # type: ignore[misc]  # nor is transformers
    """``transformers.TrainingArguments`` with defaults for preference optimisation."""

    per_device_train_batch_size: int = field(
        default=8,
        metadata={
            "help": "rows of the data in a micro-batch of each process: demonstrations, pairs, lists, or prompts with "
            "all their samples, of which TRL counts each"
        },
    )
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
        rollout: sampling and feedback; None where what is learned from is all in the data.
        model: the model and its adapters.
        training: arguments of the training loop.
        algorithm: the method's own settings, an instance of its ``Config``.
        given: names somebody set, rather than left to a default.
        objects: what Python passed in place of a name: model, data set, rewards, by the name of the setting.
        notes: what to say of flags that were taken and change nothing.
    """

    entry: Entry
    run: RunSettings
    rollout: RolloutSettings | None
    model: ModelSettings
    training: TrainingArguments
    algorithm: Config
    given: frozenset[str] = frozenset()
    objects: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

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
    def kind(self) -> Kind:
        """The kind of data that is read: prompts alone where completions are sampled."""
        return self.entry.cls.data if self.rollout is None else "rollouts"

    @property
    def moves_reference(self) -> bool:
        """Whether the reference changes while training."""
        rollout = self.rollout
        return self.run.sync_ref_model or (
            rollout is not None and rollout.rounds > 1 and rollout.round_reference != "kept"
        )

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


def _apart(names: list[str] | str | None) -> list[str] | str | None:
    """Names in a list, of which one word may hold several with commas between them; a pattern as it is."""
    if not isinstance(names, list):
        return names
    words = [name.split(",") for name in names]
    return [
        part
        for name, parts in zip(names, words, strict=True)
        for part in (parts if all(map(_NAME.fullmatch, parts)) else [name])
    ]


def _fast_bf16() -> bool:
    """Whether the GPU computes in bfloat16 itself; older ones emulate it, which is slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _kind(value: Any) -> Any:
    if isinstance(value, list) and value and not isinstance(value[0], Mapping):
        return [_kind(item) for item in value]
    return value if isinstance(value, str) else getattr(value, "__qualname__", type(value).__qualname__)
