"""Packages that would take xpo with them: each is left out with a reason, and what is sound beside it stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import MakePackage
from tests.plugins.sources import HEAD, algorithm, hook, plugin
from xpo.cli import main
from xpo.plugins import load

SPEECHLESS = "class Speechless:\n    def __repr__(self): raise ValueError('no words')\n"

#: What it does -> module, what its entry point names, the part that is missing, and the reason.
HOSTILE = {
    "names an attribute that is not there": (plugin("wanted"), "bad:nothing", "import", "has no attribute 'nothing'"),
    "ends the process": ("import sys\nsys.exit(3)", "bad", "import", "SystemExit: 3"),
    "raises what is no Exception": (
        "class Boom(BaseException):\n    pass\nraise Boom('boom')",
        "bad",
        "import",
        "Boom: boom",
    ),
    "raises what cannot be shown": (
        "class Boom(Exception):\n    def __str__(self): raise ValueError\nraise Boom()",
        "bad",
        "import",
        "Boom",
    ),
    "raises over several lines": ("raise ValueError('one\\n  two')", "bad", "import", "ValueError: one two"),
    "is an object with a property that raises": (
        "class Plugin:\n    @property\n    def x(self): raise RuntimeError('property')\nplugin = Plugin()",
        "bad:plugin",
        "hooks",
        "RuntimeError: property",
    ),
    "returns what cannot be shown": (
        HEAD + SPEECHLESS + hook("Speechless()"),
        "bad",
        "xpo_algorithms",
        "ValueError: no words",
    ),
    "brings what cannot be shown": (
        HEAD + SPEECHLESS + hook("{'r': Speechless()}", "xpo_rewards"),
        "bad",
        "reward",
        "ValueError: no words",
    ),
    "is a generator": (
        HEAD + "@hookimpl\ndef xpo_algorithms():\n    yield 1",
        "bad",
        "xpo_algorithms",
        "it returned <g",
    ),
}
#: Member of a class that xpo shows or looks into -> the reason to refuse it.
MEMBERS = {
    "aliases = None": "Made.aliases is None; it must be a dictionary whose keys are texts",
    "metrics = {1: 'one'}": "Made.metrics is {1: 'one'}; it must be a dictionary whose keys are texts",
    "raises = 'chosen'": "Made.raises is 'chosen'; it must be a tuple of names, such as ('chosen',)",
    "columns = (1,)": "Made.columns is (1,); it must be a tuple of names",
    "model = 'rewrd'": "Made.model is 'rewrd'; it must be one of policy, reward, preference",
    "paper = Paper('None', None, 2024)": "it must be an xpo.Paper(title, url, year)",
    "summary = 'two\\nlines'": "it must be one line of text",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_left_out_and_its_neighbour_stays(package: MakePackage, case: str) -> None:
    module, entry, kind, reason = HOSTILE[case]
    package("good-package", {"good.py": plugin("good")}, {"good": "good"})
    package("bad-package", {"bad.py": module}, {"bad": entry})
    assert load().algorithm("good").supplier.distribution == "good-package"
    [failure] = load().failures
    assert (failure.supplier.distribution, failure.kind) == ("bad-package", kind)
    assert reason in failure.reason
    assert "\n" not in failure.reason


@pytest.mark.parametrize("member", MEMBERS)
def test_a_class_that_cannot_be_shown_is_refused(
    package: MakePackage, capsys: pytest.CaptureFixture[str], member: str
) -> None:
    package("bad-package", {"bad.py": plugin("wanted", body=f"    {member}")}, {"bad": "bad"})
    [failure] = load().failures
    assert (failure.kind, failure.name) == ("algorithm", "wanted")
    assert MEMBERS[member] in failure.reason
    assert main(["algos", "--json"]) == 0
    assert "wanted" not in [one["name"] for one in json.loads(capsys.readouterr().out)]


def test_a_hook_that_cannot_be_called_leaves_the_others(package: MakePackage) -> None:
    sound = hook("{'kept': len}", "xpo_rewards")
    package("some-package", {"some.py": HEAD + "@hookimpl\ndef xpo_judges(registry): ...\n" + sound}, {"some": "some"})
    assert "kept" in load().rewards
    assert [failure.kind for failure in load().failures] == ["hooks"]


def test_a_module_that_goes_elsewhere_takes_nobody_along(
    package: MakePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package("some-package", {"some.py": "import os\nos.chdir('/')\n" + plugin("wanted")}, {"some": "some"})
    assert "wanted" in load().algorithms
    assert Path.cwd() == tmp_path


def test_a_hook_may_have_arguments_with_defaults(package: MakePackage) -> None:
    module = HEAD + algorithm("wanted") + "@hookimpl\ndef xpo_algorithms(more=()):\n    return [Made, *more]\n"
    package("some-package", {"some.py": module}, {"some": "some"})
    assert "wanted" in load().algorithms
    assert not load().failures


def test_a_command_of_one_of_ours_is_listed_by_its_full_name(
    package: MakePackage, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = "{name: Command('x', lambda args: 7, lambda parser: None) for name in ('train', 'more')}"
    package("some-package", {"some.py": HEAD + hook(commands, "xpo_commands")}, {"some": "some"})
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["plugins"]
    [brought] = [one["brings"] for one in found if one["distribution"] == "some-package"]
    assert [one["name"] for one in brought] == ["some-package:train", "more"]
    assert main(["some-package:train"]) == main(["more"]) == 7
