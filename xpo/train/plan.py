"""The plan of a run: what it would train, on how many positions, with how much memory. No weight is read for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xpo.compat import no_bars
from xpo.models.load import load_tokenizer
from xpo.models.memory import expected_engine
from xpo.models.phases import Phase
from xpo.plugins import load
from xpo.train.describe import label, left_out
from xpo.train.forecast import Forecast
from xpo.train.material import Material, gather
from xpo.train.networks import model_config
from xpo.train.preflight import check_checkpoint, check_vocabulary, too_long
from xpo.train.room import resident, room
from xpo.train.settings import Settings

LAYOUTS = ("padded", "tree")


@dataclass(frozen=True)
class LayoutPlan:
    """What a layout would make of an optimiser step on one process.

    Attributes:
        positions: that go through the policy, on average.
        tokens: those of them that hold a token.
        fill: their share.
        peak: bytes that the run would hold, the libraries included.
    """

    positions: float
    tokens: float
    fill: float
    peak: int


@dataclass(frozen=True)
class Fit:
    """The same update in as few micro-batches as fit."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int


@dataclass(frozen=True)
class Plan:
    """What a run would take. Sizes are in bytes.

    Attributes:
        algorithm: name of the method.
        model: name, parameters, trainable, dtype, adapter, quantization.
        reference: what it would be; None for none.
        lines: what would happen to the rows, and how exact the plan is.
        rows, groups: rows read, and groups to learn from.
        steps: of a pass over the data, and of the run.
        batch: rows of a micro-batch, micro-batches of a step, processes, rows of a step.
        layout: the one that would be used.
        layouts: what each would make of a step.
        saved: share of positions that trees spare.
        libraries: what the interpreter, the libraries and the data take; 0 on a GPU, where they take nothing.
        phases: the phases of the run by parts, without the libraries.
        peak: most that the run would hold, the libraries included.
        device, room: kind of the device, and what a run may take there.
        fits: the largest batch that does; None when none does.
        advice: what would make the run smaller, and is not set yet.
    """

    algorithm: str
    model: Mapping[str, Any]
    reference: str | None
    lines: list[str]
    rows: int
    groups: int
    steps: Mapping[str, int]
    batch: Mapping[str, int]
    layout: str
    layouts: Mapping[str, LayoutPlan]
    saved: float
    libraries: int
    phases: list[Phase]
    peak: int
    device: str
    room: int
    fits: Fit | None
    advice: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "phases": {phase.name: {**phase.parts, "total": phase.total} for phase in self.phases}}


def make_plan(settings: Settings) -> Plan:
    """Plan the run that ``settings`` describe.

    Raises:
        XpoError: the run would not begin.
    """
    no_bars()
    args = settings.training
    check_checkpoint(args, settings.entry.cls.name)
    algorithm = settings.make_algorithm()
    config = model_config(settings)
    tokenizer = settings.source("tokenizer") or load_tokenizer(config, settings.run.chat_template_path)
    material = gather(settings, algorithm, load(), tokenizer)
    device = str(args.device.type)
    # Before anything is rehearsed: that a run does not do.
    libraries = 0 if device == "cuda" else resident()
    forecast = Forecast(settings, algorithm, material, config)
    policy = forecast.outline.policy
    check_vocabulary(policy, material)

    size, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    layouts = {name: _layout(forecast, name, size, accumulation, libraries) for name in LAYOUTS}
    phases = forecast.phases(size, accumulation, forecast.layout)
    most = room(device)
    fits = forecast.fitting(most, libraries)
    return Plan(
        algorithm=settings.run.algo,
        model={
            "name": label(settings),
            "parameters": forecast.outline.parameters,
            "trainable": forecast.outline.trainable,
            "dtype": str(policy.model.dtype).removeprefix("torch."),
            "adapter": policy.adapter,
            "quantization": policy.quantization,
        },
        reference=_reference(forecast, settings) if algorithm.needs.reference else None,
        lines=[*material.lines, *_lines(forecast, material, settings)],
        rows=material.rows,
        groups=len(material.train),
        steps={"pass": forecast.work.steps_a_pass, "total": forecast.work.steps},
        batch={
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "processes": args.world_size,
            "rows_a_step": forecast.work.rows_a_step,
        },
        layout=forecast.layout,
        layouts=layouts,
        saved=1.0 - layouts["tree"].positions / layouts["padded"].positions,
        libraries=libraries,
        phases=phases,
        peak=libraries + max(phase.total for phase in phases),
        device=device,
        room=most,
        fits=None if fits is None else Fit(*fits),
        advice=_advice(settings),
    )


def _layout(forecast: Forecast, name: str, size: int, accumulation: int, libraries: int) -> LayoutPlan:
    engine = expected_engine(forecast.outline.policy.model, name, forecast.device)
    counted = forecast.work.positions(name, engine.arrange)
    peak = libraries + forecast.peak(size, accumulation, name)
    return LayoutPlan(counted.computed, counted.tokens, counted.fill, peak)


def _reference(forecast: Forecast, settings: Settings) -> str:
    given = settings.source("reference_model")
    if given is not None:
        return f"given model {given if isinstance(given, str) else type(given).__name__}"
    known = {"new": "the same model with adapters off", "continued": "frozen copy of the continued adapter"}
    return known.get(forecast.outline.policy.adapter or "", "frozen copy of the starting model")


def _lines(forecast: Forecast, material: Material, settings: Settings) -> list[str]:
    lines = [too_long(forecast.outline.policy, material), *forecast.lines, *left_out(forecast.work.left_out)]
    if forecast.sampling is not None:
        lines.append(
            f"an upper bound: {forecast.sampling.samples} completions of every prompt are counted with all "
            f"{forecast.sampling.max_tokens} tokens of --max_completion_length; reward models are not counted"
        )
    if settings.training.fsdp or settings.training.deepspeed:
        lines.append("an upper bound: what is split over processes is counted whole")
    return [line for line in lines if line]


def _advice(settings: Settings) -> list[str]:
    model = settings.model
    ways = [
        ("lower --max_length", True),
        ("train adapters with --use_peft", not model.use_peft),
        ("load the model in 4 bits with --load_in_4bit", not model.load_in_4bit),
        ("compute activations twice with --gradient_checkpointing", not settings.training.gradient_checkpointing),
    ]
    return [way for way, open_ in ways if open_]
