"""``accelerate launch --num_processes N`` starts one process on a CPU; xpo starts the others or says how."""

from __future__ import annotations

import sys

import pytest
import torch

from xpo.cli import launch
from xpo.errors import SettingError

ANNOUNCED = {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


class Replaced(Exception):
    """This process would have become another one."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*ANNOUNCED, *RANKS):
        monkeypatch.delenv(name, raising=False)

    def become(program: str, words: list[str]) -> None:
        raise Replaced(program, words)

    monkeypatch.setattr("os.execv", become)
    return monkeypatch


def started_by(patch: pytest.MonkeyPatch, line: str) -> None:
    for name, value in ANNOUNCED.items():
        patch.setenv(name, value)
    patch.setattr(launch, "_parent", line.split)


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        (ANNOUNCED, True),
        ({**ANNOUNCED, "ACCELERATE_USE_CPU": "1"}, True),
        ({**ANNOUNCED, "ACCELERATE_USE_CPU": "TRUE"}, True),
        ({**ANNOUNCED, "ACCELERATE_USE_CPU": "False"}, True),  # without --cpu it starts one all the same
        ({"MASTER_ADDR": "127.0.0.1"}, False),
        ({"ACCELERATE_USE_CPU": "true"}, False),  # a single process needs no address
        ({}, False),
        *(({**ANNOUNCED, rank: "0"}, False) for rank in RANKS),
    ],
)
def test_a_process_knows_whether_it_was_left_alone(environment: dict[str, str], alone: bool) -> None:
    assert launch._alone(environment) is alone


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("accelerate launch --cpu --num_processes 2 -m xpo train", 2),
        ("accelerate launch --cpu --num-processes 3 -m xpo train", 3),
        ("accelerate launch --num_processes=4 --cpu -m xpo", 4),
        ("accelerate launch --num-processes=5 --cpu -m xpo", 5),
        ("accelerate launch --cpu -m xpo train", None),
        ("accelerate launch --num_processes", None),
        ("accelerate launch --num_processes two", None),
        ("accelerate launch --num_processes=", None),
        ("accelerate launch --num_machines 2", None),
        ("", None),
    ],
)
def test_the_announced_number_is_read(line: str, count: int | None) -> None:
    assert launch._announced(line.split()) == count


def test_nothing_happens_to_a_process_that_is_not_alone(environment: pytest.MonkeyPatch) -> None:
    launch.ensure_processes(["--algo", "dpo"])
    started_by(environment, "accelerate launch --cpu --num_processes 2 -m xpo")
    environment.setenv("RANK", "1")
    launch.ensure_processes(["--algo", "dpo"])


def test_one_announced_process_is_all_there_is(environment: pytest.MonkeyPatch) -> None:
    started_by(environment, "accelerate launch --cpu --num_processes 1 -m xpo train")
    launch.ensure_processes(["--algo", "dpo"])


def test_several_are_started(environment: pytest.MonkeyPatch) -> None:
    started_by(environment, "accelerate launch --cpu --num_processes 2 -m xpo train")
    with pytest.raises(Replaced) as replaced:
        launch.ensure_processes(["--algo", "dpo", "--output_dir", "a place"])
    program, words = replaced.value.args
    assert program == words[0] == sys.executable
    assert words[1:3] == ["-m", "torch.distributed.run"]
    options = dict(zip(words[3:9:2], words[4:9:2], strict=True))
    assert options == {"--nproc_per_node": "2", "--master_addr": "127.0.0.1", "--master_port": "29501"}
    assert words[9:] == ["-m", "xpo", "train", "--algo", "dpo", "--output_dir", "a place"]


@pytest.mark.parametrize("accelerator", [False, True])
def test_without_word_of_the_cpu_they_are_started_where_there_is_nothing_else(
    environment: pytest.MonkeyPatch, accelerator: bool
) -> None:
    started_by(environment, "accelerate launch --num_processes 2 -m xpo train")
    environment.setenv("ACCELERATE_USE_CPU", "False")
    environment.setattr(torch.accelerator, "is_available", lambda: accelerator)
    if not accelerator:
        with pytest.raises(Replaced):
            launch.ensure_processes(["--algo", "dpo"])
        return
    with pytest.raises(SettingError, match="announced 2 processes and started one; give it --multi_gpu"):
        launch.ensure_processes(["--algo", "dpo"])


def test_an_unknown_number_is_refused(environment: pytest.MonkeyPatch) -> None:
    started_by(environment, "bash wrapper.sh")
    with pytest.raises(SettingError) as error:
        launch.ensure_processes(["--algo", "dpo"])
    assert "torchrun --nproc_per_node N -m xpo train --algo dpo" in str(error.value)


def test_the_parent_is_the_process_that_started_this_one() -> None:
    words = launch._parent()
    assert all(isinstance(word, str) for word in words)
