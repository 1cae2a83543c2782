"""A test vector read: groups of completions, and beside each completion what both models say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xpo.api.groups import Completion, Group

Case = Mapping[str, Any]
Place = tuple[int, int]  # (group, position of the completion in it)
#: Kind of number (``logps``, ``logits``, ``values``, ``rewards``) -> what a model says of each completion.
Told = dict[str, dict[Place, Any]]

#: What files call a number that says how good a completion is.
_SCORES = ("score", "scores", "labels", "rewards", "reward")
#: Keys of what must be read last: values are of completions that are there already, what is replayed has its own rows.
_LATE = ("value", "values", "replay")


class Setting:
    """A case turned into groups, with what both models say beside each completion.

    Attributes:
        groups: the groups.
        policy, reference: what the models say.
        places: key of the case's policy -> kind of number, and places in the nesting of the case.
        replay: whether some completions are replayed.
        state: running state before the step.
        count: completions so far.
    """

    def __init__(self, case: Case, names: Mapping[str, str], *, reward: bool) -> None:
        self.names = names
        self.data: dict[str, Any] = dict(case["data"])
        self.groups: list[Group] = []
        self.policy: Told = {}
        self.reference: Told = {}
        self.places: dict[str, tuple[str, Any]] = {}
        self.count = 0
        given = dict(case.get("policy", {}) or self._rollout())
        self.replay = False
        for key in sorted(given, key=lambda key: _LATE.index(own) if (own := names.get(key, key)) in _LATE else -1):
            self._read(key, given[key], reward)
        for key in [key for key in self.data if key.endswith("_policy")]:
            stem = key.removesuffix("_policy")
            self._add(stem, "logps", self.data.pop(key), self.data.pop(f"{stem}_ref", None), trainable=False)
        self._pair()
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

    def order(self) -> list[Place]:
        """The places of all completions, in the order of a batch."""
        return [(index, k) for index, group in enumerate(self.groups) for k in range(len(group.completions))]

    def nested(self, places: Any, read: Callable[[int, Place], Any]) -> Any:
        """What ``read`` says of the row and the place of each completion, nested as the ``places`` are."""
        rows = {place: row for row, place in enumerate(self.order())}

        def filled(some: Any) -> Any:
            return [filled(one) for one in some] if isinstance(some, list) else read(rows[some], some)

        return filled(places)


def _places(some: Any) -> list[Place]:
    return [place for one in some for place in _places(one)] if isinstance(some, list) else [some]


def _depth(value: Any) -> int:
    return 1 + _depth(value[0]) if isinstance(value, Sequence) else 0
