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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Completion, Group
from xpo.api.loss import counts, reduce
from xpo.api.mixture import Imitation, Part, helped
from xpo.api.vocabulary import Distributions
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
    "nll": "nll_loss",
}
#: What files call a number that says how good a completion is.
_SCORES = ("score", "scores", "labels", "rewards", "reward")
#: Settings of the loop that a case may have.
_LOOP = ("missing_eos_penalty", "replay_coef")
#: Keys of what must be read last: values are of completions that are there already, what is replayed has its own rows.
_LATE = ("value", "values", "replay")


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
    setting = _Setting(case, names, dtype, reward=cls.model != "policy")
    setting.penalise(loop.get("missing_eos_penalty", 0.0))
    if setting.replay:
        algorithm = helped(algorithm, [Part("replay", loop.get("replay_coef", 1.0), Imitation(), replay=True)])
        setting.groups = algorithm.collate(setting.groups)
    if setting.state:
        algorithm.load_state_dict(setting.state)
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
    """A case turned into groups, with what both models say beside each completion."""

    def __init__(self, case: Case, names: Mapping[str, str], dtype: torch.dtype, *, reward: bool) -> None:
        self.names, self.dtype = names, dtype
        self.data: dict[str, Any] = dict(case["data"])
        self.groups: list[Group] = []
        #: Kind of number (``logps``, ``logits``, ``values``, ``rewards``) -> what a model says of each completion.
        self.policy: dict[str, dict[Place, Any]] = {}
        self.reference: dict[str, dict[Place, Any]] = {}
        #: Key of the case's policy -> kind of number, and places in the nesting of the case.
        self.places: dict[str, tuple[str, Any]] = {}
        #: Completions so far.
        self.count = 0
        given = dict(case.get("policy", {}) or self._rollout())
        self.replay = False
        for key in sorted(given, key=lambda key: _LATE.index(own) if (own := names.get(key, key)) in _LATE else -1):
            self._read(key, given[key], reward)
        for key in [key for key in self.data if key.endswith("_policy")]:
            stem = key.removesuffix("_policy")
            self._add(stem, "logps", self.data.pop(key), self.data.pop(f"{stem}_ref", None), trainable=False)
        self._pair()
        #: Running state before the step.
        self.state: dict[str, float] = {}
        for key in [key for key, value in self.data.items() if not isinstance(value, Sequence)]:
            self.state[names.get(key, key.removesuffix("_prev"))] = self.data.pop(key)
        for key, values in self.data.items():
            self._column(names.get(key, key), values)
        self._oppose()

    def _rollout(self) -> dict[str, Any]:
        """A case about experience has its log-probs in the data, or none at all: rewards are enough."""
        found: dict[str, Any] = {key: self.data.pop(key) for key in ("logps", "values") if key in self.data}
        return found if "logps" in found else {"logps": [[[0.0] for _ in row] for row in self.data["rewards"]]}

    def _read(self, key: str, values: Any, reward: bool) -> None:
        if key in ("value", "values"):  # of the completions that are there already; one number is that of the prompt
            places = [(index, 0) for index in range(len(self.groups))]
            self.policy["values"] = {
                place: value if isinstance(value, Sequence) else [value]
                for place, value in zip(places, values, strict=True)
            }
            self.places[key] = ("values", places)
            return
        role, kind = (key, "rewards") if reward else (key, "logps")
        if key.endswith("logits"):
            role, kind = key.removesuffix("logits").removesuffix("_") or "completion", "logits"
        stem = self._reference_of(key)
        ids = self.data.pop(f"{role}_ids", None) or (self.data.pop("ids", None) if kind == "logits" else None)
        reference = None if stem is None else self.data.pop(stem)
        self.places[key] = (kind, self._add(role, kind, values, reference, ids=ids))

    def _reference_of(self, key: str) -> str | None:
        """The key of what the reference says of the completions of ``key``: it may go by their role."""
        own = f"ref_{self.names.get(key, key)}"
        found = (name for name in self.data if name.startswith("ref") and name.endswith(f"_{key}"))
        return next(found, next((name for name in self.data if self.names.get(name) == own), None))

    def _add(
        self, key: str, kind: str, values: Any, reference: Any, *, ids: Any = None, trainable: bool = True
    ) -> list[Any]:
        """Add completions for one value a group, or for K values a group."""
        role = self.names.get(key, key).removesuffix("_reward")
        role = "completion" if role in ("completions", "logps", "rewards") else role
        start = len(self.groups) if role == "replay" else 0
        self.replay = self.replay or role == "replay"
        while len(self.groups) < start + len(values):
            self.groups.append(Group(prompt_ids=[len(self.groups) + 1], row=len(self.groups)))
        depth = {"logps": 1, "logits": 2, "rewards": 0}[kind]
        found: list[Any] = []
        for number, value in enumerate(values):
            index = start + number
            one = _depth(value) == depth
            inner = []
            for k, item in enumerate([value] if one else value):
                place = (index, len(self.groups[index].completions))
                # Completions that a case gives no tokens of are different texts.
                tokens = [self.count] * (1 if kind == "rewards" else len(item)) if ids is None else ids[number]
                self.count += 1
                self.groups[index].completions.append(Completion(list(tokens), role, trainable=trainable))
                self.policy.setdefault(kind, {})[place] = item
                if reference is not None:
                    self.reference.setdefault(kind, {})[place] = reference[number] if one else reference[number][k]
                inner.append(place)
            found.append(inner[0] if one else inner)
        return found

    def _pair(self) -> None:
        for group in self.groups:
            at = {completion.role: position for position, completion in enumerate(group.completions)}
            if "chosen" in at and "rejected" in at:
                group.pairs = [(at["chosen"], at["rejected"])]

    def _oppose(self) -> None:
        """An opponent without a score is preferred as often as the samples of its prompt are not."""
        for group in self.groups:
            wins = [one.score for one in group.completions if one.role != "opponent" and one.score is not None]
            for one in group.completions:
                if one.role == "opponent" and one.score is None and wins:
                    one.score = 1.0 - sum(wins) / len(wins)

    def _column(self, name: str, values: Any) -> None:
        """Labels and scores find their attribute; anything else rides along as a column.

        ``score_<whose>`` and ``has_eos_<whose>`` are those of one role, or of one key of the case's policy.
        """
        name, whose = next(
            ((stem, name.removeprefix(f"{stem}_")) for stem in ("score", "has_eos") if name.startswith(f"{stem}_")),
            (name, ""),
        )
        own = _places(self.places[whose][1]) if whose in self.places else None
        for index, (group, value) in enumerate(zip(self.groups, values, strict=False)):
            completions = [
                one
                for k, one in enumerate(group.completions)
                if one.trainable and (not whose or (one.role == whose if own is None else (index, k) in own))
            ]
            alone = len(completions) == 1
            if not alone and not isinstance(value, Sequence):
                group.columns[name] = float(value)
                continue
            listed = alone and isinstance(value, Sequence) and name in _SCORES
            for completion, item in zip(completions, [value] if alone and not listed else value, strict=True):
                if name == "label":
                    completion.label = bool(item)
                elif name == "not_label":
                    completion.label = not item
                elif name == "has_eos":
                    completion.finished = bool(item)
                elif name == "rank":
                    completion.score = -float(item)
                elif name in _SCORES:
                    completion.score = float(item)
                else:
                    completion.columns[name] = item

    def penalise(self, amount: float) -> None:
        """Take something off the score of completions that did not end by themselves."""
        for group in self.groups:
            for completion in group.completions:
                if completion.score is not None and not completion.finished:
                    completion.score -= amount

    def _order(self) -> list[Place]:
        return [(index, k) for index, group in enumerate(self.groups) for k in range(len(group.completions))]

    def _table(self, batch: Batch, values: Mapping[Place, Any]) -> Tensor:
        """Numbers of tokens as (C, T)."""
        table = torch.zeros(batch.mask.shape, dtype=self.dtype)
        for row, place in enumerate(self._order()):
            value = values.get(place, ())
            table[row, : len(value)] = torch.tensor(value, dtype=self.dtype)
        return table

    def _logits(self, batch: Batch, values: Mapping[Place, Any]) -> Tensor:
        """Logits as (n, V), a row for every token of the batch; 0 for completions that have none."""
        width = len(next(iter(values.values()))[0])
        rows: list[list[float]] = []
        for place, length in zip(self._order(), batch.lengths.tolist(), strict=True):
            rows += values.get(place, [[0.0] * width] * length)
        return torch.tensor(rows, dtype=self.dtype)

    def _leaves(self, batch: Batch, said: Mapping[str, Mapping[Place, Any]]) -> dict[str, Tensor]:
        leaves = {name: self._table(batch, said[name]) for name in ("logps", "values") if name in said}
        if "logits" in said:
            leaves["logits"] = self._logits(batch, said["logits"])
        if "rewards" in said:
            leaves["rewards"] = torch.tensor([said["rewards"][place] for place in self._order()], dtype=self.dtype)
        return leaves

    def _scores(self, batch: Batch, leaves: Mapping[str, Tensor], said: Mapping[str, Mapping[Place, Any]]) -> Scores:
        logps = leaves.get("logps", torch.zeros(batch.mask.shape, dtype=self.dtype))
        distributions = None
        if "logits" in leaves:
            distributions = Distributions(leaves["logits"], lambda states: states)
            # A completion without logits has made-up ids, and is not read from here.
            ids = batch.ids[batch.mask].clamp_max(leaves["logits"].shape[1] - 1)
            own = leaves["logits"].log_softmax(-1).gather(1, ids[:, None])[:, 0]
            from_logits = torch.tensor([place in said["logits"] for place in self._order()])
            spread = torch.zeros_like(logps).masked_scatter(batch.mask, own)
            logps = torch.where(from_logits[:, None], spread, logps)
        if "rewards" in leaves:
            logps = torch.full_like(logps, float("nan"))
        logps = torch.where(batch.trainable[:, None], logps, logps.detach())
        return Scores(logps, batch.mask, distributions, leaves.get("values"), leaves.get("rewards"))

    def _models(self, algorithm: Algorithm[Any]) -> tuple[Batch, dict[str, Tensor], Scores, Scores | None]:
        batch = Batch.of(self.groups, dtype=self.dtype)
        leaves = {name: leaf.requires_grad_() for name, leaf in self._leaves(batch, self.policy).items()}
        reference = None
        if algorithm.needs.reference and self.reference:
            reference = self._scores(batch, self._leaves(batch, self.reference), self.reference)
        return batch, leaves, self._scores(batch, leaves, self.policy), reference

    def loss(self, algorithm: Algorithm[Any]) -> dict[str, Any]:
        batch, leaves, policy, reference = self._models(algorithm)
        if algorithm.data == "rollouts" and not batch.scores.isnan().any():
            given = dict(batch.columns)
            batch.columns.update({**algorithm.experience(batch, policy.detach(), reference), **given})
        loss = algorithm.loss(batch, policy, reference)
        value, shares = reduce(loss, batch, counts(batch))
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward() untyped
        gradients = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
        metrics = {name: float(items.detach().double().mean()) for name, items in loss.metrics.items() if items.numel()}
        metrics |= {name: float(items.detach().min()) for name, items in loss.lowest.items() if items.numel()}
        metrics |= {name: float(items.detach().max()) for name, items in loss.highest.items() if items.numel()}
        metrics |= {f"loss/{name}": float(share.detach()) for name, share in shares.items()}
        aliases = METRICS | {name: own for name, own in self.names.items() if own in metrics}
        metrics |= {name: metrics[own] for name, own in aliases.items() if own in metrics}

        starts = [0, *batch.lengths.cumsum(0).tolist()]

        def read(kind: str, row: int, place: Place) -> Any:
            gradient = gradients[kind]
            if kind == "logits":
                return gradient[starts[row] : starts[row + 1]].tolist()
            if kind == "rewards":
                return gradient[row].item()
            return gradient[row, : len(self.policy[kind][place])].tolist()

        grad = {key: self._nested(places, partial(read, kind)) for key, (kind, places) in self.places.items()}
        if "value" in grad:
            grad["value"] = [gradient[0] for gradient in grad["value"]]
        return {"loss": float(value.detach()), "grad": grad, "metrics": metrics}

    def experience(self, algorithm: Algorithm[Any]) -> dict[str, Any]:
        """The columns by name, nested as the case nests its completions; of tokens as long as these are."""
        batch, _, policy, reference = self._models(algorithm)
        columns = algorithm.experience(batch, policy.detach(), reference)
        lengths = batch.lengths.tolist()
        _, places = self.places["logps"]

        def read(values: Tensor, row: int, place: Place) -> Any:
            return values[row].item() if values.dim() == 1 else values[row, : lengths[row]].tolist()

        return {name: self._nested(places, partial(read, values)) for name, values in columns.items()}

    def _nested(self, places: Any, read: Callable[[int, Place], Any]) -> Any:
        """What ``read`` says of the row and the place of each completion, nested as the ``places`` are."""
        rows = {place: row for row, place in enumerate(self._order())}

        def nested(some: Any) -> Any:
            return [nested(one) for one in some] if isinstance(some, list) else read(rows[some], some)

        return nested(places)


def _places(some: Any) -> list[Place]:
    return [place for one in some for place in _places(one)] if isinstance(some, list) else [some]


def _depth(value: Any) -> int:
    return 1 + _depth(value[0]) if isinstance(value, Sequence) else 0
