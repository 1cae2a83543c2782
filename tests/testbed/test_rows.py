"""Rows are deterministic, disjoint between splits, and obey the knobs."""

from statistics import mean
from typing import Any

import pytest

from xpo.testbed import labeller, pool, world
from xpo.testbed.knobs import Knobs, parse
from xpo.testbed.reward import reward, words


def said(messages: list[dict[str, str]], role: str) -> str:
    (message,) = messages
    assert message["role"] == role
    return message["content"]


def gap(row: dict[str, Any]) -> float:
    prompt = said(row["prompt"], "user")
    chosen, rejected = (said(row[side], "assistant") for side in ("chosen", "rejected"))
    return reward(prompt, chosen) - reward(prompt, rejected)


@pytest.mark.parametrize("kind", pool.KINDS)
def test_the_same_arguments_give_the_same_rows(kind: str) -> None:
    assert pool.rows(kind, "test", Knobs(seed=3)) == pool.rows(kind, "test", Knobs(seed=3))
    assert pool.rows(kind, "test", Knobs(seed=3)) != pool.rows(kind, "test", Knobs(seed=4))


@pytest.mark.parametrize("kind", pool.KINDS)
def test_splits_share_no_prompt(kind: str) -> None:
    prompts = {split: {said(r["prompt"], "user") for r in pool.rows(kind, split)} for split in world.SPLITS}
    assert all(prompts.values())
    assert not prompts["train"] & (prompts["validation"] | prompts["test"])
    assert not prompts["validation"] & prompts["test"]


def test_splits_share_no_topic() -> None:
    topic_of = {prompt: topic for topic in world.topics() for prompt in topic.prompts()}
    topics = {split: {topic_of[row.prompt] for row in pool.pool() if row.split == split} for split in world.SPLITS}
    assert not topics["train"] & (topics["validation"] | topics["test"])
    assert not topics["validation"] & topics["test"]


def test_the_pool_is_the_size_it_claims() -> None:
    counts = {split: len(pool.rows("prompts", split)) for split in world.SPLITS}
    assert counts["train"] >= 1990
    assert counts["validation"] >= 195
    assert counts["test"] >= 195


@pytest.mark.parametrize("kind", pool.KINDS)
def test_a_smaller_size_is_a_prefix(kind: str) -> None:
    few, more = (pool.rows(kind, "train", Knobs(size=size, temperature=0)) for size in (20, 40))
    columns = ("prompt", "chosen", "completion", "completions", "scores", "split")
    assert 0 < len(few) < len(more)
    assert [{c: r.get(c) for c in columns} for r in few] == [{c: r.get(c) for c in columns} for r in more[: len(few)]]


def test_unfinished_and_repeated_completions_are_left_out() -> None:
    row = pool.Row("train", "p", ("a.", "a.", "b.", "c"), (True, True, True, False))
    assert row.usable() == ["a.", "b."]
    assert all(row["chosen"] != row["rejected"] for row in pool.rows("pairs"))


def test_the_labeller_is_mostly_right_and_at_zero_temperature_always() -> None:
    gaps = [gap(row) for row in pool.rows("pairs") if gap(row)]
    assert 0.75 < mean(value > 0 for value in gaps) < 0.9
    assert all(gap(row) >= 0 for row in pool.rows("pairs", knobs=Knobs(temperature=0)))


def test_comparisons_follow_bradley_terry() -> None:
    """Among pairs with about one gap in reward, the better wins about as often as the sigmoid says."""
    knobs = [Knobs(seed=seed, size=1000) for seed in range(4)]
    gaps = [gap(row) for knob in knobs for row in pool.rows("pairs", knobs=knob)]
    near = [value > 0 for value in gaps if 0.4 < abs(value) < 0.6]
    assert len(near) > 200
    assert mean(near) == pytest.approx(0.731, abs=0.06)  # sigmoid(0.5 / 0.5)


@pytest.mark.parametrize("kind", ["pairs", "labels", "lists"])
def test_noise_turns_about_that_share_and_more_noise_keeps_the_flips_of_less(kind: str) -> None:
    column = {"pairs": "chosen", "labels": "label", "lists": "scores"}[kind]
    clean, some, more = (
        [row[column] for row in pool.rows(kind, knobs=Knobs(noise=noise))] for noise in (0.0, 0.2, 0.3)
    )
    turned = {number for number, value in enumerate(some) if value != clean[number]}
    turned_more = {number for number, value in enumerate(more) if value != clean[number]}
    assert len(turned) / len(clean) == pytest.approx(0.2, abs=0.03)
    assert len(turned_more) / len(clean) == pytest.approx(0.3, abs=0.03)
    assert turned < turned_more


def test_a_noisy_list_is_the_clean_one_in_reverse() -> None:
    clean, noisy = (pool.rows("lists", "test", Knobs(noise=noise)) for noise in (0.0, 1.0))
    for a, b in zip(clean, noisy, strict=True):
        places = range(len(a["scores"]))
        assert sorted(places, key=a["scores"].__getitem__) == sorted(places, key=b["scores"].__getitem__)[::-1]


def test_length_bias_makes_winners_longer() -> None:
    def longer(bias: float) -> float:
        rows = pool.rows("pairs", knobs=Knobs(length_bias=bias))
        return mean(
            len(words(said(r["chosen"], "assistant"))) - len(words(said(r["rejected"], "assistant"))) for r in rows
        )

    assert longer(-0.2) < longer(0) - 2 < longer(0) + 2 < longer(0.2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_desirable_share_holds(share: float) -> None:
    rows = pool.rows("labels", knobs=Knobs(desirable=share))
    assert mean(row["label"] for row in rows) == pytest.approx(share, abs=0.001)


def test_desirable_completions_are_better() -> None:
    rows = pool.rows("labels")
    scored = [(row["label"], reward(said(row["prompt"], "user"), said(row["completion"], "assistant"))) for row in rows]
    assert mean(r for label, r in scored if label) > mean(r for label, r in scored if not label) + 0.5


def test_pairs_labels_and_lists_report_one_labeller() -> None:
    pairs, labels, lists = (pool.rows(kind, "test", Knobs(list_size=2)) for kind in ("pairs", "labels", "lists"))
    halves = zip(labels[::2], labels[1::2], strict=True)
    for pair, both, ranked in zip(pairs, halves, lists, strict=True):
        best = ranked["completions"][ranked["scores"].index(max(ranked["scores"]))]
        assert best == pair["chosen"]
        liked = {said(row["completion"], "assistant"): row["label"] for row in both}
        chosen, rejected = (said(pair[side], "assistant") for side in ("chosen", "rejected"))
        assert liked[chosen] >= liked[rejected]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_list_size(size: int) -> None:
    rows = pool.rows("lists", "test", Knobs(list_size=size))
    assert max(len(row["completions"]) for row in rows) == size
    assert all(len(row["completions"]) == len(row["scores"]) for row in rows)


def test_forget_rows_name_the_subjects_to_forget() -> None:
    rows = pool.rows("forget")
    for row in rows:
        forgotten = any(subject in words(said(row["prompt"], "user")) for subject in world.FORGET)
        assert row["split"] == ("forget" if forgotten else "retain")
    assert mean(row["split"] == "forget" for row in rows) == 0.25


def test_draws_are_uniform() -> None:
    draws = sorted(labeller.uniform("anything", number) for number in range(2000))
    assert 0 < draws[0] < draws[-1] < 1
    assert max(abs(draw - (number + 0.5) / 2000) for number, draw in enumerate(draws)) < 0.04


def test_specs() -> None:
    assert parse("testbed") == Knobs()
    assert parse("testbed:") == Knobs()
    spec = "testbed:noise=0.3, length_bias=-0.1,size=500,seed=1"
    assert parse(spec) == Knobs(noise=0.3, length_bias=-0.1, size=500, seed=1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("testbed:nose=0.3", "unknown knob 'nose'; the knobs are noise, length_bias,"),
        ("testbed:noise", "noise=VALUE"),
        ("testbed:noise=0.1,noise=0.2", "once"),
        ("testbed:noise=much", "noise=much is not a number"),
        ("testbed:size=1.5", "size=1.5 is not a whole number"),
        ("testbed:noise=2", "noise is 2.0; it must be a share from 0 to 1"),
        ("testbed:temperature=nan", "temperature is nan"),
        ("testbed:size=0", "size is 0"),
        ("testbed:list_size=5", "from 2 to 4"),
        ("testbed:desirable=1", "above 0 and below 1"),
        ("other", "does not start with"),
    ],
)
def test_bad_specs_say_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(spec)


@pytest.mark.parametrize(
    ("kind", "split", "message"), [("pear", "train", "pairs, labels"), ("pairs", "dev", "train, v")]
)
def test_unknown_kinds_and_splits_list_the_known(kind: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool.rows(kind, split)
