"""The forecast: what a run would hold in memory at which batch size, told from its settings and its data."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import transformers

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group
from xpo.errors import SettingError
from xpo.feedback.sampling import ROWS, Sampling
from xpo.models.guard import reach
from xpo.models.memory import Passes, Sampled, Terms, compared, expected_engine
from xpo.models.outline import Outline, outline, outline_of
from xpo.models.phases import Phase
from xpo.models.rehearsal import rehearse
from xpo.models.rough import rough_phases
from xpo.train.examination import examined_prompts, examined_tokens
from xpo.train.material import Material
from xpo.train.online import forming_of, sampling_of
from xpo.train.room import SPARE
from xpo.train.settings import ModelSettings, Settings
from xpo.train.workload import Workload, answered, expected, heaviest_chunk

#: Parts that come and go within a step, and the gaps they leave in the heap of the C library as a share of them: a
#: freed block is seldom used for the next of the same size, for blocks of tensors are aligned. Measured between 0.6
#: and 0.9 with glibc, on both layouts; ``xpo.models.heap`` does without the gaps, and makes a step a fifth slower.
PASSING = ("activations", "logits", "masks")
GAPS = 0.75
#: Groups that the examination scores at once.
EXAMINED = 16


class Forecast:
    """What a run would hold in memory.

    Attributes:
        outline: the policy without weights.
        work: the steps of the run.
        layout: the one that would be used.
        lines: what is estimated otherwise than by rehearsing it.
    """

    def __init__(
        self, settings: Settings, algorithm: Algorithm[Any], material: Material, config: ModelSettings
    ) -> None:
        self.settings, self.material, self.needs = settings, material, algorithm.needs
        self.device = str(settings.training.device.type)
        given = settings.objects.get("model_name_or_path")
        self.scalar = algorithm.model != "policy"
        self.outline = outline(config, scalar=self.scalar) if given is None else outline_of(given, config)
        self.other = _other(settings, config) if self.needs.reference else None
        self.sampling = sampling_of(settings)
        self.work = Workload(settings, algorithm, material, self.sampling)
        self.reach = reach(self.outline.policy.model)
        self.lines: list[str] = list(self.outline.lines)
        model, wanted = self.outline.policy.model, settings.run.layout
        self.layout = expected_engine(model, wanted, self.device).layout
        if self.outline.policy.quantization == "8-bit" and self.layout == "tree":
            # They quantise the states too, by what else there is in a batch, which the guard takes for a difference.
            self.layout = "padded"
            self.lines.append("layout: padded, since 8-bit layers compute a token by the company it is in")
        elif self.layout != wanted:
            self.lines.append(f"layout: {self.layout}, since trees cannot be used with this model")
        self._known: dict[tuple[int, int, str], list[Phase]] = {}

    def phases(self, size: int, accumulation: int, layout: str) -> list[Phase]:
        """The phases of the run with micro-batches of ``size`` rows, without what the libraries take."""
        if (size, accumulation, layout) not in self._known:
            terms = self._terms(accumulation, layout)
            passes = self._passes(size, accumulation, layout)
            try:
                found = rehearse(self.outline, terms, passes)
            except Exception as error:  # a model may do what cannot be done without values in any way it likes
                if os.environ.get("XPO_DEBUG"):
                    raise
                line = f"memory: a rule of thumb, for this model cannot be rehearsed ({type(error).__name__})"
                self.lines += [line] if line not in self.lines else []
                found = rough_phases(self.outline, terms, passes)
            self._known[size, accumulation, layout] = [self._in_heap(phase) for phase in found]
        return self._known[size, accumulation, layout]

    def _in_heap(self, phase: Phase) -> Phase:
        """On a CPU, with the gaps that what comes and goes leaves in the heap."""
        passing = sum(phase.parts.get(part, 0) for part in PASSING)
        if self.device != "cpu" or not passing:
            return phase
        return replace(phase, parts={**phase.parts, "heap gaps": round(GAPS * passing)})

    def peak(self, size: int, accumulation: int, layout: str | None = None) -> int:
        """Most bytes that the run holds, without what the libraries take."""
        found = self.phases(size, accumulation, layout or self.layout)
        return max(phase.total for phase in found)

    def fitting(self, available: int, libraries: int = 0) -> tuple[int, int] | None:
        """(rows of a micro-batch, micro-batches) of the same update in as few micro-batches as fit; None for none.

        Args:
            available: bytes for the run, what the ``libraries`` take included.
        """
        args = self.settings.training
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
        size = fitting_batch(
            lambda size: libraries + self.peak(size, rows // size),
            rows,
            available,
            least=-(-self.needs.least // args.world_size),
        )
        return None if size is None else (size, rows // size)

    def _terms(self, accumulation: int, layout: str) -> Terms:
        args = self.settings.training
        return Terms(
            layout=layout,
            device=self.device,
            precision=torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None,
            reference=self.needs.reference,
            given=self.other,
            vocabulary=self.needs.vocabulary,
            values=self.needs.values,
            accumulates=accumulation > 1,
            dropout=not self.settings.run.disable_dropout,
            checkpointing=args if args.gradient_checkpointing else None,
            optimiser=_optimiser(args, self.outline),
        )

    def _passes(self, size: int, accumulation: int, layout: str) -> Passes:
        args, material = self.settings.training, self.material
        checked = [compared(self.work.first(layout))]
        trained = self.work.heaviest(size, accumulation, layout, self.reach)
        if self.scalar:  # it is looked at by the comparisons it learns from
            return Passes(trained, checked, heaviest_chunk(material.held_out, EXAMINED, layout, self.reach))
        scored = heaviest_chunk(material.compared, EXAMINED, layout, self.reach)
        if args.eval_strategy != "no":
            forming = forming_of(self.settings)
            held = [one for group in material.held_out for one in expected(group, self.sampling, forming)]
            rows = args.per_device_eval_batch_size * self.work.groups_a_row
            scored += heaviest_chunk(held, rows, layout, self.reach)
        prompts, longest = examined_prompts(self.settings, material), examined_tokens(self.settings)
        sampled = _sampled(prompts, 1, longest)
        look = [answered(group, Sampling(1, longest)) for group in prompts]
        scored += heaviest_chunk(look, EXAMINED, layout, self.reach)  # for the KL
        if self.sampling is not None:
            most = self.work.rows_a_step // args.world_size * self.sampling.samples
            sampled += _sampled(material.train, most, self.sampling.max_tokens)
        return Passes(
            trained=trained,
            checked=checked,
            scored=scored,
            sampled=sampled,
            again=bool(prompts) and not self.needs.reference and self.outline.policy.adapter is None,
        )


def fitting_batch(peak: Callable[[int], int], wanted: int, available: int, least: int = 1) -> int | None:
    """The largest batch that divides ``wanted``, so that accumulation can make up for it, and fits; None for none.

    Args:
        peak: bytes that a batch size takes; more for more.
        wanted: the size to begin with.
        available: bytes there are; some of them are left free.
        least: the smallest size allowed.
    """
    sizes = [size for size in range(1, wanted + 1) if wanted % size == 0 and size >= least]
    if sizes and peak(sizes[-1]) <= (1 - SPARE) * available:
        return sizes[-1]
    found = bisect_right(sizes[:-1], (1 - SPARE) * available, key=peak)
    return sizes[found - 1] if found else None


def _sampled(prompts: list[Group], most: int, tokens: int) -> list[Sampled]:
    rows = min(ROWS, most if most > 1 else len(prompts))
    return [Sampled(rows, max(len(group.prompt_ids) for group in prompts), tokens)] if prompts else []


def _other(settings: Settings, config: ModelSettings) -> Outline | None:
    """The reference, where it is another model than the policy as it starts."""
    given = settings.source("reference_model")
    if given is None:
        return None
    frozen: ModelSettings = replace(config, use_peft=False, model_revision="main")  # type: ignore[call-arg]  # fields of trl's
    if isinstance(given, torch.nn.Module):
        return outline_of(given, frozen)
    return outline(replace(frozen, model_name_or_path=given))  # type: ignore[call-arg]  # as above


def _optimiser(args: Any, of: Outline) -> Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]:
    try:
        made, settings = transformers.Trainer.get_optimizer_cls_and_kwargs(args, of.policy.model)
    except (ImportError, ValueError, TypeError) as error:
        raise SettingError(f"--optim: {error}") from error
    return lambda parameters: made(parameters, **settings)
