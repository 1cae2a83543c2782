"""What is refused before anything is written, and what is said about long rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xpo.api.groups import Completion, Group
from xpo.errors import SettingError
from xpo.train.preflight import check_checkpoint, too_long


def arguments(folder: Path, **more: Any) -> Any:
    return SimpleNamespace(
        **{"resume_from_checkpoint": str(folder), "output_dir": str(folder), "max_steps": 10, **more}
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 4}))
    (tmp_path / "algorithm.json").write_text(json.dumps({"algorithm": "one", "state": {}}))
    return tmp_path


def test_a_checkpoint_of_the_same_method_is_taken(checkpoint: Path) -> None:
    check_checkpoint(arguments(checkpoint), "one")


def test_a_checkpoint_of_another_method_is_refused(checkpoint: Path) -> None:
    with pytest.raises(SettingError, match="'one' made it, and 'other' cannot continue"):
        check_checkpoint(arguments(checkpoint), "other")


def test_a_checkpoint_at_the_end_is_refused(checkpoint: Path) -> None:
    with pytest.raises(SettingError, match="at step 4 already"):
        check_checkpoint(arguments(checkpoint, max_steps=4), "one")


@pytest.mark.parametrize(("limit", "said"), [(3, "1 rows are longer than the 3 tokens"), (4, None), (None, None)])
def test_rows_longer_than_the_model_was_made_for_are_counted(limit: int | None, said: str | None) -> None:
    groups = [Group([1], [Completion([1, 2])]), Group([1, 1], [Completion([1]), Completion([1, 2])])]
    policy: Any = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(max_position_embeddings=limit)))
    material: Any = SimpleNamespace(train=groups, held_out=[], compared=[])
    line = too_long(policy, material)
    assert line is None if said is None else line is not None and line.startswith(said)
