"""Look at a reward model from outside: what its own method measures on held-out data, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.evaluate import View
from xpo.models.reference import Reference
from xpo.models.scoring import PLAIN, Engine, score
from xpo.models.zero import Zero
from xpo.train.intervals import mean_interval, paired_interval
from xpo.train.record import Row, Sample

#: Demonstrations whose mean reward is the zero, at most.
DEMONSTRATIONS = 500


@dataclass(frozen=True)
class Comparisons:
    """Held-out comparisons and the method that reads them; stands where a policy has an ``Examiner``.

    Attributes:
        algorithm: the method.
        held_out: groups of its kind of data.
        engine: how completions are computed.
        rows: groups scored at once.
    """

    algorithm: Algorithm[Any]
    held_out: Sequence[Group]
    engine: Engine = PLAIN
    rows: int = 16
    prompts: Sequence[Group] = ()

    def look(self, model: Any) -> View:
        """Score the held-out groups."""
        measured: dict[str, list[float]] = {}
        for batch in self._batches(self.held_out, model):
            scores = _scored(model, batch, self.engine)
            for name, values in self.algorithm.loss(batch, scores, None).metrics.items():
                measured.setdefault(name, []).extend(values.detach().flatten().tolist())
        return View([], [], [], [], measured)

    def compare(self, before: View, after: View, model: Any, start: Reference | None) -> list[Row]:
        """The table: every metric of the method, over the held-out data."""
        if not before.measured:
            missing = "no held-out comparisons: pass --eval_size 0.05 or --eval_dataset"
            return [Row("accuracy", None, None, "%", "up", note=missing)]
        rows = []
        for name, old in before.measured.items():
            new = after.measured[name]
            share = name.startswith(("rewards/accuracies", "share/"))
            early, late = mean_interval(old), mean_interval(new)
            change = paired_interval(old, new).interval if len(old) == len(new) else None
            unit, better = ("%" if share else ""), ("up" if "accurac" in name else None)
            rows.append(Row(name, early[0], late[0], unit, better, early.interval, late.interval, change))  # type: ignore[arg-type]  # a literal
        return rows

    def samples(self, before: View, after: View, count: int) -> list[Sample]:
        """None: nothing is sampled."""
        return []

    def zero(self, model: Any, groups: Sequence[Group]) -> Zero | None:
        """Where the trained model's rewards have their zero; None for models that do not read one completion."""
        best = [(group, group.demonstration()) for group in groups]
        shown = [Group(group.prompt_ids, [Completion(one.ids)]) for group, one in best if one is not None]
        if self.algorithm.model != "reward" or not shown:
            return None
        rewards: list[float] = []
        for start in range(0, min(len(shown), DEMONSTRATIONS), self.rows):
            batch = Batch.of(shown[start : start + self.rows], device=model.device)
            found = _scored(model, batch, self.engine).rewards
            assert found is not None
            rewards += found.tolist()
        return Zero.of(rewards)

    def _batches(self, groups: Sequence[Group], model: Any) -> list[Batch]:
        parts = [groups[start : start + self.rows] for start in range(0, len(groups), self.rows)]
        return [Batch.of(self.algorithm.collate(part), device=model.device) for part in parts]


def _scored(model: Any, batch: Batch, engine: Engine) -> Any:
    training = model.training
    model.eval()
    with torch.no_grad():
        scores = score(model, batch, engine)
    model.train(training)
    return scores
