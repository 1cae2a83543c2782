"""Training and TRL 1.16 side by side: the same model, rows, order and optimiser give the same loss at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import SequentialSampler
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RLOOConfig, RLOOTrainer

from tests import tiny
from xpo import Completion
from xpo.api.loss import counts, reduce
from xpo.data.order import StepSampler
from xpo.feedback.sampling import Sampling, sample
from xpo.models.load import Policy
from xpo.models.scoring import score

STEPS, BATCH, SEED = 20, 4, 3

#: What both get. Weight decay and the schedule are on, so that they would show if they differed.
TRAINING: Mapping[str, Any] = {
    "use_cpu": True,
    "per_device_train_batch_size": BATCH,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "weight_decay": 0.01,
    "max_grad_norm": 0.5,
    "max_steps": STEPS,
    "logging_steps": 1,
    "seed": SEED,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
}


class InOrder(DPOTrainer):  # type: ignore[misc]  # trl is not followed by mypy
    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def in_our_order(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    groups = tiny.groups(kind, len(rows))
    sampler = StepSampler(groups, per_device=BATCH, accumulation=1, world=1, rank=0, seed=SEED)
    order = sampler.order()
    assert order != sorted(order)
    return [rows[index] for index in order]


def losses(trainer: Any) -> list[float]:
    found = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(found) == STEPS
    return [entry["loss"] for entry in found]


def norms(trainer: Any) -> list[float]:
    return [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]


def largest(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def distance(ours: tiny.Fit, theirs: torch.nn.Module) -> float:
    weights = theirs.state_dict()
    return max(float((ours.weights[name] - weights[name]).abs().max()) for name in ours.weights)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo(tmp_path: Path, beta: float) -> None:
    rows = tiny.rows("pairs", STEPS * BATCH)
    ours = tiny.fit("dpo", tmp_path / "a", train=tiny.groups("pairs", len(rows)), config={"beta": beta}, **TRAINING)
    theirs = InOrder(
        model=str(tiny.saved(tmp_path / "start")),
        args=DPOConfig(str(tmp_path / "b"), beta=beta, max_length=None, gradient_checkpointing=False, **TRAINING),
        train_dataset=datasets.Dataset.from_list(in_our_order(rows, "pairs")),
        processing_class=tiny.tokenizer(),
    )
    theirs.train()
    assert ours.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert largest(ours.losses, losses(theirs)) < 1e-4
    assert abs(ours.losses[-1] - ours.losses[0]) > 1e-3  # there was something to agree on
    assert largest(norms(ours.trainer), norms(theirs)) < 1e-3
    assert distance(ours, theirs.model) < 1e-4


@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (1.3, 0.8)])
def test_kto(tmp_path: Path, desirable: float, undesirable: float) -> None:
    rows = tiny.rows("labels", STEPS * BATCH)
    weights = {"beta": 0.5, "desirable_weight": desirable, "undesirable_weight": undesirable}
    ours = tiny.fit("kto", tmp_path / "a", train=tiny.groups("labels", len(rows)), config=weights, **TRAINING)
    theirs = KTOTrainer(  # it pairs each prompt of a batch with the completion before it, and does not shuffle
        model=str(tiny.saved(tmp_path / "start")),
        args=KTOConfig(str(tmp_path / "b"), max_length=None, gradient_checkpointing=False, **weights, **TRAINING),
        train_dataset=datasets.Dataset.from_list(in_our_order(rows, "labels")),
        processing_class=tiny.tokenizer(),
    )
    theirs.train()
    kl = [entry["kl"] for entry in ours.trainer.state.log_history if "kl" in entry]
    assert max(kl) > 0.01  # the reference point moved
    assert largest(ours.losses, losses(theirs)) < 1e-4
    assert distance(ours, theirs.model) < 1e-4


class Given(RLOOTrainer):  # type: ignore[misc]  # trl is not followed by mypy
    """Takes completions instead of sampling them."""

    given: list[tuple[list[int], list[int]]]

    def _generate(self, prompts: list[str]) -> tuple[list[list[int]], list[list[int]], list[str]]:
        assert len(prompts) == len(self.given)
        texts = [self.processing_class.decode(ids, skip_special_tokens=True) for _, ids in self.given]
        return [prompt for prompt, _ in self.given], [ids for _, ids in self.given], texts


@pytest.mark.parametrize(
    "config",
    [
        {"beta": 0.0},
        {"beta": 0.05},
        {"beta": 0.3, "normalize_advantages": True},
        {"beta": 0.1, "reward_clip_range": (0.1, 0.6)},
    ],
    ids=str,
)
def test_rloo(tmp_path: Path, config: dict[str, Any]) -> None:
    samples, prompts = 4, tiny.groups("prompts", 3)
    start, sampled_by, now = tiny.model(0), tiny.model(0), tiny.model(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in sampled_by.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        moves = [0.01 * torch.randn_like(parameter) for parameter in now.parameters()]
    completions = sample(sampled_by, tiny.tokenizer(), prompts, Sampling(samples, 7))
    rewards = iter([0.1 * ((7 * number) % 11) for number in range(samples * len(prompts))])
    for group, some in zip(prompts, completions, strict=True):
        group.completions = [Completion(c.ids, score=next(rewards), finished=c.finished) for c in some]

    method = tiny.algorithm("rloo", **config)
    batch = tiny.batch_of(*prompts)
    with torch.no_grad():
        old, anchor = score(sampled_by, batch), score(start, batch)
    batch.columns.update(method.experience(batch, old, anchor if method.needs.reference else None))
    batch.columns["old_logps"] = old.logps
    assert (float(batch.columns["kl"].abs().max()) > 0.05) == method.needs.reference

    count = samples * len(prompts)
    flat = [(group.prompt_ids, completion.ids) for group in prompts for completion in group.completions]
    scores = [completion.score for group in prompts for completion in group.completions]
    tiny.saved(tmp_path)
    sampled_by.save_pretrained(tmp_path)
    theirs = Given(
        model=str(tmp_path),
        reward_funcs=lambda **_: scores,
        args=RLOOConfig(
            str(tmp_path / "out"),
            num_generations=samples,
            max_completion_length=7,
            gradient_checkpointing=False,
            per_device_train_batch_size=count,
            use_cpu=True,
            bf16=False,
            report_to="none",
            reward_clip_range=config.get("reward_clip_range"),
            **{key: value for key, value in config.items() if key != "reward_clip_range"},
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": group.source["prompt"]} for group in prompts]),
        processing_class=tiny.tokenizer(),
    )
    theirs.given = flat
    if theirs.ref_model is not None:
        theirs.ref_model.load_state_dict(start.state_dict())
    inputs = theirs._generate_and_score_completions(
        [{"prompt": group.source["prompt"]} for group in prompts for _ in range(samples)]
    )
    assert torch.allclose(inputs["old_logps"], old.sum(), atol=1e-5)
    assert float((inputs["advantages"] - batch.columns["advantages"]).abs().max()) < 1e-5

    # On the policy that sampled, every ratio is 1.
    ours = method.loss(batch, score(sampled_by, batch), None)
    assert torch.allclose(ours.metrics["ratio"], torch.ones(count), atol=1e-5)
    assert float(ours.metrics["clip_fraction"].sum()) == 0.0

    clipped = 0.0
    for scale in (0.0, 1.0, 3.0):  # further and further from it
        with torch.no_grad():
            for parameter, origin, move in zip(now.parameters(), sampled_by.parameters(), moves, strict=True):
                parameter.copy_(origin + scale * move)
        now.zero_grad()
        ours = method.loss(batch, score(now, batch), None)
        value, _ = reduce(ours, batch, counts(batch))
        value.backward()
        gradient = [parameter.grad for parameter in now.parameters()]
        theirs.model.load_state_dict(now.state_dict())
        theirs.model.zero_grad()
        other = theirs._compute_loss(theirs.model, inputs)
        other.backward()
        assert abs(float(value) - float(other)) < 1e-5
        gap = max(float((a - b.grad).abs().max()) for a, b in zip(gradient, theirs.model.parameters(), strict=True))
        assert gap < 1e-5
        assert max(float(g.abs().max()) for g in gradient) > 1e-3
        clipped += float(ours.metrics["clip_fraction"].sum())
    assert clipped > 0


def test_the_first_loss_of_dpo_is_ln_2_with_adapters_and_dropout(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny.model(attention_dropout=0.3), adapter)
    ours = tiny.fit(
        "dpo", tmp_path, policy=Policy(model, None, "new", None), train=tiny.groups("pairs", 24), **TRAINING
    )
    assert ours.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert ours.losses[-1] != pytest.approx(math.log(2), abs=1e-4)


def test_the_first_ratio_of_rloo_is_1_and_later_ones_are_not(tmp_path: Path) -> None:
    ours = tiny.fit("rloo", tmp_path, iterations=3, **{**TRAINING, "max_steps": 3, "warmup_steps": 0})
    ratios = [entry["ratio"] for entry in ours.trainer.state.log_history if "ratio" in entry]
    assert ratios[0] == pytest.approx(1.0, abs=1e-6)
    assert all(abs(ratio - 1.0) > 1e-4 for ratio in ratios[1:])
