"""What ``xpo label`` is told: settings of its own, and those it shares with training, in one frozen bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from xpo.api.algorithm import option
from xpo.errors import SettingError, did_you_mean
from xpo.feedback.judges import RUBRIC
from xpo.train.settings import ModelSettings, RolloutSettings, RunSettings, embedded
from xpo.train.sources import Given
from xpo.train.trl_flags import ALIASES
from xpo.train.vocabulary import Slot, read_value, slots_of

#: Completions of a prompt where nobody says how many.
SAMPLES = 4
#: How completions come about, which means nothing for those that are there already.
SAMPLING = (
    *("num_generations", "max_completion_length", "temperature", "top_k", "top_p"),
    *("missing_eos_penalty", "missing_eos_score"),
)
#: How a server is asked.
ASKED = ("judge_timeout", "judge_retries", "judge_concurrency")


@dataclass(frozen=True)
class LabelOptions:
    """Settings of labelling alone."""

    output: str = option("", "file to write, a row a line (.jsonl)")
    to: Literal["pairs", "labels", "lists"] = option("pairs", "kind of data to make")
    batch_size: int = option(8, "prompts that are sampled for and judged together")
    limit: int | None = option(None, "read only so many rows, the first")
    seed: int = option(0, "seed of sampling, of random pairs and of a judge that samples")
    use_cpu: bool = option(False, "leave a GPU alone")
    overwrite: bool = option(False, "replace a finished file, or one of another command")


#: Settings of training that labelling takes too, by section.
_SHARED: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    "run": (RunSettings, ("dataset_name", "dataset_config", "dataset_train_split", "chat_template_path")),
    "model": (
        ModelSettings,
        (
            *("model_name_or_path", "model_revision", "dtype", "attn_implementation", "trust_remote_code"),
            *("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"),
        ),
    ),
    "rollout": (
        RolloutSettings,
        (
            *SAMPLING,
            *("reward", "reward_weights", "judge", "judge_url", *ASKED, "judge_template"),
            *("online_pairs", "label_threshold"),
        ),
    ),
}

#: What a setting means where that is not quite what it means in training.
ABOUT: Mapping[str, str] = {
    "model_name_or_path": "model that samples, a directory or hub id; of completions that are there already its "
    "tokenizer counts the tokens",
    "dataset_train_split": "split to read",
    "load_in_4bit": "load models in 4 bits",
    "load_in_8bit": "load models in 8 bits",
    "num_generations": f"completions of every prompt; {SAMPLES} if not given",
    "temperature": "temperature of sampling",
    "top_k": "sample from this many of the likeliest tokens",
    "top_p": "sample from the likeliest tokens of this probability together",
    "online_pairs": "pairs to make of the completions of a prompt, with --to pairs",
    "label_threshold": "score above which a completion is desirable, with --to labels; the mean of the completions of "
    "its prompt if not given",
}


@dataclass(frozen=True)
class LabelSettings:
    """All settings of one labelling.

    Attributes:
        own: those of labelling alone.
        run: where the data is; the rest of it is of no concern here.
        model: what samples, and how models are loaded.
        rollout: how completions are sampled, judged and formed.
        changed: who gave each setting another value than its default.
    """

    own: LabelOptions
    run: RunSettings
    model: ModelSettings
    rollout: RolloutSettings
    changed: Mapping[str, Given] = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        """Whether the prompts are those of the embedded testbed."""
        return embedded(self.run.dataset_name)

    @property
    def judged_by_policy(self) -> bool:
        """Whether the model that samples is also the judge."""
        judge = self.rollout.judge
        return judge is not None and judge.removeprefix(RUBRIC) == "self"

    def value(self, name: str) -> Any:
        """The setting ``name``."""
        return next(getattr(part, name) for part in self._parts() if hasattr(part, name))

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, as JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps({name: self.value(name) for name in slots()}, default=str))
        return plain

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise where one of some settings was given, as it has no effect."""
        for name in names:
            if name in self.changed:
                raise SettingError(f"{self.changed[name].label} has no effect here: {why}")

    def _parts(self) -> tuple[Any, ...]:
        return self.own, self.rollout, self.model, self.run


def slots() -> dict[str, Slot]:
    """The settings there are."""
    found = slots_of("label", LabelOptions)
    for section, (cls, names) in _SHARED.items():
        there = slots_of(section, cls)
        found |= {name: there[name] for name in names}
    return found


def settle(sources: Sequence[Given]) -> LabelSettings:
    """Give every setting its value: the last source that set it, else its default.

    Raises:
        SettingError: something was written that cannot be honoured; the message says what to write instead.
    """
    known = slots()
    values: dict[str, Any] = {}
    by: dict[str, Given] = {}
    for given in sources:
        name = ALIASES.get(given.name, given.name)
        if name not in known:
            hint = did_you_mean(f"--{name}", [f"--{word}" for word in (*known, *ALIASES)])
            raise SettingError(
                f"{given.label} is not a setting of xpo label.{hint} `xpo label --help` lists what there is"
            )
        before = by.get(name)
        if before is not None and before.origin == given.origin and before.name != given.name:
            raise SettingError(f"{before.label} and {given.label} are two names of one setting; give one of them")
        values[name], by[name] = read_value(given, known[name].hint), given
    changed = {name: given for name, given in by.items() if values[name] != known[name].default}

    def section(which: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if known[name].section == which}

    return LabelSettings(
        LabelOptions(**section("label")),
        RunSettings(**section("run")),
        ModelSettings(**section("model")),
        RolloutSettings(**{"num_generations": SAMPLES, **section("rollout")}),
        changed,
    )
