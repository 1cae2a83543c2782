"""Make a run fit the machine before it begins: rehearse the heaviest micro-batch, and halve it until memory suffices.

Accumulation rises as the batch falls, and steps are cut from the data before micro-batches are, so the update is the
same. What was found holds for the whole run: nothing runs out of memory hours later, and nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from accelerate.utils import find_executable_batch_size

from xpo.data.order import MicroStep
from xpo.errors import SettingError
from xpo.train.ranks import gathered
from xpo.train.settings import Settings

if TYPE_CHECKING:
    from xpo.train.trainer import PreferenceTrainer

#: Passes over the data among whose micro-batches the heaviest is looked for.
EPOCHS = 3


def fitted(trainer: PreferenceTrainer, settings: Settings) -> list[str]:
    """Make a run fit the machine where that is wanted, and say how; not where the size of samples is yet unknown.

    Raises:
        SettingError: nothing fits.
    """
    args = settings.training
    wanted = torch.cuda.is_available() if args.auto_find_batch_size is None else args.auto_find_batch_size
    args.auto_find_batch_size = False  # the loop's own search would start training over, from what it had learned
    if not wanted or trainer.rollouts is not None:
        return []
    return fit_batch(
        trainer, may_checkpoint=not settings.given & {"activation_checkpointing", "gradient_checkpointing"}
    )


def fit_batch(trainer: PreferenceTrainer, *, may_checkpoint: bool) -> list[str]:
    """Lower the batch size of ``trainer`` to what fits, and say so.

    Args:
        may_checkpoint: whether activations may be computed twice, where not even the smallest batch fits otherwise.

    Raises:
        SettingError: nothing fits.
    """
    args = trainer.args
    wanted, least = args.per_device_train_batch_size, -(-trainer.algorithm.needs.least // args.world_size)
    sizes = [size for size in range(wanted, 0, -1) if wanted % size == 0 and size >= least]
    found = _largest(trainer, _halving(sizes))
    lines = []
    if found is None and may_checkpoint and not args.gradient_checkpointing:
        trainer.checkpoint_activations()
        lines.append("memory: activations are computed twice (--activation_checkpointing), to save room")
        found = _largest(trainer, _halving(sizes))
    if found is None:
        raise SettingError(
            f"a batch of {sizes[-1]} does not fit into memory (`xpo plan` says what takes it): lower --max_length, "
            "train adapters with --use_peft, load the model in 4 bits with --load_in_4bit, or take a smaller one"
        )
    if found != wanted:
        accumulation = args.gradient_accumulation_steps * wanted // found
        but = "" if trainer.algorithm.needs.least == 1 else " but for the method's statistics of a micro-batch"
        lines.append(
            f"memory: --per_device_train_batch_size {found} with --gradient_accumulation_steps {accumulation} instead "
            f"of {wanted} with {args.gradient_accumulation_steps}, which does not fit; the update is the same{but}"
        )
        trainer.resize(found, accumulation)
    return lines


def _halving(sizes: Sequence[int]) -> list[int]:
    """Those of the sizes that are at most half of the one before."""
    taken: list[int] = []
    for size in sizes:
        if not taken or 2 * size <= taken[-1] or size == sizes[-1]:
            taken.append(size)
    return taken


def _largest(trainer: PreferenceTrainer, sizes: Sequence[int]) -> int | None:
    """The first size whose rehearsal succeeds on every rank; None when no one's does."""
    smaller = iter([*sizes[1:], 0])

    @find_executable_batch_size(starting_batch_size=sizes[0], reduce_batch_size_fn=lambda: next(smaller))  # type: ignore[untyped-decorator]  # accelerate's
    def attempt(size: int) -> int:
        trainer.rehearse(heaviest(trainer, size))
        return size

    try:
        found: int = attempt()
    except RuntimeError as error:
        if "No executable batch size found" not in str(error):
            raise
        found = 0
    return min(gathered(found, trainer.args.world_size)) or None


def heaviest(trainer: PreferenceTrainer, size: int) -> MicroStep:
    """The micro-batch with the most tokens among those to come, when this rank's hold ``size`` rows."""
    groups = trainer.train_dataset.groups
    sampler = trainer.steps.sampler(trainer.train_dataset, size, train=True)
    best: tuple[int, MicroStep] | None = None
    for epoch in range(min(EPOCHS, max(int(trainer.args.num_train_epochs), 1))):
        sampler.set_epoch(epoch)
        for (micro,) in sampler:
            rows = [groups[micro.rows[position]] for position in micro.part]
            tokens = sum(len(one.prompt_ids) + sum(len(each.ids) for each in one.completions) for one in rows)
            if best is None or tokens > best[0]:
                best = tokens, micro
    assert best is not None
    return best[1]
