"""The experiments: which runs each compares, and what it claims of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.testbed.online import STEPS, online_runs
from xpo.plugins import load

#: Steps of reward models, and between two points of their learning curve.
REWARD_STEPS, REWARD_EVERY = 240, 60
#: Settings of the runs on real data, beside the model and the data.
REAL: Mapping[str, Any] = {
    "max_steps": 50,
    "per_device_train_batch_size": 8,
    "use_peft": True,
    "lora_r": 8,
    "eval_size": 0.05,
    "eval_prompts": 0,
    "max_length": 256,
    "logging_steps": 1,
}


@dataclass(frozen=True)
class Side:
    """One thing that is trained in an experiment, once for every seed.

    Attributes:
        title: what the tables call it.
        algo, settings: what ``xpo.train`` is told; everything else is left to its defaults.
        look: what is measured beside the record of the run, if anything: ``ranking``, ``forgetting``, ``curve``,
            ``losses``.
        command: run it as a command line.
    """

    title: str
    algo: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    look: str | None = None
    command: bool = False


@dataclass(frozen=True)
class Experiment:
    """Runs and the claim about them; ``claims.py`` says how it is judged."""

    title: str
    claim: str
    sides: Sequence[Side]


@dataclass(frozen=True)
class Real:
    """A real model and data of each kind; what is not given is left out."""

    model: str | None = None
    pairs: str | None = None
    labels: str | None = None
    lists: str | None = None
    forget: str | None = None
    forget_column: str | None = None


def experiments(algos: Sequence[str] | None = None, real: Real | None = None) -> dict[str, Experiment]:
    """Name -> experiment, with the sides of some methods only where ``algos`` are given."""
    found = dict(_all(real or Real()))
    if algos is not None:
        some = {name: [side for side in one.sides if side.algo in algos] for name, one in found.items()}
        found = {name: Experiment(found[name].title, found[name].claim, sides) for name, sides in some.items() if sides}
    return found


def methods(*kinds: str, model: str = "policy") -> list[str]:
    """The methods xpo ships for some kinds of data."""
    registry = load()
    entries = {name: registry.algorithms[name] for name in registry.listed("algorithm")}
    ours = [name for name, entry in entries.items() if entry.supplier.distribution == "xpo"]
    return [
        name
        for name in ours
        if entries[name].cls.data in kinds and (entries[name].cls.model == "policy") == (model == "policy")
    ]


def _all(real: Real) -> Iterator[tuple[str, Experiment]]:
    lists = methods("lists")
    everyone = [*methods("pairs"), *methods("labels"), *lists, "sft", "dpo + 0.2*sft"]
    yield (
        "raise",
        Experiment(
            "Every method raises the known reward",
            "the mean reward of samples for test prompts is higher after training than before",
            [Side(name, name, look="ranking" if name in lists else None) for name in everyone],
        ),
    )
    yield (
        "lists",
        Experiment(
            "Lists of four against lists of two",
            "learning from four completions a prompt ranks held-out lists better than learning from two",
            [
                Side(f"{name}, {size}", name, {} if size == 4 else {"dataset": f"testbed:list_size={size}"}, "ranking")
                for name in lists
                for size in (2, 4)
            ],
        ),
    )
    yield "length", _with("length_bias=0.1", "A labeller who likes long answers", "ends shorter than dpo", _LENGTH)
    yield (
        "imbalance",
        _with("desirable=0.1667", "One desirable label in six", "still raises the mean reward", _IMBALANCE),
    )
    yield (
        "noise",
        _with(
            "noise=0.3",
            "Three judgments in ten turned round",
            "orders held-out lists better than dpo",
            _NOISE,
            "ranking",
        ),
    )
    yield (
        "forget",
        Experiment(
            "Forgetting some facts and keeping others",
            "facts to forget become less likely, and the perplexity of facts to retain grows by 5 % at most; plain "
            "gradient ascent does not keep them",
            [
                *[Side(name, name, look="forgetting") for name in ("npo", "simnpo", "gradient_ascent")],
                Side("gradient difference", "gradient_ascent", {"retain_nll_weight": 1}, "forgetting"),
            ],
        ),
    )
    yield (
        "online",
        Experiment(
            f"Every method that samples while it trains raises the known reward in {STEPS} steps",
            "the mean reward of samples for test prompts is higher after training than before; where a judge takes "
            "the place of the reward, it prefers the samples after training",
            [Side(title, algo, settings) for title, algo, settings in online_runs(methods("rollouts"))],
        ),
    )
    curve = {"max_steps": REWARD_STEPS, "eval_strategy": "steps", "eval_steps": REWARD_EVERY}
    yield (
        "reward",
        Experiment(
            "Reward models against what the labeller's noise allows",
            "held-out accuracy reaches that of the true reward itself",
            [Side(name, name, curve, "curve") for name in methods("pairs", "lists", model="reward")],
        ),
    )
    sides = list(_real(real))
    if sides:
        yield (
            "real",
            Experiment(
                "A real model on real data",
                "50 steps of LoRA go through the command line, every logged loss finite",
                sides,
            ),
        )


_LENGTH: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("dpo", {}),
    ("r_dpo", {}),
    ("r_dpo", {"alpha": 0.15}),  # about what this labeller adds for a token
    ("simpo", {}),
)
_IMBALANCE: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("kto", {}),
    ("kto", {"desirable_weight": 5}),
    ("bco", {}),
    ("apo_zero_unpaired", {}),
    ("binary_classifier", {}),
)
_NOISE: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("dpo", {}),
    *((algo, {"label_smoothing": share}) for algo in ("dpo", "robust_dpo") for share in (0.1, 0.3)),
)


def _with(
    knobs: str, title: str, claim: str, sides: Sequence[tuple[str, Mapping[str, Any]]], look: str | None = None
) -> Experiment:
    """Sides that learn from a labeller with knobs."""
    return Experiment(
        title,
        claim,
        [
            Side(
                ", ".join([algo, *(f"{key} {value}" for key, value in more.items())]),
                algo,
                {"dataset": f"testbed:{knobs}", **more},
                look,
            )
            for algo, more in sides
        ],
    )


def _real(real: Real) -> Iterator[Side]:
    """Every method on the data of its kind, where there is some; what needs scores reads pairs made of lists."""
    if real.model is None:
        return
    registry = load()
    kinds = ("pairs", "labels", "lists", "forget", "demonstrations")
    for name in [*methods(*kinds), *methods(*kinds, model="reward")]:
        cls = registry.algorithms[name].cls
        data = getattr(real, cls.data, real.pairs)
        if (cls.needs.scores or cls.needs.wins) and cls.data in ("pairs", "labels"):
            data = real.lists
        if data is not None:
            more = {"forget_column": real.forget_column} if cls.data == "forget" and real.forget_column else {}
            yield Side(name, name, {"model_name_or_path": real.model, "dataset": data, **REAL, **more}, "losses", True)


def told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a record holds them: files by their names, not their places, and functions by theirs."""
    return {key: _told(value) for key, value in settings.items()}


def _told(value: Any) -> Any:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return Path(value).name if isinstance(value, str) and Path(value).exists() else value
