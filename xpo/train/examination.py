"""The examination of a run: who looks at the model before and after training, at what, and what is written of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group
from xpo.evaluate import KL, Examiner, View
from xpo.feedback.sampling import Sampling
from xpo.feedback.verdicts import Feedback
from xpo.models.reference import Reference
from xpo.train.comparisons import Comparisons
from xpo.train.material import Material
from xpo.train.record import RunRecord
from xpo.train.settings import Settings

if TYPE_CHECKING:
    from xpo.train.trainer import PreferenceTrainer

#: Prompts sampled for the table at the end: of the testbed, where it costs seconds, and of other data.
EMBEDDED_PROMPTS, PROMPTS = 200, 32
#: Longest completion sampled for the table, unless rollouts set their own length.
EXAMINED_TOKENS = 128
#: Logged numbers that differ from run to run; the cost of a run is recorded apart.
TIMES = frozenset({"step", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "train_runtime"})


def examined_prompts(settings: Settings, material: Material) -> list[Group]:
    """The held-out prompts that are sampled for."""
    count = settings.run.eval_prompts
    if count is None:
        count = EMBEDDED_PROMPTS if material.embedded else PROMPTS
    return material.prompts[:count]


def examined_tokens(settings: Settings) -> int:
    """The most tokens of such a sample."""
    return EXAMINED_TOKENS if settings.rollout is None else settings.rollout.max_completion_length


def examiner_of(
    settings: Settings,
    algorithm: Algorithm[Any],
    trainer: PreferenceTrainer,
    tokenizer: PreTrainedTokenizerBase,
    material: Material,
    feedback: Feedback,
) -> Examiner | Comparisons:
    """Who looks: at a reward model by what it learns from, at a policy by what it says."""
    if algorithm.model != "policy":
        return Comparisons(algorithm, material.held_out, trainer.engine)
    # Temperature 1 for every method: the distribution itself is compared, and the KL is about it.
    look = Sampling(1, examined_tokens(settings), 1.0, settings.training.seed)
    return Examiner(
        tokenizer,
        material.compared,
        examined_prompts(settings, material),
        feedback.rewards,
        look,
        trainer.engine,
        told=material.told,
        judge=feedback.judge,
    )


def conclude(
    record: RunRecord,
    trainer: PreferenceTrainer,
    examiner: Examiner | Comparisons,
    before: View,
    model: torch.nn.Module,
    start: Callable[[], Reference] | None,
    settings: Settings,
) -> None:
    """Look again, and put what was found into the record.

    Args:
        before: what was seen before training.
        start: gives the policy as it was then; None where it cannot be had again.
    """
    after = examiner.look(model)
    reference = None
    if start is not None and examiner.prompts:
        # Without the cache: what is sampled here is never asked for again.
        reference = replace(start().to(trainer.args.device), engine=trainer.engine, cache=None)
    record.comparison = examiner.compare(before, after, model, reference)
    for row in record.comparison:
        if row.name == KL:  # methods that log no KL of their own get its two ends in the history
            ends = ((0, row.before), (trainer.state.global_step, row.after))
            trainer.state.log_history += [{"step": step, "kl_to_start": value} for step, value in ends]
    record.samples = examiner.samples(before, after, max(settings.run.sample_completions, 2))
    last: dict[str, Any] = {}
    for entry in trainer.state.log_history:
        if "loss" in entry or "eval_loss" in entry:
            last.update(entry)
    record.metrics = {
        key: float(value) for key, value in last.items() if isinstance(value, int | float) and key not in TIMES
    }
    for row in record.comparison:
        record.metrics[f"start/{row.name}"] = row.before
        record.metrics[f"final/{row.name}"] = row.after
