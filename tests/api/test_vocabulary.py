"""Full distributions: statistics a tile at a time, and gradient only where completions are trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from xpo import Batch, Completion, Group
from xpo.models.layout import Tree
from xpo.models.load import adapt
from xpo.models.reference import make_reference
from xpo.models.scoring import PLAIN, Engine, score
from xpo.train.settings import ModelSettings

ENGINES = {"plain": PLAIN, "tree": Engine(Tree(), compact=True)}
each_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
GROUPS = [
    Group([3, 4], [Completion([5, 6, 7], "chosen"), Completion([8], "other", trainable=False)]),
    Group([9], [Completion([1, 2], "chosen")]),
]


def top(logps: Tensor) -> Tensor:
    return logps.amax(-1)


@each_engine
def test_what_is_detached_gives_the_head_no_gradient(engine: Engine) -> None:
    model = tiny.model()
    scores = score(model, Batch.of(GROUPS), engine, vocabulary=True)
    scores.detach().over_vocabulary(top).sum().requires_grad_().backward()
    assert model.lm_head.weight.grad is None


@each_engine
def test_a_completion_that_is_only_scored_gives_none_either(engine: Engine) -> None:
    model = tiny.model()
    batch = Batch.of(GROUPS)
    scores = score(model, batch, engine, vocabulary=True)
    values = scores.over_vocabulary(top)
    values[batch.where("other")].sum().backward(retain_graph=True)
    assert model.lm_head.weight.grad is None or not model.lm_head.weight.grad.any()
    values[batch.where("chosen")].sum().backward()
    assert model.lm_head.weight.grad is not None
    assert model.lm_head.weight.grad.any()


@each_engine
def test_some_completions_have_their_own_distributions(engine: Engine) -> None:
    batch = Batch.of(GROUPS)
    scores = score(tiny.model(), batch, engine, vocabulary=True)
    whole = scores.over_vocabulary(lambda logps, ids: logps.gather(-1, ids[:, None])[:, 0], beside=[batch.ids])
    assert torch.allclose(whole, scores.logps, atol=1e-6)
    some = scores.at(torch.tensor([2, 0]))
    assert torch.allclose(some.over_vocabulary(top)[1], scores.over_vocabulary(top)[0], atol=1e-6)
    assert some.logps.shape == (2, 3)
    assert torch.equal(some.logps[0, :2], scores.logps[2, :2])


@each_engine
def test_the_reference_projects_as_the_reference(engine: Engine) -> None:
    """Also where the adapters it switches off sit on the head itself."""
    settings = ModelSettings(use_peft=True, lora_r=4, lora_target_modules=["q_proj", "lm_head"])
    policy = adapt(tiny.model(), settings)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    batch = Batch.of(GROUPS)
    reference = make_reference(policy, settings)
    reference = type(reference)(reference.model, "", switch=reference.switch, adapter="", engine=engine)
    found = reference.score(batch, vocabulary=True).over_vocabulary(
        lambda logps, ids: logps.gather(-1, ids[:, None])[:, 0], beside=[batch.ids]
    )
    start = score(tiny.model(), batch, PLAIN).logps
    assert torch.allclose(found, start, atol=1e-5)
    assert not torch.allclose(score(policy.model, batch, engine).logps, start, atol=1e-2)
