"""What is found out before anything is written: a checkpoint that cannot be resumed, data the model cannot read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from xpo.api.groups import Group
from xpo.compat import get_last_checkpoint
from xpo.errors import ModelError, SettingError
from xpo.models.load import Policy
from xpo.train.checkpoint import maker
from xpo.train.material import Material
from xpo.train.settings import TrainingArguments


def check_checkpoint(args: TrainingArguments, algorithm: str) -> Path | None:
    """The checkpoint to go on from; None where the run starts afresh.

    Raises:
        SettingError: it is no checkpoint, at the end already, or another algorithm's.
    """
    given = args.resume_from_checkpoint
    if not given:
        return None
    folder = Path(str(get_last_checkpoint(args.output_dir) if given is True else given)).expanduser()
    try:
        step = int(json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"--resume_from_checkpoint {folder}: not a checkpoint of a run, which has a trainer_state.json"
        ) from error
    if 0 < args.max_steps <= step:
        raise SettingError(
            f"--resume_from_checkpoint {folder}: it is at step {step} already; raise --max_steps {args.max_steps}"
        )
    made_by = maker(folder)
    if made_by not in (None, algorithm):
        raise SettingError(
            f"--resume_from_checkpoint {folder}: '{made_by}' made it, and '{algorithm}' cannot continue its run; start "
            "from its weights with --model_name_or_path"
        )
    return folder


def check_vocabulary(policy: Policy, material: Material) -> None:
    """Refuse token ids the model has no embedding for: on a GPU they would end the process without a word."""
    rows = policy.model.get_input_embeddings().weight.shape[0]
    ids = (ids for group in _groups(material) for ids in (group.prompt_ids, *(one.ids for one in group.completions)))
    largest = max(map(max, filter(None, ids)), default=0)
    if largest >= rows:
        raise ModelError(
            f"the tokenizer makes token {largest} of the data, but the model has embeddings for {rows} tokens only; "
            "use the tokenizer the model was trained with"
        )


def too_long(policy: Policy, material: Material) -> str | None:
    """A line on rows longer than the model was made for; None when there are none."""
    limit = getattr(policy.model.config, "max_position_embeddings", None)
    if limit is None:
        return None
    over = [group for group in _groups(material) if group.length > limit]
    if not over:
        return None
    return f"{len(over)} rows are longer than the {limit} tokens the model was made for: pass --max_length {limit}"


def _groups(material: Material) -> Iterator[Group]:
    yield from material.train
    yield from material.held_out
    yield from material.compared
