"""What a name means does not depend on what else is installed."""

from __future__ import annotations

import pytest

from tests.conftest import MakePackage
from tests.plugins.sources import HEAD, algorithm, hook, plugin
from xpo.cli.plugins import as_json
from xpo.errors import PluginError
from xpo.plugins import load


def make(package: MakePackage, distribution: str, source: str) -> None:
    module = distribution.replace("-", "_")
    package(distribution, {f"{module}.py": source}, {"point": module})


def zoo(package: MakePackage, source: str) -> None:
    """Stand in for xpo's own package."""
    package("xpo", {"own_zoo.py": source}, {"zoo": "own_zoo"})


def test_a_stranger_is_reachable_by_both_names_and_listed_once(package: MakePackage) -> None:
    make(package, "Some_Package", plugin("new"))
    registry = load()
    assert registry.algorithm("new") is registry.algorithm("some-package:new")
    assert str(registry.algorithm("new").supplier) == "some-package 1.0"
    assert registry.listed("algorithm").count("new") == 1
    assert "some-package:new" not in registry.listed("algorithm")


def test_a_stranger_cannot_take_a_name_of_the_zoo(package: MakePackage) -> None:
    zoo(package, plugin("taken"))
    make(package, "aaa", plugin("taken"))
    registry = load()
    assert registry.algorithm("taken").supplier.distribution == "xpo"
    assert registry.algorithm("aaa:taken").supplier.distribution == "aaa"
    assert registry.listed("algorithm") == ["taken", "aaa:taken"]
    assert not registry.failures


def test_two_strangers_with_one_name_are_both_qualified(package: MakePackage) -> None:
    make(package, "aaa", plugin("twice"))
    make(package, "bbb", plugin("twice"))
    registry = load()
    assert registry.algorithm("aaa:twice").cls is not registry.algorithm("bbb:twice").cls
    with pytest.raises(PluginError, match="say which: aaa:twice, bbb:twice"):
        registry.algorithm("twice")


def test_one_package_cannot_use_a_name_twice(package: MakePackage) -> None:
    source = HEAD + algorithm("twice", cls="First") + algorithm("twice", cls="Second") + hook("[First, Second]")
    make(package, "aaa", source)
    registry = load()
    assert registry.algorithm("twice").cls.__name__ == "First"
    assert ["already brings one" in failure.reason for failure in registry.failures] == [True]


def test_an_unknown_name_gets_a_suggestion(package: MakePackage) -> None:
    zoo(package, plugin("hinge"))
    with pytest.raises(PluginError, match=r"Did you mean 'hinge'\? `xpo algos` lists all of them\."):
        load().algorithm("hinje")


def test_the_other_hooks_follow_the_same_rules(package: MakePackage) -> None:
    rewards, datasets = hook("{'r': len}", "xpo_rewards"), hook("{'d': print}", "xpo_datasets")
    commands = hook("{'c': Command('does nothing', lambda args: 0)}", "xpo_commands")
    ranker = "\nclass Ranker:\n    def judge(self, prompts, completions, shuffle_order): return []\n"
    judges = ranker + hook("{'j': len, 'ranker': Ranker()}", "xpo_judges")
    make(package, "aaa", HEAD + rewards + datasets + commands + judges)
    make(package, "bbb", HEAD + rewards + hook("{'j': max}", "xpo_judges"))
    registry = load()
    assert (registry.judges["aaa:j"], registry.judges["bbb:j"]) == (len, max)
    assert "j" not in registry.judges
    assert registry.judges["ranker"] is registry.judges["aaa:ranker"]
    listed = [found for one in as_json(registry)["plugins"] for found in one["brings"] if found["kind"] == "judge"]
    assert [found["name"] for found in listed] == ["aaa:j", "ranker", "bbb:j"]
    assert registry.rewards["bbb:r"] is len
    assert "r" not in registry.rewards
    assert registry.commands["c"].help == "does nothing"
    assert registry.dataset("d:noise=0.3") == (print, "d:noise=0.3")
    assert registry.dataset("aaa:d:noise=0.3") == (print, "d:noise=0.3")
    assert registry.dataset("owner/name") is None


def test_a_data_set_that_two_packages_bring_is_not_guessed(package: MakePackage) -> None:
    for name in ("aaa", "bbb"):
        make(package, name, HEAD + hook("{'d': print}", "xpo_datasets"))
    with pytest.raises(PluginError, match="say which: aaa:d, bbb:d"):
        load().dataset("d:noise=0.3")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("", {"own"}), ("aaa", {"own", "a", "aaa:a"}), ("point-b", {"own", "b", "bbb:b"}), ("aaa, bbb", None)],
)
def test_loading_can_be_limited(
    package: MakePackage, monkeypatch: pytest.MonkeyPatch, limit: str, expected: set[str] | None
) -> None:
    zoo(package, plugin("own"))
    package("aaa", {"aaa.py": plugin("a")}, {"point-a": "aaa"})
    package("bbb", {"bbb.py": plugin("b")}, {"point_b": "bbb"})
    monkeypatch.setenv("XPO_PLUGINS", limit)
    assert set(load().algorithms) == (expected or {"own", "a", "aaa:a", "b", "bbb:b"})
    assert not load().failures


def test_a_limit_that_names_nothing_is_a_failure(package: MakePackage, monkeypatch: pytest.MonkeyPatch) -> None:
    package("hinge", {"hinge.py": plugin("a")}, {"point": "hinge"})
    monkeypatch.setenv("XPO_PLUGINS", "hinje")
    assert [failure.reason for failure in load().failures] == [
        "no package or entry point 'hinje' is installed. Did you mean 'hinge'?"
    ]
