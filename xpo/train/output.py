"""The output directory: which one a run may use, the names of what xpo writes there, and writing without halves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xpo.errors import SettingError
from xpo.train.machine import is_main
from xpo.train.place import check_place

RUN = "run.json"
HISTORY = "history.jsonl"
PLOT = "history.png"
CARD = "README.md"

#: What a run leaves in its directory, weights and tokenizer included: refused if present, removed by ``--overwrite``.
OURS = (
    *(RUN, HISTORY, PLOT, CARD, "checkpoint-[0-9]*"),
    *("config.json", "generation_config.json", "adapter_config.json", "training_args.bin", "trainer_state.json"),
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", "adapter_model.bin"),
    *("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "processor_config.json"),
)


@dataclass(frozen=True)
class Claim:
    """A directory that passed the checks of :func:`claim`; nothing has been touched yet.

    Attributes:
        path: the output directory.
        stale: files and checkpoints of the earlier run that ``--overwrite`` gives up.
    """

    path: Path
    stale: tuple[Path, ...] = ()

    def begin(self) -> Path:
        """Create the directory and remove the earlier run's files. Call it when nothing else can go wrong any more.

        Save ``run.json`` soon after: it is what marks the directory as a run of xpo.
        """
        if is_main():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                for old in self.stale:
                    if old.is_dir() and not old.is_symlink():
                        shutil.rmtree(old)
                    else:
                        old.unlink(missing_ok=True)
            except OSError as error:
                raise SettingError(_unusable(self.path, error)) from error
        return self.path


def claim(
    output_dir: str | os.PathLike[str],
    overwrite: bool = False,
    resume: bool | str | os.PathLike[str] | None = None,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Claim:
    """Check that a run may write to ``output_dir``, without writing anything. Only rank 0 looks.

    Args:
        overwrite: an earlier run of xpo found there is to be replaced.
        resume: continue the run there (True), or from this checkpoint.
        inputs: models and data files the run reads; ``overwrite`` must not remove them.

    Raises:
        SettingError: the directory holds something a run would replace, cannot be written, or is not a directory.
    """
    path = Path(output_dir).expanduser()
    if not is_main():
        return Claim(path)
    try:
        return _check(path, overwrite, resume, [Path(given).expanduser() for given in inputs])
    except OSError as error:
        raise SettingError(_unusable(path, error)) from error


def _check(path: Path, overwrite: bool, resume: bool | str | os.PathLike[str] | None, inputs: list[Path]) -> Claim:
    place = check_place(path)
    found = sorted({entry for pattern in OURS for entry in path.glob(pattern)}) if place == path else []
    checkpoints = sorted(
        (entry for entry in found if entry.name.startswith("checkpoint-") and entry.is_dir()),
        key=lambda entry: (len(entry.name), entry.name),
    )
    start = _checkpoint(path, resume, checkpoints)
    if start is not None and path.resolve() in start.resolve().parents:
        if overwrite:
            raise SettingError(f"--overwrite would remove {start}, which --resume_from_checkpoint continues; drop one")
        return Claim(path)
    if not found:
        return Claim(path)

    names = ", ".join(entry.name for entry in found[:4]) + (", ..." if len(found) > 4 else "")
    if not _is_run(path / RUN):
        raise SettingError(
            f"--output_dir {path} holds {names}, which a run would replace, but no earlier run of xpo that --overwrite "
            "could remove; choose another --output_dir"
        )
    if not overwrite:
        resumable = f", continue it with --resume_from_checkpoint {checkpoints[-1]}" if checkpoints else ""
        raise SettingError(
            f"--output_dir {path} holds an earlier run ({names}); choose another --output_dir{resumable}, or replace "
            "it with --overwrite"
        )
    gone = [entry.resolve() for entry in found]
    for given in [*inputs, *([start] if start else [])]:
        source = given.resolve()
        if any(old == source or old in source.parents or source in old.parents for old in gone):
            raise SettingError(f"--overwrite would remove {given}, which this run reads; choose another --output_dir")
    return Claim(path, tuple(found))


def _checkpoint(path: Path, resume: bool | str | os.PathLike[str] | None, checkpoints: list[Path]) -> Path | None:
    """The checkpoint to continue from, if any."""
    if resume is None or resume is False:
        return None
    if resume is True:
        if not checkpoints:
            raise SettingError(f"--resume_from_checkpoint: {path} holds no checkpoint; drop the flag to start afresh")
        return checkpoints[-1]
    start = Path(resume).expanduser()
    if not start.is_dir():
        raise SettingError(f"--resume_from_checkpoint {start}: no such directory")
    return start


def _is_run(file: Path) -> bool:
    try:
        return "xpo_version" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _unusable(path: Path, error: OSError) -> str:
    return f"{path}: {error.strerror or error}; free the way or write elsewhere"


@contextmanager
def forgotten_without_steps(path: Path, steps: Callable[[], int]) -> Iterator[None]:
    """Remove the record of a new run that fails before its first step is done: it would only bar the next try."""
    try:
        yield
    except BaseException:
        if is_main() and steps() == 0:
            with suppress(OSError):  # other files are there already, and stay
                (path / RUN).unlink()
                path.rmdir()
        raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well, and is removed otherwise."""
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, final)
    except OSError as error:
        raise SettingError(_unusable(final, error)) from error
    finally:
        with suppress(OSError):  # gone when all went well; whatever else is wrong has been raised above
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` whole or not at all, on rank 0 only."""
    if is_main():
        # A lone surrogate, which JSON input may hold, becomes its escape: what JSON itself would write.
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
