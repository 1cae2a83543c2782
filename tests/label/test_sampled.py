"""Prompts become data: samples, scores and rows, held against the sampler and arithmetic on its own."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.label.conftest import Label
from xpo.api.groups import Completion, Group
from xpo.data.prepare import prepare
from xpo.data.sources import read
from xpo.feedback.sampling import Sampling, sample
from xpo.label.labelling import STREAM

PROMPTS = [{"prompt": f"w{number} w3", "answer": f"w{number}"} for number in range(6)]
FEW = "--max_completion_length 8 --num_generations 4"


#: Tokens that are no special ones, which no text shows.
WORDS = range(37)


def drawn(samples: int = 4, tokens: int = 8, **how: Any) -> list[list[Completion]]:
    """What the sampler draws for ``PROMPTS``."""
    tokenizer = tiny.tokenizer()
    groups = [Group(tokenizer(row["prompt"])["input_ids"], row=number) for number, row in enumerate(PROMPTS)]
    return sample(tiny.model(), tokenizer, groups, Sampling(samples, tokens, **how), stream=STREAM)


def said(completion: Completion) -> str:
    return "".join(f" {tiny.WORDS[token]}" for token in completion.ids if token in WORDS)


def words(completion: Completion) -> int:
    return len(said(completion).split())


def test_pairs_are_the_best_and_the_worst_of_the_samplers_samples(label: Label, model: Path, mine: str) -> None:
    done = label(f"{FEW} --model", model, "--reward", f"{mine}:length", data=PROMPTS)
    assert done.status == 0, done.err
    expected = []
    for row, samples in enumerate(drawn()):
        ranked = [number for number, one in enumerate(samples) if said(one)]
        best = max(ranked, key=lambda number, some=samples: words(some[number]))
        worst = min(ranked, key=lambda number, some=samples: words(some[number]))
        high, low = words(samples[best]), words(samples[worst])
        if high > low:
            texts, ended = (said(samples[best]), said(samples[worst])), (samples[best], samples[worst])
            expected.append((row, *texts, high, low, [best, worst], *(one.finished for one in ended)))
    found = [
        (
            *(one["row"], one["chosen"], one["rejected"], one["score_chosen"], one["score_rejected"], one["samples"]),
            *(one["finished_chosen"], one["finished_rejected"]),
        )
        for one in done.rows
    ]
    assert len(expected) > 3
    assert found == expected
    for one in done.rows:
        gap = one["score_chosen"] - one["score_rejected"]
        assert one["p_chosen"] == pytest.approx(1 / (1 + math.exp(-gap)))
        assert one["prompt"] == PROMPTS[one["row"]]["prompt"]
        assert one["answer"] == PROMPTS[one["row"]]["answer"]


def test_where_the_rows_are_from(label: Label, model: Path, mine: str) -> None:
    import xpo

    done = label(f"{FEW} --temperature 0.9 --seed 3 --model", model, "--judge", f"{mine}:shorter", data=PROMPTS)
    known = {"model", "judge", "temperature", "seed", "xpo_version"}
    assert {tuple(sorted((key, row[key]) for key in known)) for row in done.rows} == {
        tuple(
            sorted(
                {
                    "model": str(model),
                    "judge": f"{mine}:shorter",
                    "temperature": 0.9,
                    "seed": 3,
                    "xpo_version": xpo.__version__,
                }.items()
            )
        )
    }
    assert "rewards" not in done.rows[0]
    assert done.rows[0]["chosen"] in {said(one) for one in drawn(temperature=0.9, seed=3)[done.rows[0]["row"]]}


def test_text_goes_on_with_the_prompt_as_the_tokens_did(label: Label, model: Path, mine: str) -> None:
    """A tokenizer that drops the space in front of a text must not glue a completion to its prompt."""
    done = label(f"{FEW} --to lists --model", model, "--reward", f"{mine}:length", data=PROMPTS)
    groups = prepare(read(str(done.path)), "lists", tiny.tokenizer(), max_length=None).groups
    samples = drawn()
    assert len(groups) > 3
    for group, row in zip(groups, done.rows, strict=True):
        for one, number in zip(group.completions, row["samples"], strict=True):
            assert one.ids == [*(token for token in samples[row["row"]][number].ids if token in WORDS), tiny.EOS]


def test_lists_hold_all_that_say_anything(label: Label, model: Path, mine: str) -> None:
    done = label(f"{FEW} --to lists --model", model, "--reward", f"{mine}:length", data=PROMPTS)
    for row in done.rows:
        samples = drawn()[row["row"]]
        kept = [number for number, one in enumerate(samples) if said(one)]
        assert row["samples"] == kept
        assert row["completions"] == [said(samples[number]) for number in kept]
        assert row["scores"] == [words(samples[number]) for number in kept]
        assert row["finished"] == [samples[number].finished for number in kept]


@pytest.mark.parametrize("threshold", [None, 3.0])
def test_labels(label: Label, model: Path, mine: str, threshold: float | None) -> None:
    bar = [] if threshold is None else ["--label_threshold", str(threshold)]
    done = label(f"{FEW} --to labels --model", model, "--reward", f"{mine}:length", *bar, data=PROMPTS)
    expected = []
    for row, samples in enumerate(drawn()):
        counted = {number: words(one) for number, one in enumerate(samples) if said(one)}
        if len(counted) < 2 or (threshold is None and len(set(counted.values())) == 1):
            continue
        limit = sum(counted.values()) / len(counted) if threshold is None else threshold
        expected += [(row, number, count, count > limit) for number, count in counted.items()]
    assert [(one["row"], one["sample"], one["score"], one["label"]) for one in done.rows] == expected
    assert {one["label"] for one in done.rows} == {True, False}
    assert len(prepare(read(str(done.path)), "labels", tiny.tokenizer(), max_length=None).groups) == len(expected)


def test_a_judge_is_asked_once_about_every_two_and_gives_soft_labels(label: Label, model: Path, mine: str) -> None:
    done = label(f"{FEW} --online_pairs all --model", model, "--judge", f"{mine}:shorter", data=PROMPTS)
    assert done.status == 0, done.err
    asked = Path(mine).with_name("asked.txt").read_text().splitlines()
    expected = 0
    for row, samples in enumerate(drawn()):
        kept = [one for one in samples if said(one)]
        expected += sum(said(one) != said(two) for one, two in combinations(kept, 2))
        lengths = {number: words(one) for number, one in enumerate(samples) if said(one)}
        wins = {
            own: sum(theirs / (mine_ + theirs) for other, theirs in lengths.items() if other != own)
            / (len(lengths) - 1)
            for own, mine_ in lengths.items()
        }
        for one in (one for one in done.rows if one["row"] == row):
            chosen, rejected = one["samples"]
            assert one["score_chosen"] == pytest.approx(wins[chosen])
            assert one["score_rejected"] == pytest.approx(wins[rejected])
            # Of the two themselves, and not of the means over all.
            assert one["p_chosen"] == pytest.approx(lengths[rejected] / (lengths[chosen] + lengths[rejected]))
    assert len(asked) == expected
    assert any(one["p_chosen"] != pytest.approx(one["score_chosen"]) for one in done.rows)
    assert f"the judge was asked {expected} questions" in done.out


def test_soft_labels_know_the_penalty_of_what_was_cut(label: Label, model: Path, mine: str) -> None:
    """With two samples the score of the chosen is the probability of that pair, penalty and all."""
    prompts = [{"prompt": f"w{number} w4"} for number in range(24)]
    line = "--max_completion_length 10 --num_generations 2 --missing_eos_penalty 0.7 --model"
    done = label(line, model, "--judge", f"{mine}:shorter", data=prompts)
    mixed = [row for row in done.rows if row["finished_chosen"] != row["finished_rejected"]]
    assert mixed
    for row in done.rows:
        assert row["p_chosen"] == pytest.approx(row["score_chosen"])
        assert row["p_chosen"] >= 0.5
    one = mixed[0]
    short, long = len(one["chosen"].split()), len(one["rejected"].split())
    odds = math.log(long / short) + 0.7 * (one["finished_chosen"] - one["finished_rejected"])
    assert one["p_chosen"] == pytest.approx(1 / (1 + math.exp(-odds)))


def test_conversations(label: Label, chat_model: Path, mine: str) -> None:
    prompts = [{"prompt": [{"role": "user", "content": f"w{number}"}]} for number in range(4)]
    done = label(f"{FEW} --model", chat_model, "--judge", f"{mine}:shorter", data=prompts)
    assert done.status == 0, done.err
    for row in done.rows:
        assert row["prompt"] == prompts[row["row"]]["prompt"]
        assert [message["role"] for message in (*row["chosen"], *row["rejected"])] == ["assistant"] * 2
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (chat_model / "chat_template.jinja").read_text()
    assert len(prepare(read(str(done.path)), "pairs", tokenizer, max_length=None).groups) == len(done.rows)


def test_conversations_need_a_template(label: Label, model: Path, mine: str) -> None:
    prompts = [{"prompt": [{"role": "user", "content": "w1"}]}]
    done = label("--model", model, "--judge", f"{mine}:shorter", data=prompts)
    assert (done.status, done.path.exists()) == (2, False)
    assert "no chat template" in done.err


@pytest.mark.parametrize(
    ("judge", "reason"),
    [("--judge {}:silent", "no verdict"), ("--judge {}:even", "tied"), ("--reward {}:flat", "tied")],
)
def test_prompts_that_bring_nothing_are_counted(label: Label, model: Path, mine: str, judge: str, reason: str) -> None:
    done = label(f"{FEW} {judge.format(mine)} --model", model, data=PROMPTS)
    assert done.status == 1
    assert done.rows == []
    full = sum(sum(bool(said(one)) for one in samples) > 1 for samples in drawn())
    assert done.beside["outcome"]["nothing"][reason] == full
    assert f"{full} {reason}" in done.out
    assert done.beside["done"] == len(PROMPTS)


def test_a_prompt_that_leaves_no_room_is_not_sampled_for(label: Label, model: Path, mine: str) -> None:
    prompts = [{"prompt": " ".join(["w1"] * 121)}, {"prompt": " ".join(["w1"] * 120)}, *PROMPTS]
    done = label(f"{FEW} --reward {mine}:length --model", model, data=prompts)
    assert done.beside["outcome"]["nothing"]["prompt too long for the model"] == 1
    assert done.beside["outcome"]["samples"] == 4 * (len(prompts) - 1)
    assert 0 not in {row["row"] for row in done.rows}


def test_columns_come_along_unless_they_contradict(label: Label, model: Path, mine: str) -> None:
    prompts = [{**row, "score_chosen": 9, "margin": 4, "row": "mine", "topic": "é\u2028"} for row in PROMPTS]
    done = label(f"{FEW} --reward {mine}:length --model", model, data=prompts)
    assert "score_chosen, margin, row" in done.err
    assert all("margin" not in row and row["score_chosen"] != 9 for row in done.rows)
    assert [row["topic"] for row in read(str(done.path)).rows] == ["é\u2028"] * len(done.rows)


def test_samples_do_not_depend_on_batches(label: Label, model: Path, mine: str) -> None:
    files = [
        label(f"{FEW} --reward {mine}:length --batch_size {size} --model", model, data=PROMPTS, out=f"{size}.jsonl")
        for size in (1, 4, 8)
    ]
    assert len({done.path.read_bytes() for done in files}) == 1


def test_what_was_cut_is_said(label: Label, model: Path, mine: str) -> None:
    done = label(f"--max_completion_length 3 --reward {mine}:length --model", model, data=PROMPTS)
    samples = [one for some in drawn(tokens=3) for one in some]
    cut, empty = sum(not one.finished for one in samples), sum(not said(one) for one in samples)
    assert cut
    assert empty
    assert f"{cut} of them were cut off" in done.out
    assert f"{empty} of them say nothing and were left out" in done.out
    assert f"{len(samples)} completions sampled, {sum(len(one.ids) for one in samples)} tokens" in done.out
    assert not any(row["chosen"] == "" or row["rejected"] == "" for row in done.rows)


def test_the_winners_length(label: Label, model: Path, mine: str) -> None:
    done = label(f"{FEW} --reward {mine}:length --model", model, data=PROMPTS)
    samples = drawn()
    gaps = [
        len(samples[row["row"]][best].ids) - len(samples[row["row"]][worst].ids)
        for row in done.rows
        for best, worst in [row["samples"]]
    ]
    unequal = [gap for gap in gaps if gap]
    share, mean = sum(gap > 0 for gap in unequal) / len(unequal), sum(gaps) / len(gaps)
    assert f"longer than the worst in {share:.0%} of {len(unequal)} prompts; it is {mean:.1f} tokens longer" in done.out


def test_the_policy_may_judge_itself(label: Label, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "xpo.feedback.language_model.LanguageModel.bind", lambda self, bound, tokenizer: seen.append(bound)
    )
    done = label(f"{FEW} --judge self --model", model, data=PROMPTS[:1])
    assert done.status == 2  # nothing was bound
    [bound] = seen
    expected = tiny.model().state_dict()
    assert all((bound.state_dict()[name] == weight).all() for name, weight in expected.items())
