"""One run from settings to record: gather, load, look, train, look again, write down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerCallback, set_seed

from xpo.compat import no_bars
from xpo.errors import ModelError
from xpo.feedback.judges import RUBRIC
from xpo.models.follower import FOLLOWER
from xpo.models.load import REFERENCE_ADAPTER
from xpo.train.advice import advice
from xpo.train.best import check_best
from xpo.train.card import write_card
from xpo.train.comparisons import Comparisons
from xpo.train.describe import cost_of, introduce, label, left_out, make_record, now, wasted
from xpo.train.examination import conclude, examiner_of
from xpo.train.fitting import fitted
from xpo.train.flags import from_keywords
from xpo.train.loaded import Loaded, load_all
from xpo.train.lock import Lock
from xpo.train.looks import Looks
from xpo.train.machine import PeakMemory, is_main
from xpo.train.output import HISTORY, PLOT, RUN, Claim, claim, forgotten_without_steps
from xpo.train.plots import plot_history
from xpo.train.precision import Grain, check_precision
from xpo.train.preflight import check_checkpoint
from xpo.train.processes import check_processes, meet_on_cpu
from xpo.train.progress import ShowProgress, say
from xpo.train.record import RunRecord, write_history
from xpo.train.remember import Write, known, written
from xpo.train.resumed import Telling, otherwise, told
from xpo.train.settings import Settings
from xpo.train.summary import print_summary
from xpo.train.survey import survey
from xpo.train.trainer import PreferenceTrainer


def train(
    algo: str,
    model: Any = None,
    dataset: Any = None,
    *,
    callbacks: Sequence[TrainerCallback] | None = None,
    **settings: Any,
) -> RunRecord:
    """Train a policy by preferences.

    Args:
        algo: name of the algorithm.
        model: directory, hub id or a loaded model; the embedded testbed's if not given.
        dataset: file, directory, hub id, rows or a ``datasets`` object; the testbed's if not given.
        callbacks: further callbacks of the loop, such as ``transformers.EarlyStoppingCallback(3)``.
        settings: everything the command line takes, by the same names, such as ``beta=0.5``, ``use_peft=True``.
            ``eval_dataset``, ``reference_model``, ``reward`` and ``judge`` may be objects too, and so may
            ``tokenizer``: that of where a loaded model came from if not given.

    Returns:
        The record of the run, also written to ``output_dir`` as ``run.json``.

    Raises:
        XpoError: what was asked for cannot be done; nothing has been written.
    """
    meet_on_cpu()
    settled = from_keywords(algo, model=model, dataset=dataset, **settings)
    return execute(settled, [partial(_given, callback) for callback in callbacks or ()])


def _given(callback: TrainerCallback, trainer: PreferenceTrainer) -> TrainerCallback:
    """A callback that is there already, whatever the loop."""
    return callback


def execute(settings: Settings, callbacks: Sequence[Callable[[PreferenceTrainer], TrainerCallback]] = ()) -> RunRecord:
    """Run what ``settings`` describe.

    Args:
        callbacks: make further callbacks of the loop, each from the trainer it is for.
    """
    no_bars()
    claimed = partial(
        claim,
        str(settings.training.output_dir),
        settings.run.overwrite,
        settings.training.resume_from_checkpoint,
        _inputs(settings),
    )
    check_processes(settings.training)
    with Lock(claimed().path) as lock:
        lock.check()
        return _execute(settings, callbacks, claimed, lock)


def _execute(
    settings: Settings,
    callbacks: Sequence[Callable[[PreferenceTrainer], TrainerCallback]],
    claimed: Callable[[], Claim],
    lock: Lock,
) -> RunRecord:
    args = settings.training
    resume = args.resume_from_checkpoint
    checkpoint = check_checkpoint(args, settings.entry.cls.name)
    memory = PeakMemory()
    set_seed(args.seed)
    loaded = load_all(settings)
    algorithm, tokenizer, material = loaded.algorithm, loaded.tokenizer, loaded.material
    introduce(settings, loaded.policy, loaded.reference, material, loaded.networks)
    bits = check_precision(loaded.policy.model, args)
    now_told = told(settings, material.fingerprint)
    resumed = [] if checkpoint is None else otherwise(checkpoint, now_told)
    trainer = _trainer(settings, loaded, [*callbacks, lambda _: Telling(now_told)])
    check_best(trainer)
    notes = [*known(loaded.cache, material.train), *trainer.notes, *fitted(trainer, settings)]
    for line in [*resumed, *bits, *notes, *left_out(trainer.left_out)]:
        say(line)
    examiner = examiner_of(settings, algorithm, trainer, tokenizer, material, loaded.feedback)
    bare, judge, rollouts = trainer.accelerator.unwrap_model(trainer.model), loaded.feedback.judge, loaded.rollouts
    if judge is not None:
        judge.bind(bare, tokenizer)
    before = examiner.look(bare) if is_main() else None
    if rollouts is not None and before is not None and not before.rewards:
        rollouts.rehearse(bare, material.train[:2])

    grain = Grain(bare)
    lock.take()
    output = claimed().begin()  # another run may have come and gone since the first look
    record = make_record(settings, algorithm, loaded.policy, loaded.reference, material)
    engine = trainer.engine
    record.engine = {"layout": engine.layout, "head": "compact" if engine.compact else "model", "lines": notes}
    record.save(output / RUN)
    started = time.perf_counter()
    failing = nullcontext() if resume else forgotten_without_steps(output, lambda: int(trainer.state.global_step))
    try:
        with ShowProgress.attach(trainer), written(loaded.cache) as problems, failing:
            trainer.train(resume_from_checkpoint=resume)
        trainer.check_weights()
    except ModelError:  # it diverged; how, the history says
        write_history(trainer.state.log_history, output / HISTORY)
        raise
    seconds = time.perf_counter() - started
    record.cost = cost_of(trainer, seconds, loaded.cache)
    for line in [*problems, *([] if judge is None else judge.tally.lines()), *wasted(record.cost)]:
        say(line)
    _save(trainer, tokenizer, output)
    if isinstance(examiner, Comparisons) and is_main():
        zero = examiner.zero(bare, material.held_out or material.train)
        if zero is not None:
            zero.save(output)
    if before is not None:
        conclude(record, trainer, examiner, before, bare, loaded.start, settings)
        record.data["survey"] = survey(material.train, settings.kind)
        record.notes = [
            *resumed,
            *bits,
            *grain.notes(bare, args),
            *advice(record, trainer.state.log_history, algorithm),
        ]
        record.cost = replace(
            record.cost, peak_memory_bytes=memory.host_bytes(), peak_gpu_memory_bytes=memory.gpu_bytes()
        )
        record.finished = now()
        write_history(trainer.state.log_history, output / HISTORY)
        plot_history(trainer.state.log_history, output / PLOT, f"{algorithm.name} on {label(settings)}")
        record.save(output / RUN)
        write_card(record, type(algorithm), output)
        print_summary(record, settings.run.sample_completions)
        say(f"saved to {output}")
    trainer.accelerator.wait_for_everyone()
    return record


def _trainer(
    settings: Settings, loaded: Loaded, callbacks: Sequence[Callable[[PreferenceTrainer], TrainerCallback]]
) -> PreferenceTrainer:
    """The loop, with what is called at its steps."""
    rollout = settings.rollout
    trainer = PreferenceTrainer(
        algorithm=loaded.algorithm,
        policy=loaded.policy,
        tokenizer=loaded.tokenizer,
        args=settings.training,
        train=loaded.material.train,
        held_out=loaded.material.held_out,
        beside=loaded.material.beside,
        reference=loaded.reference,
        rollouts=loaded.rollouts,
        iterations=1 if rollout is None else rollout.num_iterations,
        window=1 if rollout is None else rollout.window,
        rounds=1 if rollout is None else rollout.rounds,
        follower=loaded.follower,
        round_share=_round_share(settings),
        follow_share=settings.run.ref_model_mixup_alpha,
        follow_steps=settings.run.ref_model_sync_steps if settings.run.sync_ref_model else None,
        layout=settings.run.layout,
        critic=loaded.critic,
        callbacks=[Write(loaded.cache)] if loaded.cache is not None else [],
    )
    for make in callbacks:
        trainer.add_callback(make(trainer))
    supply = trainer.supply
    if rollout is not None and rollout.log_completions and supply is not None:
        trainer.add_callback(
            Looks(
                loaded.tokenizer,
                supply.last,
                rollout.log_completions_steps,
                rollout.num_completions_to_print,
                told=loaded.feedback.told,
            )
        )
    return trainer


def _inputs(settings: Settings) -> list[str]:
    """Local models and data the run reads, which --overwrite must not remove."""
    single = ("model_name_or_path", "dataset_name", "eval_dataset", "reference_model", "value_model", "judge_template")
    judge = settings.source("judge")
    named = [
        *(settings.source(name) for name in single),
        *(settings.source("reward") or ()),
        judge.removeprefix(RUBRIC) if isinstance(judge, str) else None,
    ]
    return [name for name in named if isinstance(name, str) and Path(name).exists()]


def _round_share(settings: Settings) -> float | None:
    """Share of the policy in the reference of a new round; None where that stays what it was."""
    rollout = settings.rollout
    if rollout is None or rollout.rounds == 1:
        return None
    return {"policy": 1.0, "mixed": settings.run.ref_model_mixup_alpha, "kept": None}[rollout.round_reference]


def _save(trainer: PreferenceTrainer, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Weights, or the adapter alone, and the tokenizer."""
    trainer.save_model(str(output))
    if is_main():
        # A frozen adapter served as the reference; it is not part of the result.
        for frozen in (REFERENCE_ADAPTER, FOLLOWER):
            shutil.rmtree(output / frozen, ignore_errors=True)
        tokenizer.save_pretrained(output)
        (output / "training_args.bin").unlink(missing_ok=True)  # run.json says it, and unpickling runs code
