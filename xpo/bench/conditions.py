"""What the cells of a suite have in common, so that they can be compared: held against what a directory has before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xpo.bench.cell import Cell
from xpo.bench.options import BenchOptions
from xpo.bench.rules import FEEDBACK, SHARED
from xpo.errors import SettingError
from xpo.train.settings import embedded


def conditions(common: Mapping[str, Any], options: BenchOptions, validation: bool) -> dict[str, Any]:
    names = [name for name in SHARED if name not in ("max_steps",)]
    found = {name: common.get(name) for name in names}
    if options.eval_reward or options.eval_judge:
        judged = {"reward": options.eval_reward, "judge": options.eval_judge}
        found |= {"eval_reward": options.eval_reward, "eval_judge": options.eval_judge}
    else:
        judged = {name: common.get(name) for name in ("reward", "judge")}
        if judged["reward"] and judged["judge"]:
            raise SettingError("--reward and --judge both say what samples are worth; give one of them")
    asked = [name for name in FEEDBACK if name.startswith("judge_") and name in common]
    if asked and not (judged["judge"] or common.get("judge")):
        raise SettingError(f"--{asked[0]} has no effect without --judge; give both or neither")
    if not any(judged.values()) and embedded(found["dataset_name"]):
        judged["reward"] = ["testbed"]
    # Weights are for the rewards to learn from; those to examine with alone count 1 each.
    weights = None if options.eval_reward else common.get("reward_weights")
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                **found,
                "examined_by": {**judged, "reward_weights": weights},
                "eval_prompts": options.eval_prompts,
                "eval_tokens": options.eval_tokens,
                "evaluators": options.evaluators or None,
                "budget_tokens": options.budget_tokens,
                "validation": validation,
            },
            default=str,
        )
    )
    return plain


def check_budget(shared: Mapping[str, Any], cells: Sequence[Cell]) -> None:
    """Every run must end at the same point, and a number of passes is none."""
    whole = shared["model_name_or_path"] is None and embedded(shared["dataset_name"])
    if not whole and any(cell.settings.get("max_steps", -1) < 1 for cell in cells):
        raise SettingError(
            "say how long every method trains: --max_steps N or --budget_tokens N. Passes of the data are not the same "
            "number of steps for all of them"
        )
