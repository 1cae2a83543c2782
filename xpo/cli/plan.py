"""``xpo plan``: what a run would take, before anything is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xpo.train.plan import Plan

_USAGE = """\
usage: xpo plan --algo METHOD [--model NAME] [--dataset NAME] [--config FILE.yaml] [--SETTING VALUE ...] [--json]

Says what `xpo train` with the same settings would take, without loading the model: parameters, memory, positions,
steps, and the largest batch that fits. It takes every setting that `xpo train` takes: `xpo train --help` lists them.

  --json  print JSON; sizes are in bytes
"""


def run(argv: list[str]) -> int:
    """Print the plan of the run that the flags describe; the exit status."""
    from xpo.compat import quiet
    from xpo.models.heap import steady_heap
    from xpo.train.sources import from_argv

    if {"-h", "--help"} & set(argv):
        print(_USAGE, end="")
        return 0
    quiet()
    steady_heap()
    as_json = "--json" in argv
    # The settings file may set environment variables that the libraries read when they are imported.
    sources = from_argv([word for word in argv if word != "--json"])
    from xpo.train.flags import settle
    from xpo.train.plan import make_plan

    plan = make_plan(settle(sources))
    if as_json:
        print(json.dumps(plan.to_dict(), indent=2, default=str))
    else:
        _show(plan)
    return 0


def _show(plan: Plan) -> None:
    from xpo.cli.console import console
    from xpo.train.tables import table

    for text in (*_facts(plan), ""):
        console().print(text, markup=False, soft_wrap=True)
    rows = [
        (
            name + (" (used)" if name == plan.layout else ""),
            f"{one.positions:,.0f}",
            f"{one.tokens:,.0f}",
            f"{one.fill:.0%}",
            size(one.peak),
        )
        for name, one in plan.layouts.items()
    ]
    console().print(table(("layout", "positions a step", "with a token", "fill", "peak memory"), rows))
    spared = f"trees compute {plan.saved:.0%} fewer positions" if plan.saved > 0 else "trees spare no positions"
    console().print(f"{spared}\n", markup=False, soft_wrap=True)
    console().print(table(("memory", *(phase.name for phase in plan.phases)), _memory(plan)))
    for text in _fit(plan):
        console().print(text, markup=False, soft_wrap=True)


def _facts(plan: Plan) -> list[str]:
    model, batch, steps = plan.model, plan.batch, plan.steps
    how = {None: "full fine-tuning", "new": "LoRA", "continued": "LoRA, continued"}[model["adapter"]]
    kind = ", ".join(filter(None, (how, model["quantization"], model["dtype"])))
    share, over = batch["per_device_train_batch_size"], f" on {batch['processes']} processes"
    return [
        f"model: {model['name']}, {model['parameters']:,} parameters, {model['trainable']:,} trained ({kind})",
        f"algorithm: {plan.algorithm}",
        *([f"reference: {plan.reference}"] if plan.reference else []),
        *plan.lines,
        f"steps: {steps['pass']:,} a pass, {steps['total']:,} in all, of {batch['rows_a_step']:,} rows: {share} a "
        f"micro-batch, {batch['gradient_accumulation_steps']} of them" + (over if batch["processes"] > 1 else ""),
    ]


def _memory(plan: Plan) -> list[tuple[str, ...]]:
    """A row for each part, with what it holds in each phase, and their sum."""
    parts = dict.fromkeys(part for phase in plan.phases for part in phase.parts)
    rows = [
        (part, *(size(phase.parts[part]) if part in phase.parts else "" for phase in plan.phases)) for part in parts
    ]
    if plan.libraries:
        rows.append(("libraries", *(size(plan.libraries) for _ in plan.phases)))
    return [*rows, ("in all", *(size(phase.total + plan.libraries) for phase in plan.phases))]


def _fit(plan: Plan) -> list[str]:
    where = "free on the GPU" if plan.device == "cuda" else "free on this machine"
    lines = ["", f"peak memory: {size(plan.peak)} of {size(plan.room)} {where}"]
    if plan.fits is None:
        return [*lines, f"fits: no batch does; {', '.join(plan.advice)}, or take a smaller model"]
    found, accumulation = plan.fits.per_device_train_batch_size, plan.fits.gradient_accumulation_steps
    return [
        *lines,
        f"fits: --per_device_train_batch_size {found} --gradient_accumulation_steps {accumulation} is the same update "
        "in as few micro-batches as fit",
    ]


def size(number: int) -> str:
    """Bytes as people read them."""
    if number >= 2**30:
        return f"{number / 2**30:.2f} GiB"
    return f"{number / 2**20:.0f} MiB" if number >= 2**20 else f"{number / 2**10:.0f} KiB"
