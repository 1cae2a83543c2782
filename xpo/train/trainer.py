"""The one loop: a ``transformers.Trainer`` that knows groups, scores and loss terms, and no algorithm by name."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerControl

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.api.loss import Counts, as_loss, counts, reduce
from xpo.compat import EvalLoopOutput, checkpoint_activations, checkpoints
from xpo.data.beside import Beside
from xpo.data.order import MicroBatch, MicroStep, StepData
from xpo.errors import ModelError, SettingError
from xpo.models.critic import Critic
from xpo.models.follower import Follower
from xpo.models.guard import choose_engine
from xpo.models.load import Policy, has_dropout
from xpo.models.reference import Reference
from xpo.models.scoring import innermost, score
from xpo.train.best import check_metric
from xpo.train.callbacks import Following, Passing
from xpo.train.checkpoint import Kept
from xpo.train.diagnostics import Diagnostics
from xpo.train.divergence import diverged
from xpo.train.experience import REFERENCE
from xpo.train.models import Models
from xpo.train.ranks import added, gathered
from xpo.train.rollouts import Rollouts
from xpo.train.sampling_cost import SamplingCost, of_all_ranks
from xpo.train.steps import StepLoader, Steps
from xpo.train.supply import Supply


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
        window: int | None = 1,
        rounds: int = 1,
        follower: Follower | None = None,
        round_share: float | None = None,
        follow_share: float = 1.0,
        follow_steps: int | None = None,
        layout: str = "tree",
        critic: Critic | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.algorithm = algorithm
        self.adapters = policy.adapter is not None
        self.vocabulary = algorithm.needs.vocabulary
        self.rollouts = rollouts
        self.steps = Steps(args, algorithm.needs.least, layout, iterations, window, rounds)
        self.follower, self.round_share = follower, round_share
        self.held_out = held_out
        self.temperature = rollouts.sampling.temperature if rollouts else 1.0
        self.tokens = 0
        self.control: TrainerControl
        self._meter = Diagnostics()
        #: Whether the step has nothing to learn from.
        self.empty = False
        #: What the policy has said already about the micro-batch that comes.
        self._scored: Scores | None = None
        self._excess: list[torch.Tensor] = []
        output = Path(args.output_dir)
        missing = [folder for folder in (output, *output.parents) if not folder.exists()]
        super().__init__(
            model=policy.model,
            args=args,
            train_dataset=self._data(train, beside[0], args),
            eval_dataset=self._data(held_out, beside[1], args) if held_out else None,
            processing_class=tokenizer,
            callbacks=[*callbacks, Passing(self)],
        )
        if rollouts is not None:
            rollouts.feedback.attend(lambda: self.state)  # training makes a new one
        if follower is not None and follow_steps is not None:
            self.add_callback(Following(follower, follow_share, follow_steps))
        #: What is sampled for the steps to come; None where the data has it all.
        self.supply = None if rollouts is None else self._supply()
        for folder in missing if args.should_save else ():
            # It was made a moment ago, and must not be there unless the run begins.
            with suppress(OSError):
                folder.rmdir()
        self.critic = None if critic is None else critic.to(args.device)
        #: What is called: the critic, or what keeps its gradients the same on all ranks.
        self._critic = critic if critic is None or args.world_size == 1 else self.accelerator.prepare_model(critic)
        sampler = self.steps.sampler(self.train_dataset, args.per_device_train_batch_size, train=True)
        self.left_out = sampler.left_out
        first = [*self.train_dataset[next(iter(sampler))[0]].groups, max(train, key=attrgetter("length"))]
        #: How completions are computed, and what there is to say about it.
        self.engine, self.notes = choose_engine(policy.model, first, layout, args.device)
        if critic is not None:
            self.notes += critic.choose_engine(first, layout)
        self.reference = None if reference is None else reference.to(args.device).computed(self.engine, first, layout)
        if held_out and args.eval_strategy != "no":  # what is wrong with it must not come up after hours of training
            self.steps.sampler(self.eval_dataset, args.per_device_eval_batch_size, train=False)

    # Data

    def _data(self, groups: Sequence[Group], beside: Sequence[Sequence[Group]], args: Any) -> StepData:
        # What is formed of samples is collated when it is there.
        forms = self.rollouts is not None and self.rollouts.forming is not None
        return StepData(groups, list if forms else self.algorithm.collate, [Beside(rows, args.seed) for rows in beside])

    def get_train_dataloader(self) -> StepLoader:
        return self.steps.loader(self.train_dataset, train=True)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> StepLoader:
        return self.steps.loader(eval_dataset or self.eval_dataset, train=False)

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Counts]:
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)
        if self.supply is None:
            micros = list(islice(epoch_iterator, num_batches))
        else:
            self.supply.spent = self.supply.spent or self._overshot()
            micros = self.supply.next(epoch_iterator, num_batches, self.state.global_step, self.state.max_steps)
        batches = [self._batch(micro.groups, micro.idle) for micro in micros]
        totals = self._totals(batches)
        self.empty = not any(totals.values())
        return batches, totals

    def forget_gradients(self) -> None:
        """Leave everything that is trained without a gradient, so that the optimiser passes it over."""
        self.model.zero_grad(set_to_none=True)
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)

    def _supply(self) -> Supply:
        return Supply(
            partial(self._filled, stream="train"),
            window=self.steps.window,
            repeat=self.steps.iterations,
            rounds=self.steps.rounds,
            begin=self._begin_round,
        )

    def _begin_round(self) -> None:
        if self.follower is not None and self.round_share is not None:
            self.follower.move(self.round_share)

    def _overshot(self) -> bool:
        """Whether the last step went further from the policy that sampled than the algorithm wants."""
        if not self._excess:  # the same on all ranks: an algorithm says it of every batch, or of none
            return False
        items, self._excess = torch.cat(self._excess), []
        total = self._sum_over_ranks(torch.stack([items.sum(), items.new_tensor(float(items.numel()))]))
        return bool(total[0] > 0)

    def _filled(self, steps: Sequence[Sequence[MicroBatch]], stream: str) -> list[list[MicroBatch]]:
        """Steps with sampled completions. What it costs and shows is counted as training, unless that is put aside."""
        assert self.rollouts is not None
        bare = self.accelerator.unwrap_model(self.model)
        reference = self.reference

        at_once = torch.is_grad_enabled() and self._at_once and len(steps) == 1 and len(steps[0]) == 1

        def policy(batch: Batch) -> Scores:
            if at_once:  # the loss will ask the same of the same weights
                self._scored = self._score(bare, batch)
                return self._scored.detach()
            with torch.no_grad():
                return self._score(bare, batch)

        def anchor(batch: Batch) -> Scores:
            found = self._anchor(batch)
            assert found is not None
            return found

        models = Models(
            bare,
            reference,
            policy,
            None if reference is None else anchor,
            self._batch,
            partial(gathered, world=self.args.world_size),
            self.args.world_size,
            self.args.process_index,
        )
        training = bare.training
        bare.eval()
        started = time.perf_counter()
        try:
            return self.rollouts.fill(models, [list(step) for step in steps], stream)
        finally:
            bare.train(training)
            self.rollouts.cost.seconds += time.perf_counter() - started
            self._meter.add(self.rollouts.metrics)

    @property
    def _at_once(self) -> bool:
        """Whether the scores of the policy that samples can be those that are learned from.

        Then every sample is used once, at once, in one micro-batch and one process, by a forward that does not depend
        on whether the model is training.
        """
        assert self.rollouts is not None
        return (
            self.rollouts.forming is None
            and self.steps.iterations == 1
            and self.steps.window == 1
            and self.args.world_size == 1
            and not self.train_dataset.beside
            and not checkpoints(innermost(self.model))
            and not has_dropout(self.model)
        )

    def _batch(self, groups: Sequence[Group], idle: bool) -> Batch:
        return Batch.of(groups, device=self.args.device, reduce=self._sum_over_ranks, idle=idle)

    def _sum_over_ranks(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.args.world_size == 1:
            return tensor
        total: torch.Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    def _totals(self, batches: Sequence[Batch]) -> Counts:
        return added(gathered(added(map(counts, batches)), self.args.world_size))

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
        policy, self._scored = self._scored or self._score(model, batch), None
        reference = self._anchor(batch)
        self._meter.watch(batch, policy, reference, self.algorithm.data)
        loss = as_loss(self.algorithm.loss(batch, policy, reference))
        if loss.excess is not None and torch.is_grad_enabled():
            self._excess.append(loss.excess.detach()[: 0 if batch.idle else None])
        value, shares = reduce(loss, batch, totals)
        if not batch.idle:
            self._meter.add_loss(loss)
        if len(shares) > 1:
            for name, share in shares.items():
                self._meter.add_share(f"loss/{name}", share, part / self.args.world_size)
        return value

    def _anchor(self, batch: Batch) -> Scores | None:
        """What the reference says; of what it was asked about when it was sampled, what it said then."""
        vocabulary = self.algorithm.needs.reference_vocabulary
        if self.reference is None:
            return None
        if REFERENCE in batch.columns and not vocabulary:
            return Scores(batch.columns[REFERENCE], batch.mask)
        with self.accelerator.autocast():
            return self.reference.score(batch, self.temperature, vocabulary)

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
        self.left_out = self.steps.sampler(self.train_dataset, size, train=True).left_out

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
            steps = [list(step) for _, step in groupby(micros, key=lambda one: one.micro.step)]
            cost, self.rollouts.cost = self.rollouts.cost, SamplingCost()
            with torch.no_grad():  # which also tells running state that nothing is learned here
                filled = self._filled(steps, stream=metric_key_prefix)  # the same random numbers at every evaluation
            self.rollouts.cost = cost  # of training alone
            micros = [micro for step in filled for micro in step]
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
        return sum(gathered(self.tokens, self.args.world_size))

    def sampling_of_all_ranks(self) -> dict[str, float] | None:
        """What sampling took; None where nothing is sampled. Every rank must call it."""
        if self.rollouts is None:
            return None
        return of_all_ranks(gathered(self.rollouts.cost, self.args.world_size))

    def names_of_metrics(self) -> set[str] | None:
        """The metrics of an evaluation, as one batch shows them; None where what is evaluated is sampled first.

        Every rank must call it.
        """
        if self.rollouts is not None or not self.held_out:
            return None
        micro = next(iter(self.get_eval_dataloader()))
        state, meter, model = self.algorithm.state_dict(), self._meter, self.accelerator.unwrap_model(self.model)
        window, training = Diagnostics(), model.training
        self._meter = window
        model.eval()
        try:
            with torch.no_grad():
                batch = self._batch(micro.groups, micro.idle)
                self._loss(model, batch, self._totals([batch]), part=1.0)
        finally:
            model.train(training)
            self.algorithm.load_state_dict(state)
            self._meter = meter
        return set(window.read(self.args.world_size))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        check_metric(self.args.metric_for_best_model, metrics)
        return bool(super()._determine_best_metric(metrics, trial))

    # Logs and checkpoints

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self._meter.read(self.args.world_size)}
        super().log(logs, start_time)
        if not all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "grad_norm")):
            self.check_weights()

    def check_weights(self) -> None:
        """Refuse to go on with weights that are no numbers: nothing could bring them back. Every rank must call it.

        A loss or a gradient that is not finite does not end a run: where the loss is scaled, such a step is left out.

        Raises:
            ModelError: weights are NaN or infinite.
        """
        trained = [one for one in self.model.parameters() if one.requires_grad]
        trained += [] if self.critic is None else list(self.critic.own().values())
        lost = not all(bool(one.isfinite().all()) for one in trained)
        if any(gathered(lost, self.args.world_size)):
            raise ModelError(diverged(self.args, self.algorithm.name, self.state.global_step))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.check_weights()  # before an earlier one is removed to make room
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        self._kept().save(folder, shared=self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._kept().load(Path(resume_from_checkpoint))

    def _kept(self) -> Kept:
        return Kept(self.algorithm, self.critic, self.follower, self.supply, self.args.process_index)


@contextmanager
def _explained(setting: str) -> Iterator[None]:
    """What is said about a setting by the library that it chooses."""
    try:
        yield
    except (ImportError, ValueError, TypeError) as error:
        raise SettingError(f"--{setting}: {error}") from error
