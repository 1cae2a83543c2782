"""Both packages as they are given to others: built, and installed into an environment of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import xpo
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def run(*words: str | Path, folder: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME", "XPO_PLUGINS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True)
    if "No matching distribution found for hatchling" in done.stdout + done.stderr:
        pytest.skip("there is no hatchling to build with, nor a network to fetch it from")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheels_work_where_the_checkout_is_not(tmp_path: Path) -> None:
    wheels, python = tmp_path / "wheels", tmp_path / "environment/bin/python"
    pip = (sys.executable, "-m", "pip")
    # Some backends leave things beside the source.
    shutil.copytree(ROOT / "plugins/template", tmp_path / "template")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT, folder=tmp_path)
    run(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, tmp_path / "template"),
        folder=tmp_path,
    )
    [own] = wheels.glob("xpo-*.whl")
    packed = set(zipfile.ZipFile(own).namelist())
    wanted = {
        str(path.relative_to(base))
        for base, package in ((ROOT, "xpo"), (ROOT / "plugins", "xpo_zoo"))
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= packed, sorted(wanted - packed)[:5]
    assert not [name for name in packed if name.startswith(("tests/", "template/", "plugins/", "docs/"))]

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment", folder=tmp_path)
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", *wheels.iterdir(), folder=tmp_path)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip()
    # torch and the rest are as they are in the environment of the tests. A plain line reaches the packages that lie
    # there, and not a checkout that is installed there in place.
    (Path(site) / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")

    command = python.with_name("xpo")
    assert run(python, "-c", "import xpo; print(xpo.__file__)", folder=tmp_path).startswith(site)
    assert run(command, "--version", folder=tmp_path) == f"xpo {xpo.__version__}\n"
    found = json.loads(run(command, "plugins", "--json", folder=tmp_path))
    assert found["failures"] == []
    assert [one["distribution"] for one in found["plugins"]] == ["xpo", "xpo", "dpo-shift"]
    assert "nothing wrong" in run(command, "check", "dpo_shift", folder=tmp_path)
    run(command, "new", "my_method", "--data", "labels", folder=tmp_path)  # its templates are in the wheel
    run(python, "-m", "pytest", "-q", "my-method", folder=tmp_path)
    short = ["--max_steps", "2", "--eval_prompts", "0", "--sample_completions", "0", "--output_dir", "out"]
    run(command, "train", "--algo", "dpo-shift:dpo_shift", *short, folder=tmp_path)
    assert json.loads((tmp_path / "out/run.json").read_text())["supplier"] == "dpo-shift 0.1.0"
