"""Run one test vector through the algorithm that implements it: its own ``loss`` and the loop's own reduction.

A loss case is a mapping with ``loss`` (a name the file gives it), ``hyper`` (hyper-parameters), ``policy`` (ragged
numbers that carry gradient, by role: log-probabilities, ``<role>_logits``, a reward model's readings, or a value
model's ``value`` and ``values``) and ``data`` (what carries none: ``ref_<role>``, token ids, labels, scores, further
columns, and single numbers, which are the state before the step). A function case has ``kind: "function"`` and no
``policy``. An algorithm claims cases in ``Algorithm.golden`` and ``Algorithm.functions`` and says there how the file's
names map onto its own.

What belongs to the loop and not to an algorithm is done here as the loop does it: the ``missing_eos_penalty`` of a case
comes off the scores of completions without ``has_eos``, completions of role ``opponent`` are preferred as often as the
samples are not, and those of role ``replay`` are learned with the weight ``replay_coef``. Sampled completions with
scores go through ``experience`` before the loss.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.api.loss import counts, reduce
from xpo.api.mixture import Imitation, Part, helped
from xpo.errors import PluginError, did_you_mean
from xpo.plugins import load
from xpo.testing.case import Case, Place, Setting
from xpo.testing.spoken import Spoken

#: Names that vector files use for every pairwise loss, and the keys the loop logs.
METRICS = {
    "rewards_chosen": "rewards/chosen",
    "rewards_rejected": "rewards/rejected",
    "rewards_margin": "rewards/margins",
    "rewards_accuracy": "rewards/accuracies",
    "nll": "nll_loss",
}
#: Settings of the loop that a case may have.
_LOOP = ("missing_eos_penalty", "replay_coef")


def run_case(case: Case, *, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Run a test vector through the plugin that implements it.

    Returns:
        ``{"loss": float, "grad": nested lists as in case["policy"], "metrics": {name: mean}}`` for a loss, metrics both
        under the plugin's keys and under the file's names; ``{"outputs": {...}}`` for a function.

    Raises:
        PluginError: no installed algorithm claims the case, or the case does not have the form described above.
    """
    name = case["loss"]
    if case.get("kind") == "function":
        for provider in _algorithms():
            if name in provider.functions:
                return {"outputs": dict(provider.functions[name](**case.get("hyper", {}), **case["data"]))}
    return run_case_with(_implementation(name), case, dtype=dtype)


def run_case_with(cls: type[Algorithm[Any]], case: Case, *, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Run a test vector that ``cls`` claims through it; see :func:`run_case`."""
    name = case["loss"]
    names = cls.golden[name]
    hyper = {names.get(key, key): value for key, value in case.get("hyper", {}).items()}
    known = {f.name for f in fields(cls.Config)}
    loop = {name: hyper.pop(name) for name in _LOOP if name in hyper and name not in known}
    unknown = sorted(set(hyper) - known)
    if unknown:
        raise PluginError(f"case '{case.get('id', name)}': '{cls.name}' has no setting {', '.join(unknown)}")
    fixed = {key.removeprefix("="): value for key, value in names.items() if key.startswith("=")}
    algorithm: Algorithm[Any] = cls(cls.Config(**{**fixed, **hyper}))
    setting = Setting(case, names, reward=cls.model != "policy")
    setting.penalise(loop.get("missing_eos_penalty", 0.0))
    if setting.replay:
        algorithm = helped(algorithm, [Part("replay", loop.get("replay_coef", 1.0), Imitation(), replay=True)])
        setting.groups = algorithm.collate(setting.groups)
    if setting.state:
        algorithm.load_state_dict(setting.state)
    if case.get("kind") == "function":
        return {"outputs": _experience(Spoken(setting, algorithm, dtype), algorithm)}
    return _loss(Spoken(setting, algorithm, dtype), algorithm)


def _algorithms() -> list[type[Algorithm[Any]]]:
    return [entry.cls for entry in load().algorithms.values()]


def _implementation(name: str) -> type[Algorithm[Any]]:
    claimed = {case: cls for cls in _algorithms() for case in cls.golden}
    if name not in claimed:
        raise PluginError(f"no installed algorithm claims the case '{name}'.{did_you_mean(name, claimed)}")
    return claimed[name]


def _loss(spoken: Spoken, algorithm: Algorithm[Any]) -> dict[str, Any]:
    """Loss, gradient nested as in the case, and metrics."""
    setting, batch, policy, reference = spoken.setting, spoken.batch, spoken.policy, spoken.reference
    if algorithm.data == "rollouts" and not batch.scores.isnan().any():
        given = dict(batch.columns)
        batch.columns.update({**algorithm.experience(batch, policy.detach(), reference), **given})
    loss = algorithm.loss(batch, policy, reference)
    value, shares = reduce(loss, batch, counts(batch))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward() untyped
    gradients = {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in spoken.leaves.items()
    }
    metrics = {name: float(items.detach().double().mean()) for name, items in loss.metrics.items() if items.numel()}
    metrics |= {name: float(items.detach().min()) for name, items in loss.lowest.items() if items.numel()}
    metrics |= {name: float(items.detach().max()) for name, items in loss.highest.items() if items.numel()}
    metrics |= {f"loss/{name}": float(share.detach()) for name, share in shares.items()}
    aliases = METRICS | {name: own for name, own in setting.names.items() if own in metrics}
    metrics |= {name: metrics[own] for name, own in aliases.items() if own in metrics}

    starts = [0, *batch.lengths.cumsum(0).tolist()]

    def read(kind: str, row: int, place: Place) -> Any:
        gradient = gradients[kind]
        if kind == "logits":
            return gradient[starts[row] : starts[row + 1]].tolist()
        if kind == "rewards":
            return gradient[row].item()
        return gradient[row, : len(setting.policy[kind][place])].tolist()

    grad = {key: setting.nested(places, partial(read, kind)) for key, (kind, places) in setting.places.items()}
    if "value" in grad:
        grad["value"] = [gradient[0] for gradient in grad["value"]]
    return {"loss": float(value.detach()), "grad": grad, "metrics": metrics}


def _experience(spoken: Spoken, algorithm: Algorithm[Any]) -> dict[str, Any]:
    """The columns by name, nested as the case nests its completions; of tokens as long as these are."""
    setting = spoken.setting
    columns = algorithm.experience(spoken.batch, spoken.policy.detach(), spoken.reference)
    lengths = spoken.batch.lengths.tolist()
    _, places = setting.places["logps"]

    def read(values: Tensor, row: int, place: Place) -> Any:
        return values[row].item() if values.dim() == 1 else values[row, : lengths[row]].tolist()

    return {name: setting.nested(places, partial(read, values)) for name, values in columns.items()}
