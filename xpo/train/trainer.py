"""The one loop: a ``transformers.Trainer`` that knows groups, scores and loss terms, and no algorithm by name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerControl

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.api.loss import Counts, counts, reduce
from xpo.compat import EvalLoopOutput, checkpoint_activations
from xpo.data.beside import Beside
from xpo.data.order import MicroBatch, MicroStep, StepData, StepSampler
from xpo.data.spread import Spread
from xpo.errors import SettingError
from xpo.models.critic import Critic
from xpo.models.guard import choose_engine
from xpo.models.load import Policy
from xpo.models.reference import Reference
from xpo.models.scoring import score
from xpo.train.diagnostics import Diagnostics
from xpo.train.rollouts import Rollouts

#: In every checkpoint: which algorithm made it, and the running state it keeps.
STATE = "algorithm.json"


class StepLoader(DataLoader[MicroBatch]):
    """Micro-batches in the order of a ``StepSampler``; the trainer tells it the epoch."""

    def __init__(self, data: StepData, sampler: StepSampler, workers: int = 0) -> None:
        super().__init__(data, batch_sampler=sampler, collate_fn=itemgetter(0), num_workers=workers)

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # a StepSampler


def _data(groups: Sequence[Group], beside: Sequence[Sequence[Group]], algorithm: Algorithm[Any], args: Any) -> StepData:
    return StepData(groups, algorithm.collate, [Beside(rows, args.seed) for rows in beside])


class PreferenceTrainer(Trainer):  # type: ignore[misc]  # transformers is not followed by mypy
    """Scores groups, asks the algorithm for its terms, and divides them by the counts of the whole optimiser step.

    The gradient is that of the mean over all items of a step, however these are spread over micro-batches and ranks.
    """

    #: ``reduce`` divides by the counts of the whole step, so micro-batches are summed.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        algorithm: Algorithm[Any],
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        args: Any,
        train: Sequence[Group],
        held_out: Sequence[Group] = (),
        beside: tuple[Sequence[Sequence[Group]], Sequence[Sequence[Group]]] = ((), ()),
        reference: Reference | None = None,
        rollouts: Rollouts | None = None,
        iterations: int = 1,
        layout: str = "tree",
        critic: Critic | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.algorithm = algorithm
        self.adapters = policy.adapter is not None
        self.vocabulary = algorithm.needs.vocabulary
        self.rollouts = rollouts
        self.iterations = iterations
        self.layout = layout
        self.held_out = held_out
        self.temperature = rollouts.sampling.temperature if rollouts else 1.0
        self.tokens = 0
        self.control: TrainerControl
        self._meter = Diagnostics()
        self._filled: dict[tuple[int, int], list[MicroBatch]] = {}
        output = Path(args.output_dir)
        missing = [folder for folder in (output, *output.parents) if not folder.exists()]
        super().__init__(
            model=policy.model,
            args=args,
            train_dataset=_data(train, beside[0], algorithm, args),
            eval_dataset=_data(held_out, beside[1], algorithm, args) if held_out else None,
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        for folder in missing if args.should_save else ():
            # It was made a moment ago, and must not be there unless the run begins.
            with suppress(OSError):
                folder.rmdir()
        self.critic = None if critic is None else critic.to(args.device)
        #: What is called: the critic, or what keeps its gradients the same on all ranks.
        self._critic = critic if critic is None or args.world_size == 1 else self.accelerator.prepare_model(critic)
        sampler = self.sampler(self.train_dataset, args.per_device_train_batch_size, train=True)
        self.left_out = sampler.left_out
        first = [*self.train_dataset[next(iter(sampler))[0]].groups, max(train, key=attrgetter("length"))]
        #: How completions are computed, and what there is to say about it.
        self.engine, self.notes = choose_engine(policy.model, first, layout, args.device)
        self.reference = None if reference is None else reference.to(args.device).computed(self.engine, first, layout)
        if held_out and args.eval_strategy != "no":  # what is wrong with it must not come up after hours of training
            self.sampler(self.eval_dataset, args.per_device_eval_batch_size, train=False)

    # Data

    def get_train_dataloader(self) -> StepLoader:
        return self._loader(self.train_dataset, self.args.per_device_train_batch_size, train=True)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> StepLoader:
        return self._loader(eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size, train=False)

    def _loader(self, data: Any, size: int, *, train: bool) -> StepLoader:
        return StepLoader(data, self.sampler(data, size, train=train), self.args.dataloader_num_workers)

    def sampler(self, data: Any, size: int, *, train: bool) -> StepSampler:
        """The order of some groups, in parts of ``size`` on each rank."""
        least = self.algorithm.needs.least
        # Statistics of a micro-batch must not be those of long rows here and of short ones there.
        spread: Spread = "kept" if least > 1 else "even" if self.layout == "tree" else "alike"
        return StepSampler(
            data.groups,
            per_device=size,
            accumulation=self.args.gradient_accumulation_steps if train else 1,
            world=self.args.world_size,
            rank=self.args.process_index,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            shuffle=train and self.args.train_sampling_strategy != "sequential",
            similar=train and self.args.train_sampling_strategy == "group_by_length",
            spread=spread,
            least=least,
            repeat=self.iterations if train else 1,
            flag=f"--per_device_{'train' if train else 'eval'}_batch_size",
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Counts]:
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)
        micros = list(islice(epoch_iterator, num_batches))
        if self.rollouts is not None and micros:
            micros = self._rolled(micros)
        batches = [self._batch(micro.groups, micro.idle) for micro in micros]
        return batches, self._totals(batches)

    def _rolled(self, micros: list[MicroBatch]) -> list[MicroBatch]:
        """Fresh completions for a step, or those of the step it repeats."""
        assert self.rollouts is not None
        key = (micros[0].micro.epoch, micros[0].micro.step)
        if key not in self._filled:
            started = time.perf_counter()
            self._filled = {key: self._fill(micros, stream=f"train/{key[0]}/{key[1]}")}
            self.rollouts.seconds += time.perf_counter() - started
            self._meter.add(self.rollouts.metrics)
        return self._filled[key]

    def _fill(self, micros: Sequence[MicroBatch], stream: str) -> list[MicroBatch]:
        assert self.rollouts is not None
        bare = self.accelerator.unwrap_model(self.model)
        reference = self.reference

        def policy(batch: Batch) -> Scores:
            with torch.no_grad():
                return self._score(bare, batch)

        def anchor(batch: Batch) -> Scores:
            assert reference is not None
            with self.accelerator.autocast():
                return reference.score(batch, self.temperature, self.algorithm.needs.reference_vocabulary)

        training = bare.training
        bare.eval()
        try:
            return self.rollouts.fill(
                bare, micros, self._batch, policy, None if reference is None else anchor, stream=stream
            )
        finally:
            bare.train(training)

    def _batch(self, groups: Sequence[Group], idle: bool) -> Batch:
        return Batch.of(groups, device=self.args.device, reduce=self._sum_over_ranks, idle=idle)

    def _sum_over_ranks(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.args.world_size == 1:
            return tensor
        total: torch.Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    def _totals(self, batches: Sequence[Batch]) -> Counts:
        mine: Counts = {}
        for batch in batches:
            for key, count in counts(batch).items():
                mine[key] = mine.get(key, 0.0) + count
        totals: Counts = {}
        for part in gather_object([mine]) if self.args.world_size > 1 else [mine]:
            for key, count in part.items():
                totals[key] = totals.get(key, 0.0) + count
        return totals

    def _prepare_inputs(self, inputs: Batch) -> Batch:  # it is on its device already
        return inputs

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        with _explained("optim"):
            made: torch.optim.Optimizer = super().create_optimizer(model)
            if self.critic is not None:
                own = list(self.critic.own().values())
                made.add_param_group({"params": own, "weight_decay": self.args.weight_decay})
            return made

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        if self.critic is not None:  # by itself: neither its size nor its errors may shorten the policy's step
            self.accelerator.clip_grad_norm_(self.critic.own().values(), self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        with _explained("lr_scheduler_type"):
            return super().create_scheduler(num_training_steps, optimizer)

    def init_hf_repo(self, *arguments: Any, **keywords: Any) -> None:
        try:
            super().init_hf_repo(*arguments, **keywords)
        except Exception as error:  # the hub, the network and the token each bring their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise SettingError(f"--push_to_hub: {reason}; push the output directory later, or drop the flag") from error

    # Loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Counts | None = None,
    ) -> torch.Tensor:
        assert num_items_in_batch is not None
        value = self._loss(model, inputs, num_items_in_batch, part=1.0 / self.current_gradient_accumulation_steps)
        if not inputs.idle:
            self.tokens += sum(len(group.prompt_ids) for group in inputs.groups) + int(inputs.lengths.sum())
        # Data-parallel wrappers average gradients over ranks; the loss is a sum.
        return value * float(self.args.world_size)

    def _loss(self, model: torch.nn.Module, batch: Batch, totals: Counts, part: float) -> torch.Tensor:
        policy = self._score(model, batch)
        reference = None
        if self.reference is not None:
            with self.accelerator.autocast():
                reference = self.reference.score(batch, self.temperature, self.algorithm.needs.reference_vocabulary)
        self._meter.watch(batch, policy, reference, self.algorithm.data)
        loss = self.algorithm.loss(batch, policy, reference)
        value, shares = reduce(loss, batch, totals)
        if not batch.idle:
            self._meter.add_loss(loss)
        if len(shares) > 1:
            for name, share in shares.items():
                self._meter.add_share(f"loss/{name}", share, part / self.args.world_size)
        return value

    def _score(self, model: torch.nn.Module, batch: Batch) -> Scores:
        # What follows the model's own forward must be computed in the same precision as the inside of it.
        with self.accelerator.autocast():
            scores = score(
                model,
                batch,
                self.engine,
                bare=self.accelerator.unwrap_model(model),
                temperature=self.temperature,
                vocabulary=self.vocabulary,
            )
            # Ranks may call it a different number of times where they learn nothing: then it must not wait for others.
            critic = self._critic if torch.is_grad_enabled() else self.critic
            return scores if critic is None else replace(scores, values=critic(batch, self.engine))

    # Fitting the machine

    def rehearse(self, step: MicroStep) -> None:
        """Forward and backward over one micro-batch, with what the optimiser will hold taken up; leaves no trace."""
        model, state, meter = self.accelerator.unwrap_model(self.model), self.algorithm.state_dict(), self._meter
        training = model.training
        model.train()
        try:
            with torch.random.fork_rng():
                trained = [one for one in model.parameters() if one.requires_grad]
                trained += [] if self.critic is None else list(self.critic.own().values())
                held = [torch.empty(2 * one.numel(), device=one.device) for one in trained]
                # Without a sum over ranks: each may come to its end, or not, on its own.
                batch = Batch.of(self.train_dataset[step].groups, device=self.args.device)
                self._meter = Diagnostics()
                self._loss(model, batch, counts(batch), part=1.0).backward()  # type: ignore[no-untyped-call]  # torch
                del held
        finally:
            model.zero_grad(set_to_none=True)
            if self.critic is not None:
                self.critic.zero_grad(set_to_none=True)
            model.train(training)
            self.algorithm.load_state_dict(state)
            self._meter = meter

    def resize(self, size: int, accumulation: int) -> None:
        """Split steps into smaller micro-batches."""
        self.args.per_device_train_batch_size = self._train_batch_size = size
        self.args.gradient_accumulation_steps = accumulation
        self.left_out = self.sampler(self.train_dataset, size, train=True).left_out

    def checkpoint_activations(self) -> None:
        """Compute activations again for the gradient rather than keep them."""
        checkpoint_activations(self.model, self.args)
        if self.adapters:
            self.model.enable_input_require_grads()

    # Evaluation

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and metrics over all held-out items; each weighs the same."""
        training, window = self._meter, Diagnostics()
        self._meter = window
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        micros: list[MicroBatch] = list(dataloader)
        if self.rollouts is not None:
            with torch.no_grad():  # which also tells running state that nothing is learned here
                micros = self._fill(micros, stream=metric_key_prefix)  # the same random numbers at every evaluation
            window.add(self.rollouts.metrics)
        batches = [self._batch(micro.groups, micro.idle) for micro in micros]
        totals = self._totals(batches)
        value = torch.zeros((), device=self.args.device)
        with torch.no_grad():
            for batch in batches:
                value = value + self._loss(model, batch, totals, part=1.0 / len(batches))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        value = self._sum_over_ranks(value)
        self._meter = training
        model.train(was_training)
        found = {"loss": float(value), **window.read(self.args.world_size)}
        metrics = {f"{metric_key_prefix}_{name}": number for name, number in found.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(self.held_out))

    def tokens_of_all_ranks(self) -> int:
        """Tokens of prompts and completions trained on so far. Every rank must call it."""
        return sum(gather_object([self.tokens]) if self.args.world_size > 1 else [self.tokens])

    # Logs and checkpoints

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self._meter.read(self.args.world_size)}
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = os.path.join(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            with open(os.path.join(folder, STATE), "w", encoding="utf-8") as file:
                json.dump({"algorithm": self.algorithm.name, "state": self.algorithm.state_dict()}, file)
            if self.critic is not None:
                self.critic.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = os.path.join(resume_from_checkpoint, STATE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.algorithm.load_state_dict(json.load(file)["state"])
        if self.critic is not None:
            self.critic.load(resume_from_checkpoint)


@contextmanager
def _explained(setting: str) -> Iterator[None]:
    """What is said about a setting by the library that it chooses."""
    try:
        yield
    except (ImportError, ValueError, TypeError) as error:
        raise SettingError(f"--{setting}: {error}") from error
