"""A reference that follows the policy: by what share, of which weights, and that it comes back from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests import tiny
from xpo import Batch, SettingError
from xpo.models.follower import Follower
from xpo.models.load import Policy
from xpo.models.reference import Reference, make_reference
from xpo.models.scoring import score
from xpo.train.settings import ModelSettings

BATCH = Batch.of(tiny.groups("pairs", 3))


def adapters() -> PeftModel:
    made = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    assert isinstance(made, PeftModel)
    return made


def policy(model: Any) -> Policy:
    return Policy(model.eval(), None, "new" if isinstance(model, PeftModel) else None, None)


def perturb(model: Any, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one += 0.05 * torch.randn(one.shape, generator=generator)


def says(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return score(model, BATCH).sum()


@pytest.mark.parametrize("make", [tiny.model, adapters])
def test_a_share_of_one_is_a_copy(make: Any) -> None:
    model = make()
    start = says(model)
    follower = Follower(policy(model), make_reference(policy(model), ModelSettings()))
    assert torch.allclose(follower.reference.score(BATCH).sum(), start, atol=1e-5)
    perturb(model)
    assert not torch.allclose(says(model), start, atol=1e-2)
    assert torch.allclose(follower.reference.score(BATCH).sum(), start, atol=1e-5)  # it does not move by itself
    follower.move(1.0)
    assert torch.allclose(follower.reference.score(BATCH).sum(), says(model), atol=1e-5)
    perturb(model, 1)
    assert not torch.allclose(follower.reference.score(BATCH).sum(), says(model), atol=1e-2)


def test_full_weights_are_mixed_one_by_one() -> None:
    model = tiny.model()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    follower = Follower(policy(model), make_reference(policy(model), ModelSettings()))
    perturb(model)
    follower.move(0.25)
    for name, one in follower.reference.model.named_parameters():
        assert torch.allclose(one, 0.25 * model.get_parameter(name) + 0.75 * before[name], atol=1e-6)


def test_only_the_policy_is_trained_beside_a_follower() -> None:
    model = adapters()
    own = {name for name, one in model.named_parameters() if one.requires_grad}
    follower = Follower(policy(model), make_reference(policy(model), ModelSettings()))
    follower.reference.score(BATCH)
    follower.move(0.5)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == own
    assert model.active_adapter == "default"


@pytest.mark.parametrize("make", [tiny.model, adapters])
def test_it_comes_back_from_a_checkpoint(tmp_path: Path, make: Any) -> None:
    model = make()
    follower = Follower(policy(model), make_reference(policy(model), ModelSettings()))
    perturb(model)
    follower.move(0.6)
    follower.save(str(tmp_path))
    found = follower.reference.score(BATCH).sum()
    other = make()
    again = Follower(policy(other), make_reference(policy(other), ModelSettings()))
    assert not torch.allclose(again.reference.score(BATCH).sum(), found, atol=1e-2)
    again.load(str(tmp_path))
    assert torch.equal(again.reference.score(BATCH).sum(), found)


def test_another_model_cannot_follow() -> None:
    model = tiny.model()
    other = Reference(tiny.model(hidden_size=16), "given model", is_start=False)
    with pytest.raises(SettingError, match="cannot follow"):
        Follower(policy(model), other)
    with pytest.raises(SettingError, match="cannot follow"):
        Follower(policy(adapters()), Reference(tiny.model(), "given model", is_start=False))
