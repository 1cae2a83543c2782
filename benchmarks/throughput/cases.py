"""What is measured: the cases, and the sides that each case sets against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: What the rows of a case are made from: chat pairs, long chat pairs, or the pairs of the small model.
Material = Literal["chat", "long", "plain"]
#: What a row is: a pair, a label, or a list of completions.
Kind = Literal["pairs", "labels", "lists"]


@dataclass(frozen=True)
class Side:
    """One way to take the steps.

    Attributes:
        name: what ``--sides`` and the record call it.
        title: what the tables call it.
        library: whose trainer it is.
        settings: what the trainer is told besides what every side of its library is told.
        cached: whether it reads, or fills, a reference cache on disk.
    """

    name: str
    title: str
    library: Literal["trl", "xpo"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False


SIDES: Mapping[str, Side] = {
    side.name: side
    for side in (
        Side("trl", "TRL", "trl"),
        Side("trl-warm", "TRL, reference precomputed", "trl", {"precompute_ref_log_probs": True}),
        Side("padded", "xpo, padded", "xpo", {"layout": "padded"}),
        Side("tree", "xpo, tree", "xpo", {"layout": "tree"}),
        Side("cold", "xpo, tree, filling the cache", "xpo", {"layout": "tree"}, cached=True),
        Side("warm", "xpo, tree, warm cache", "xpo", {"layout": "tree"}, cached=True),
    )
}
#: Sides that are measured unless others are asked for.
USUAL = ("trl", "padded", "tree", "warm")


@dataclass(frozen=True)
class Case:
    """One question: an algorithm on some data.

    Attributes:
        name: what ``--cases`` calls it.
        title: what the tables call it.
        algorithm: xpo's name of the method.
        material: what the rows are made from.
        sides: the sides that can take part; TRL has no lists and no SimPO.
        kind: what a row is.
        completions: completions of a row, for lists.
        method: settings of the method.
        batch: rows of a step.
        steps: steps in all, where the case needs a number of its own.
        lora: adapters on all linear layers; False trains all weights.
        learning_rate, schedule: of the optimiser.
        hold_out: rows to hold out by prompt, but a fifth at most, to judge by at the end; then a run is one epoch.
    """

    name: str
    title: str
    algorithm: str
    material: Material
    sides: tuple[str, ...]
    kind: Kind = "pairs"
    completions: int = 2
    method: Mapping[str, Any] = field(default_factory=lambda: {"beta": 0.1})
    batch: int = 8
    steps: int | None = None
    lora: bool = True
    learning_rate: float = 1e-4
    schedule: str = "constant"
    hold_out: int = 0


BOTH = ("trl", "trl-warm", "padded", "tree", "cold", "warm")
OURS = ("padded", "tree", "cold", "warm")
#: The listwise method of ``plackett_luce.py``, a plugin of the benchmark's own.
LISTWISE = "plackett_luce_benchmark"

CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case("dpo-chat", "DPO, chat pairs", "dpo", "chat", BOTH),
        Case("dpo-long", "DPO, long chat pairs", "dpo", "long", BOTH),
        Case("kto", "KTO with its KL completions, one label a chat pair", "kto", "chat", BOTH, kind="labels"),
        Case("simpo", "SimPO, chat pairs, no reference", "simpo", "chat", OURS[:2], method={}),
        Case("dpo-list4", "Plackett-Luce with a reference, lists of 4", LISTWISE, "chat", OURS, "lists", 4),
        # As many completions a step as lists of 4, so that the padded side has the same memory.
        Case("dpo-list8", "Plackett-Luce with a reference, lists of 8", LISTWISE, "chat", OURS, "lists", 8, batch=4),
        Case("exact", "DPO, chat pairs, 50 steps: are the layouts one computation?", "dpo", "chat", OURS, steps=50),
        Case(
            "epoch",
            "One epoch of DPO on all weights of a small model, judged on rows held out",
            "dpo",
            "plain",
            BOTH,
            batch=16,
            lora=False,
            learning_rate=5e-4,
            schedule="linear",
            hold_out=500,
        ),
    )
}
