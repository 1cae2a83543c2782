"""One batch through TRL's own trainers and through xpo: how far apart losses and gradients are.

Both sides get the same random weights, the same token ids and the same reference, which is another model. TRL's side is
its trainer as a user makes it: its configuration, its tokenisation, its collator, its ``compute_loss``.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import datasets
import torch
import transformers
from torch import Tensor

from scripts.agreement import BATCH, LONGEST, Difference, Row
from tests import tiny
from xpo import Batch, Completion, Group
from xpo.api.loss import counts, reduce
from xpo.data.quiet import quiet_datasets
from xpo.models.scoring import score

Outcome = tuple[Tensor, Tensor]  # loss, gradient of all weights in one row


def measure(row: Row) -> Difference:
    """Take one batch through both."""
    (loss, gradient), (their_loss, their_gradient) = _ours(row), _theirs(row)
    factor = their_loss / loss
    return Difference(
        float((loss - their_loss).abs() / their_loss.abs()),
        _apart(gradient, their_gradient),
        float(factor) if _apart(factor * gradient, their_gradient) < row.tolerance else None,
    )


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def _ours(row: Row) -> Outcome:
    algorithm = tiny.algorithm(row.algo, **row.ours)
    if row.state:
        algorithm.load_state_dict(row.state)
    dtype = torch.float64 if row.precise else torch.float32
    batch = Batch.of(algorithm.collate(_data(row)[1]), dtype=dtype)
    policy, reference = _model(row), None
    if algorithm.needs.reference:
        with torch.no_grad():
            reference = score(_model(row, seed=1), batch)
    loss = algorithm.loss(batch, score(policy, batch, vocabulary=algorithm.needs.vocabulary), reference)
    value, _ = reduce(loss, batch, counts(batch))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward() untyped
    return _outcome(value, policy)


def _theirs(row: Row) -> Outcome:
    make, configuration = _trainers()[row.trainer]
    rows, groups = _data(row)
    models = {"model": _model(row)}
    if row.trainer in ("DPO", "KTO"):
        models["ref_model"] = _model(row, seed=1)
    with _quiet() as folder:
        trainer = make(
            **models,
            args=configuration(
                folder,
                per_device_train_batch_size=BATCH // row.pieces,
                max_length=100,
                gradient_checkpointing=False,
                use_cpu=True,
                bf16=False,
                report_to="none",
                **row.theirs,
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tiny.tokenizer(),
        )
        seen, value = set(), torch.zeros(())
        for inputs in trainer.get_train_dataloader():
            seen |= set(_sequences(inputs))
            # Without a count of items, which its losses do not take, a Trainer averages over micro-batches.
            loss = trainer.compute_loss(trainer.model, inputs) / row.pieces
            loss.backward()
            value = value + loss.detach()
    expected = {tuple(group.prompt_ids + one.ids) for group in groups for one in group.completions}
    if not expected <= seen:
        raise AssertionError(f"{row.algo}: {row.trainer}Trainer did not see the token ids that xpo sees")
    return _outcome(value, trainer.model)


def _outcome(loss: Tensor, model: Any) -> Outcome:
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters()]
    return loss.detach().double(), torch.cat([one.flatten() for one in gradients]).double()


def _model(row: Row, seed: int = 0) -> Any:
    if row.trainer == "Reward":
        made: Any = tiny.classifier(seed)
        made.config.pad_token_id = tiny.PAD
    else:
        made = tiny.model(seed)
        # Flatter than it is, so that some completions are likelier than sampled ones, as WPO's clamp asks for.
        made.lm_head.weight.data *= 0.2
    return made.double() if row.precise else made


def _data(row: Row) -> tuple[list[dict[str, Any]], list[Group]]:
    """The rows that TRL gets, and the same as groups of token ids."""
    kind = {"SFT": "demonstrations", "KTO": "labels"}.get(row.trainer, "pairs")
    rows, groups = tiny.rows(kind, BATCH, longest=LONGEST), tiny.groups(kind, BATCH, longest=LONGEST)
    for number, (texts, group) in enumerate(zip(rows, groups, strict=True)):
        if row.trainer == "Reward":
            texts["margin"] = group.columns["margin"] = 0.25 * (number % 3)
        if row.trainer == "TPO":
            texts["reference"] = " w0" + texts["chosen"]
            group.completions.append(Completion([0, *group.completions[0].ids], "gold"))
        if row.algo == "sft" and kind == "pairs":
            group.completions, group.pairs = [replace(group.completions[0], role="completion")], []
    return rows, groups


def _sequences(inputs: Mapping[str, Any]) -> Iterator[tuple[int, ...]]:
    """Prompt and completion of each sequence of a collated batch, without padding."""
    for name in ("input_ids", "chosen_input_ids", "rejected_input_ids"):
        if name in inputs:
            masks = inputs[name.replace("input_ids", "attention_mask")].bool()
            yield from (tuple(ids[mask].tolist()) for ids, mask in zip(inputs[name], masks, strict=True))


@cache
def _trainers() -> Mapping[str, tuple[Any, Any]]:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.experimental.tpo import TPOConfig, TPOTrainer

    return {
        "DPO": (DPOTrainer, DPOConfig),
        "SFT": (SFTTrainer, SFTConfig),
        "KTO": (KTOTrainer, KTOConfig),
        "CPO": (CPOTrainer, CPOConfig),
        "ORPO": (ORPOTrainer, ORPOConfig),
        "TPO": (TPOTrainer, TPOConfig),
        "Reward": (RewardTrainer, RewardConfig),
    }


@contextmanager
def _quiet() -> Iterator[str]:
    """A folder for a trainer that says nothing and leaves nothing behind."""
    verbosity = transformers.logging.get_verbosity()
    logger = logging.getLogger("trl")
    level = logger.level
    with quiet_datasets(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        logger.setLevel(logging.ERROR)
        try:
            yield folder
        finally:
            logger.setLevel(level)
            transformers.logging.set_verbosity(verbosity)
