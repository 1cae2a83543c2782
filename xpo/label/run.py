"""One labelling from settings to file: read, load, label some prompts at a time, write them, say what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xpo
from xpo.compat import no_bars
from xpo.errors import DataError, SettingError
from xpo.label.checks import check
from xpo.label.columns import left_out, rows_of
from xpo.label.counts import Outcome, restore_tally, saved_tally
from xpo.label.labelling import Labeller
from xpo.label.loading import labeller_of
from xpo.label.reading import Source, read_source
from xpo.label.settings import SAMPLING, LabelSettings
from xpo.label.writing import FREE, Output, Progress, checked, claim
from xpo.plugins import load
from xpo.train.bar import Bar
from xpo.train.progress import say
from xpo.train.settings import EMBEDDED


@dataclass(frozen=True)
class Labelled:
    """What a labelling came to.

    Attributes:
        path: the file.
        rows: in it.
        lines: sentences about it.
    """

    path: Path
    rows: int
    lines: list[str]


def execute(settings: LabelSettings) -> Labelled:
    """Label what ``settings`` describe, or go on where an earlier start of the same command was stopped.

    Raises:
        XpoError: what was asked for cannot be done. What was written before that is whole, and can be gone on with.
    """
    no_bars()
    check(settings)
    path = checked(settings.own.output)
    registry = load()
    source = read_source(settings, registry)
    _check(settings, source, path)
    output = claim(path, settings.own.overwrite, _beginning(settings, source))
    labeller = labeller_of(settings, source.sampled, registry)
    _introduce(settings, source, output)
    outcome = _label(labeller, settings, source, output)
    judge = labeller.feedback.judge
    lines = outcome.lines("tokens" if labeller.tokenizer is not None else "words")
    return Labelled(output.path, outcome.rows, [*lines, *([] if judge is None else judge.tally.lines())])


@contextmanager
def _kept(output: Output) -> Iterator[None]:
    """Say what is kept when work stops before its end, whatever stops it."""
    try:
        yield
    except BaseException:
        if output.progress.done:
            say(f"{output.progress.done} prompts are labelled in {output.path}; the same command goes on from there")
        raise


def _label(labeller: Labeller, settings: LabelSettings, source: Source, output: Output) -> Outcome:
    progress, to = output.progress, settings.own.to
    outcome = Outcome.of(progress.outcome) if progress.outcome else Outcome()
    tally = labeller.feedback.judge.tally if labeller.feedback.judge is not None else None
    if tally is not None:
        restore_tally(tally, progress.judge)
    origin = _origin(settings, source)
    size, total = settings.own.batch_size, len(source.prompts)
    with _kept(output), Bar("label", total, unit="prompt", done=progress.done, told=f"{outcome.rows} rows") as bar:
        while progress.done < total:
            some = source.prompts[progress.done : progress.done + size]
            rows: list[dict[str, Any]] = []
            for found in labeller.label(some):
                made = rows_of(found, to, origin)
                outcome.add(found, len(made))
                rows += made
            outcome.seconds += labeller.seconds
            output.append(rows, len(some), outcome.to_dict(), {} if tally is None else saved_tally(tally))
            bar.step(len(some), f"{outcome.rows} rows")
    output.finish()
    return outcome


def _check(settings: LabelSettings, source: Source, output: Path) -> None:
    """Refuse what has no effect on the data there is.

    Raises:
        SettingError: something has none, or something is missing.
    """
    dataset = settings.run.dataset_name
    if dataset is not None and Path(dataset).expanduser().resolve() == output.resolve():
        raise SettingError(f"--output {output} is the data itself; choose another --output")
    if not source.prompts:
        raise DataError(f"{source.rows.origin}: no row is left to label. {'; '.join(source.lines)}.")
    model = settings.model.model_name_or_path
    if not source.sampled:
        settings.refuse(
            SAMPLING, f"the rows of {source.rows.origin} hold their completions, which are judged and not sampled"
        )
        if settings.judged_by_policy and model is None:
            raise SettingError("--judge self is the model, and none is given; pass --model")
    elif model is None and not settings.embedded:
        raise SettingError(f"{source.rows.origin} holds prompts alone: give the model that is to answer them, --model")


def _beginning(settings: LabelSettings, source: Source) -> Progress:
    rows = source.rows
    data = {"origin": rows.origin, "fingerprint": rows.fingerprint, "rows": len(rows)}
    told = {name: value for name, value in settings.to_dict().items() if name not in FREE}
    return Progress(xpo.__version__, told, data)


def _origin(settings: LabelSettings, source: Source) -> dict[str, Any]:
    """Where the rows are from: the same for all of them."""
    model = settings.model.model_name_or_path or EMBEDDED
    judge, rewards = settings.rollout.judge, settings.rollout.reward or [EMBEDDED]
    return {
        "model": model if source.sampled else None,
        **({"rewards": rewards} if judge is None else {"judge": judge}),
        "temperature": settings.rollout.temperature if source.sampled else None,
        "seed": settings.own.seed,
        "xpo_version": xpo.__version__,
    }


def _introduce(settings: LabelSettings, source: Source, output: Output) -> None:
    what = "prompts to sample for" if source.sampled else "prompts whose completions are judged"
    say(f"data: {source.rows.origin}, {len(source.rows)} rows, {len(source.prompts)} {what}")
    for line in source.lines:
        say(line)
    gone = left_out(source.rows.columns, settings.own.to)
    if gone:
        say(f"columns that do not come along, as they would contradict what is written: {', '.join(gone)}")
    if output.progress.done:
        say(f"going on with {output.path}: {output.progress.done} prompts are labelled")
