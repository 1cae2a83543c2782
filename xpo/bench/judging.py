"""Who examines samples: the same rewards or judge for every method of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from xpo.bench.data import SPLIT_SEED
from xpo.bench.exam import Feedback
from xpo.feedback.judges import JudgeOptions, find_judge
from xpo.feedback.rewards import find_rewards
from xpo.models.load import Policy
from xpo.plugins import Registry
from xpo.train.settings import ModelSettings


def feedback_of(
    shared: Mapping[str, Any],
    config: ModelSettings,
    registry: Registry,
    start: Any,
    tokenizer: PreTrainedTokenizerBase,
) -> Feedback:
    """Rewards or the judge that a suite names; a judge that is the policy itself is the ``start``, for every method."""
    by = shared["examined_by"]
    rewards = find_rewards(by["reward"] or [], by["reward_weights"], registry.rewards, config)
    if by["judge"] is None:
        return Feedback(rewards, None)
    given = {
        name.removeprefix("judge_"): shared[name]
        for name in ("judge_url", "judge_timeout", "judge_retries", "judge_concurrency", "judge_template")
        if shared[name] is not None
    }
    options = JudgeOptions(**given, seed=SPLIT_SEED)
    judge = find_judge(by["judge"], registry.judges, config, options, Policy(start, None, None, None))
    judge.bind(start, tokenizer)
    return Feedback(rewards, judge)
