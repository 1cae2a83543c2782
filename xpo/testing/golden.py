"""Run one test vector through the algorithm that implements it: its own ``loss`` and the loop's own reduction.

A loss case is a mapping with ``loss`` (a name the file gives it), ``hyper`` (hyper-parameters), ``policy`` (ragged
log-probabilities that carry gradient, by role) and ``data`` (what carries none: ``ref_<role>``, labels, scores, further
columns). A function case has ``kind: "function"`` and no ``policy``. An algorithm claims cases in ``Algorithm.golden``
and ``Algorithm.functions`` and says there how the file's names map onto its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Completion, Group
from xpo.api.loss import counts, reduce
from xpo.errors import PluginError, did_you_mean
from xpo.plugins import load

Case = Mapping[str, Any]
Place = tuple[int, int]  # (group, position of the completion in it)

#: Names that vector files use for every pairwise loss, and the keys the loop logs.
METRICS = {
    "rewards_chosen": "rewards/chosen",
    "rewards_rejected": "rewards/rejected",
    "rewards_margin": "rewards/margins",
    "rewards_accuracy": "rewards/accuracies",
}


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
    cls = _implementation(name)
    names = cls.golden[name]
    hyper = {names.get(key, key): value for key, value in case.get("hyper", {}).items()}
    unknown = sorted(set(hyper) - {f.name for f in fields(cls.Config)})
    if unknown:
        raise PluginError(f"case '{case.get('id', name)}': '{cls.name}' has no setting {', '.join(unknown)}")
    algorithm: Algorithm[Any] = cls(cls.Config(**hyper))
    setting = _Setting(case, names, dtype)
    if case.get("kind") == "function":
        return {"outputs": setting.experience(algorithm)}
    return setting.loss(algorithm)


def _algorithms() -> list[type[Algorithm[Any]]]:
    return [entry.cls for entry in load().algorithms.values()]


def _implementation(name: str) -> type[Algorithm[Any]]:
    claimed = {case: cls for cls in _algorithms() for case in cls.golden}
    if name not in claimed:
        raise PluginError(f"no installed algorithm claims the case '{name}'.{did_you_mean(name, claimed)}")
    return claimed[name]


class _Setting:
    """A case turned into groups, with the numbers of both models beside each completion."""

    def __init__(self, case: Case, names: Mapping[str, str], dtype: torch.dtype) -> None:
        self.case, self.names, self.dtype = case, names, dtype
        self.data: dict[str, Any] = dict(case["data"])
        self.groups: list[Group] = []
        self.policy: dict[Place, list[float]] = {}
        self.reference: dict[Place, list[float]] = {}
        self.places: dict[str, Any] = {}  # policy key -> places in the nesting of the case
        for key, values in case.get("policy", {}).items() or self._rollout():
            self.places[key] = self._add(key, values, self.data.pop(f"ref_{key}", None))
        for key in [key for key in self.data if key.endswith("_policy")]:
            stem = key.removesuffix("_policy")
            self._add(stem, self.data.pop(key), self.data.pop(f"{stem}_ref", None), trainable=False)
        self._pair()
        for key, values in self.data.items():
            self._column(names.get(key, key), values)

    def _rollout(self) -> list[tuple[str, Any]]:
        """A case about experience has its log-probs in the data, or none at all: rewards are enough."""
        rewards = self.data["rewards"]
        return [("logps", self.data.pop("logps", [[[0.0] for _ in row] for row in rewards]))]

    def _add(self, key: str, values: Any, reference: Any, trainable: bool = True) -> list[Any]:
        """Add completions for (N, T) values, one a group, or (G, K, T) values, K a group."""
        role = self.names.get(key, key)
        role = "completion" if role in ("completions", "logps") else role
        while len(self.groups) < len(values):
            self.groups.append(Group(prompt_ids=[len(self.groups) + 1], row=len(self.groups)))
        places: list[Any] = []
        for index, value in enumerate(values):
            one = not isinstance(value[0], Sequence)
            inner = []
            for k, logps in enumerate([value] if one else value):
                place = (index, len(self.groups[index].completions))
                self.groups[index].completions.append(Completion([0] * len(logps), role, trainable=trainable))
                self.policy[place] = logps
                if reference is not None:
                    self.reference[place] = reference[index] if one else reference[index][k]
                inner.append(place)
            places.append(inner[0] if one else inner)
        return places

    def _pair(self) -> None:
        for group in self.groups:
            at = {completion.role: position for position, completion in enumerate(group.completions)}
            if "chosen" in at and "rejected" in at:
                group.pairs = [(at["chosen"], at["rejected"])]

    def _column(self, name: str, values: Any) -> None:
        """Labels and scores find their attribute; anything else rides along as a column of the completions."""
        trainable = [[c for c in group.completions if c.trainable] for group in self.groups]
        for completions, value in zip(trainable, values, strict=True):
            per_completion = value if len(completions) > 1 else [value]
            if isinstance(value, Sequence) and len(completions) == 1 and name in ("labels", "rewards"):
                per_completion = value
            for completion, item in zip(completions, per_completion, strict=True):
                if name == "label":
                    completion.label = bool(item)
                elif name in ("labels", "rewards", "reward", "score"):
                    completion.score = float(item)
                else:
                    completion.columns[name] = item

    def _tensor(self, batch: Batch, values: Mapping[Place, list[float]]) -> Tensor:
        rows = [values[index, k] for index, group in enumerate(self.groups) for k in range(len(group.completions))]
        logps = torch.zeros(batch.mask.shape, dtype=self.dtype)
        for row, value in enumerate(rows):
            logps[row, : len(value)] = torch.tensor(value, dtype=self.dtype)
        return logps

    def _scores(self, algorithm: Algorithm[Any]) -> tuple[Batch, Tensor, Scores, Scores | None]:
        batch = Batch.of(self.groups, dtype=self.dtype)
        leaf = self._tensor(batch, self.policy).requires_grad_()
        logps = torch.where(batch.trainable[:, None], leaf, leaf.detach())
        reference = None
        if algorithm.needs.reference and self.reference:
            reference = Scores(self._tensor(batch, self.reference), batch.mask)
        return batch, leaf, Scores(logps, batch.mask), reference

    def loss(self, algorithm: Algorithm[Any]) -> dict[str, Any]:
        batch, leaf, policy, reference = self._scores(algorithm)
        loss = algorithm.loss(batch, policy, reference)
        value, shares = reduce(loss, batch, counts(batch))
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward() untyped
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        rows = {place: row for row, place in enumerate(self.policy_order())}
        metrics = {name: float(items.detach().double().mean()) for name, items in loss.metrics.items() if items.numel()}
        metrics |= {f"loss/{name}": float(share.detach()) for name, share in shares.items()}
        aliases = METRICS | {name: own for name, own in self.names.items() if own in metrics}
        metrics |= {name: metrics[own] for name, own in aliases.items() if own in metrics}

        def nested(places: Any) -> Any:
            if isinstance(places, list):
                return [nested(place) for place in places]
            return gradient[rows[places], : len(self.policy[places])].tolist()

        grad = {key: nested(places) for key, places in self.places.items()}
        return {"loss": float(value.detach()), "grad": grad, "metrics": metrics}

    def policy_order(self) -> list[Place]:
        return [(index, k) for index, group in enumerate(self.groups) for k in range(len(group.completions))]

    def experience(self, algorithm: Algorithm[Any]) -> dict[str, Any]:
        batch, _, policy, reference = self._scores(algorithm)
        columns = algorithm.experience(batch, policy.detach(), reference)
        return {name: batch.lists(values).tolist() for name, values in columns.items() if values.dim() == 1}
