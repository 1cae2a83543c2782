"""The loop: evaluation, logs, checkpoints, rollouts used again, and what a plugin may keep between steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import xpo
from tests import tiny
from xpo import Batch, Completion, Group, Loss, PluginError, Scores, Term
from xpo.api.algorithm import Algorithm, Needs
from xpo.api.loss import counts, reduce
from xpo.feedback.rewards import Reward
from xpo.feedback.sampling import Sampling
from xpo.feedback.verdicts import Feedback
from xpo.models.load import Policy
from xpo.models.scoring import score
from xpo.train.rollouts import Rollouts
from xpo.train.settings import TrainingArguments
from xpo.train.trainer import PreferenceTrainer


def trainer(folder: Path, method: Algorithm[Any], **more: Any) -> PreferenceTrainer:
    arguments = {
        "output_dir": str(folder),
        "use_cpu": True,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "max_steps": 3,
        "per_device_train_batch_size": 4,
    }
    own = {
        key: more.pop(key)
        for key in list(more)
        if key in ("train", "held_out", "reference", "rollouts", "model", "iterations")
    }
    return PreferenceTrainer(
        algorithm=method,
        policy=Policy(own.pop("model", None) or tiny.model(), None, None, None),
        tokenizer=tiny.tokenizer(),
        args=TrainingArguments(**{**arguments, **more}),
        **{"train": tiny.groups("pairs", 13), **own},
    )


def logs(some: PreferenceTrainer) -> list[dict[str, float]]:
    return [entry for entry in some.state.log_history if "loss" in entry]


def test_evaluation_is_the_mean_over_all_held_out_items(tmp_path: Path) -> None:
    method, held_out = tiny.algorithm("simpo", sft_weight=0.5), tiny.groups("pairs", 7, seed=3)
    model = tiny.model()
    batch = Batch.of(held_out)
    loss = method.loss(batch, score(model, batch), None)
    value, shares = reduce(loss, batch, counts(batch))
    for size in (1, 3, 7, 50):
        some = trainer(tmp_path, method, held_out=held_out, per_device_eval_batch_size=size, model=model)
        model.train()
        found = some.evaluate()
        assert model.training
        assert found["eval_loss"] == pytest.approx(float(value), abs=1e-5)
        assert found["eval_loss/sft"] == pytest.approx(float(shares["sft"]), abs=1e-5)
        for name, items in loss.metrics.items():
            assert found[f"eval_{name}"] == pytest.approx(float(items.mean()), abs=1e-4), name


def test_an_evaluation_in_between_does_not_change_training(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "a", tiny.algorithm("simpo"))
    plain.train()
    watched = trainer(
        tmp_path / "b", tiny.algorithm("simpo"), held_out=tiny.groups("pairs", 5), eval_strategy="steps", eval_steps=1
    )
    watched.train()
    assert logs(plain) == logs(watched)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_logged_is_the_mean_over_the_items_of_the_window(tmp_path: Path) -> None:
    often = trainer(tmp_path / "a", tiny.algorithm("simpo"), max_steps=4, learning_rate=0.0)
    often.train()  # three steps of 4 and one of 1
    seldom = trainer(tmp_path / "b", tiny.algorithm("simpo"), max_steps=4, logging_steps=4, learning_rate=0.0)
    seldom.train()
    first, last = logs(seldom)  # the first step has a line of its own
    for key in tiny.algorithm("simpo").metrics:
        values = [entry[key] for entry in logs(often)]
        assert first[key] == pytest.approx(values[0], abs=1e-4), key
        mean = (4 * values[1] + 4 * values[2] + 1 * values[3]) / 9
        assert last[key] == pytest.approx(mean, abs=1e-4), key


def test_parts_of_a_loss_add_up_to_it(tmp_path: Path) -> None:
    some = trainer(
        tmp_path, tiny.algorithm("simpo", sft_weight=0.7), per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    some.train()
    for entry in logs(some):
        assert entry["loss/preference"] + entry["loss/sft"] == pytest.approx(entry["loss"], abs=1e-5)


class Remembering(Algorithm[Any]):
    """Keeps a running number, as methods with a moving baseline do."""

    name = "remembering"
    data = "pairs"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.seen = 0

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        self.seen += len(batch.groups)
        chosen, rejected = batch.pairs(policy.mean())
        return Loss([Term((rejected - chosen) * (1 + 1 / self.seen), "pair")])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path: Path) -> None:
    """In the middle of the second epoch, with the state of optimiser, order and algorithm."""
    steps = {"max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    whole = trainer(tmp_path / "whole", Remembering(), save_strategy="steps", save_steps=5, **steps)
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-5"
    kept = json.loads((checkpoint / "algorithm.json").read_text())
    assert kept == {"algorithm": "remembering", "state": {"seen": 4 * 3 + 1 + 4}}
    resumed = trainer(tmp_path / "resumed", Remembering(), model=tiny.model(9), **steps)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert logs(resumed)[-3:] == logs(whole)[-3:]
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tokens_are_counted_once(tmp_path: Path) -> None:
    groups = tiny.groups("pairs", 6)
    some = trainer(tmp_path, tiny.algorithm("simpo"), train=groups, max_steps=-1, num_train_epochs=2)
    some.train()
    once = sum(len(g.prompt_ids) + sum(len(c.ids) for c in g.completions) for g in groups)
    assert some.tokens_of_all_ranks() == 2 * once


def test_the_reference_is_not_trained(tmp_path: Path) -> None:
    some = tiny.fit("dpo", tmp_path)
    assert some.trainer.reference is not None
    for frozen, start in zip(some.trainer.reference.model.parameters(), tiny.model().parameters(), strict=True):
        assert torch.equal(frozen, start)


class Forgetful(Remembering):
    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return list(groups[1:])


def test_a_collate_that_loses_groups_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"collate\(\) got the 4 groups of a step and returned 3"):
        trainer(tmp_path, Forgetful()).train()


class Looking(Algorithm[Any]):
    """Notes what experience() and loss() see of rollouts."""

    name = "looking"
    data = "rollouts"
    needs = Needs(samples=2)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.rolled: list[tuple[int, list[float]]] = []
        self.lost: list[Batch] = []

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, torch.Tensor]:
        assert not policy.logps.requires_grad
        self.rolled.append((len(batch.groups), batch.scores.tolist()))
        return {"twice": 2 * batch.scores, "per_token": policy.logps}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        self.lost.append(batch)
        assert torch.allclose(batch.columns["twice"], 2 * batch.scores)
        old = batch.columns["old_logps"]
        assert torch.equal(old, batch.columns["per_token"])
        assert old.shape == policy.logps.shape
        return Loss([Term(-policy.sum(), "completion")], {"drift": (policy.sum() - old.sum(-1)).abs().detach()})


def rollouts(method: Algorithm[Any], penalty: float = 0.0, **more: Any) -> Rollouts:
    feedback = Feedback(tiny.tokenizer(), [Reward("count", tiny.count_reward)], missing_eos_penalty=penalty)
    return Rollouts(method, feedback, **{"sampling": Sampling(2, 5), "keep_logps": True, **more})


def test_rollouts_see_the_whole_step_and_are_kept_for_its_repeats(tmp_path: Path) -> None:
    method = Looking()
    some = trainer(
        tmp_path,
        method,
        train=tiny.groups("prompts", 6),
        rollouts=rollouts(method),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=4,
        iterations=2,
    )
    some.train()
    assert [count for count, _ in method.rolled] == [4, 2]
    real = [batch for batch in method.lost if not batch.idle]
    assert [len(batch.groups) for batch in real] == [2, 2, 2, 2, 2, 2]
    assert real[0].ids.tolist() == real[2].ids.tolist()
    drift = [entry["drift"] for entry in logs(some)]
    assert drift[0] == drift[2] == pytest.approx(0.0, abs=1e-5)
    assert drift[1] > 1e-3
    assert drift[3] > 1e-3


def test_a_completion_that_did_not_end_is_penalised(tmp_path: Path) -> None:
    found = []
    for penalty in (0.0, 10.0):
        method = Looking()
        made = rollouts(method, penalty, sampling=Sampling(2, 40))
        some = trainer(tmp_path, method, train=tiny.groups("prompts", 8), rollouts=made, max_steps=1)
        some.train()
        assert some.supply is not None
        groups = [group for micro in some.supply.filled[0, 0] for group in micro.groups]
        finished = [completion.finished for group in groups for completion in group.completions]
        found.append((finished, method.rolled[0][1]))
    (finished, plain), (_, penalised) = found
    assert True in finished
    assert False in finished
    expected = [value - (0 if ended else 10) for value, ended in zip(plain, finished, strict=True)]
    assert penalised == pytest.approx(expected, abs=1e-5)


def test_evaluations_of_rollouts_use_the_same_random_numbers(tmp_path: Path) -> None:
    method = tiny.algorithm("rloo", beta=0.0)
    made = rollouts(method, sampling=Sampling(4, 6))
    some = trainer(tmp_path, method, train=tiny.groups("prompts", 8), held_out=tiny.groups("prompts", 5), rollouts=made)
    drop = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    first, second = ({k: v for k, v in some.evaluate().items() if k not in drop} for _ in range(2))
    assert first == second
    assert first["eval_reward"] != 0


def test_rewards_go_up_when_rloo_is_trained(tmp_path: Path) -> None:
    some = tiny.fit(
        "rloo", tmp_path, max_steps=20, learning_rate=5e-3, config={"beta": 0.0}, train=tiny.groups("prompts", 16)
    )
    rewards = [entry["reward"] for entry in some.trainer.state.log_history if "reward" in entry]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1


@pytest.mark.parametrize("name", ["dpo", "simpo", "kto"])
def test_training_tells_good_from_bad(tmp_path: Path, name: str) -> None:
    kind = "labels" if name == "kto" else "pairs"
    some = tiny.fit(name, tmp_path, train=tiny.groups(kind, 8), max_steps=15, learning_rate=3e-3)
    log = [entry for entry in some.trainer.state.log_history if "rewards/chosen" in entry]
    gaps = [entry["rewards/chosen"] - entry["rewards/rejected"] for entry in log]
    assert gaps[-1] > gaps[0] + 0.05
    assert some.losses[-1] < some.losses[0]


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    plain = tiny.fit("dpo", tmp_path / "a", policy=Policy(tiny.model(), None, None, None))
    less = tiny.fit("dpo", tmp_path / "b", policy=Policy(tiny.model(), None, None, None), gradient_checkpointing=True)
    assert plain.distance(less) < 1e-6


def test_the_data_given_is_not_changed(tmp_path: Path) -> None:
    groups = tiny.groups("labels", 8)
    before = [replace(group, completions=[replace(c) for c in group.completions]) for group in groups]
    tiny.fit("kto", tmp_path, train=groups)
    assert groups == before


def test_train_returns_the_record_and_writes_it(tmp_path: Path) -> None:
    prompts = [{"prompt": row["prompt"]} for row in tiny.rows("prompts", 6)]
    record = xpo.train(
        "rloo",
        tiny.model(),
        prompts,
        tokenizer=tiny.tokenizer(),
        reward=tiny.count_reward,
        max_completion_length=5,
        num_generations=3,
        output_dir=str(tmp_path / "o"),
        use_cpu=True,
        per_device_train_batch_size=3,
        max_steps=2,
    )
    written = json.loads((tmp_path / "o" / "run.json").read_text())
    assert written["algorithm"] == record.algorithm == "rloo"
    assert record.cost is not None
    assert record.cost.steps == 2
    assert Completion([1]).role == "completion"
