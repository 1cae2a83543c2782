"""The shipped pool of on-policy completions, and the rows of preference data drawn from it.

``pool.jsonl.gz`` holds prompts with four completions each, sampled from the start model. It stores no reward and no
label: both are computed, so a change of knobs needs no new pool.
"""

import gzip
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from xpo.testbed.knobs import Knobs
from xpo.testbed.labeller import mistaken, order, uniform, view
from xpo.testbed.world import FORGET, SPLITS, facts


@dataclass(frozen=True)
class Row:
    """A prompt and what the start model said, in four tries."""

    split: str
    prompt: str
    completions: tuple[str, ...]
    ended: tuple[bool, ...]

    def usable(self) -> list[str]:
        """The distinct completions that ended by themselves: to close a cut one with EOS would teach a wrong stop."""
        return list(dict.fromkeys(c for c, ended in zip(self.completions, self.ended, strict=True) if ended))


def model_path() -> Path:
    """The folder of the start model and its tokenizer, for ``from_pretrained``."""
    return Path(str(files("xpo.testbed") / "files"))


def write(path: Path, pool: Iterable[Row]) -> None:
    # mtime=0 and no name: the same pool is the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        for row in pool:
            record = {"split": row.split, "prompt": row.prompt, "completions": row.completions, "ended": row.ended}
            out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


@cache
def pool() -> tuple[Row, ...]:
    """The shipped pool, all splits."""
    with gzip.open(model_path() / "pool.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return tuple(Row(r["split"], r["prompt"], tuple(r["completions"]), tuple(r["ended"])) for r in records)


def rows(kind: str, split: str = "train", knobs: Knobs | None = None) -> list[dict[str, Any]]:
    """The testbed's data of one kind, in TRL's conversational format; the same arguments give the same rows.

    ========= ========================================================== =========================
    kind      columns                                                    rows
    ========= ========================================================== =========================
    pairs     prompt, chosen, rejected, score_chosen, score_rejected     one a prompt
              (how likely the labeller is to prefer it), gold (the best)
    labels    prompt, completion, label (bool)                           two a prompt: the pair's
    lists     prompt, completions (list_size), scores (higher is better) one a prompt
    forget    prompt, completion, split ("forget" or "retain")           one a fact and wording
    demonstrations  prompt, completion: the best                         one a prompt
    prompts   prompt                                                     one a prompt
    ========= ========================================================== =========================
    """
    knobs = knobs or Knobs()
    if kind not in KINDS:
        raise ValueError(f"testbed: no kind of data {kind!r}; the kinds are {', '.join(KINDS)}")
    if split not in SPLITS:
        raise ValueError(f"testbed: no split {split!r}; the splits are {', '.join(SPLITS)}")
    return KINDS[kind](split, knobs)


def _drawn(split: str, knobs: Knobs) -> list[tuple[str, list[str]]]:
    """Prompts in the seed's order, each with its usable completions in an order that says nothing of their worth."""
    found = [(row.prompt, row.usable()) for row in pool() if row.split == split]
    found = sorted((item for item in found if len(item[1]) > 1), key=lambda item: order(item[0], knobs))
    return [
        (prompt, sorted(said, key=lambda text: uniform("pick", knobs.seed, prompt, text)))
        for prompt, said in found[: knobs.size]
    ]


def _pairs(split: str, knobs: Knobs) -> list[dict[str, Any]]:
    result = []
    for prompt, said in _drawn(split, knobs):
        rejected, chosen = sorted(said[:2], key=lambda text: view(prompt, text, knobs))
        if mistaken("pairs", prompt, knobs):
            rejected, chosen = chosen, rejected
        lead = view(prompt, chosen, knobs) - view(prompt, rejected, knobs)
        preferred = 1.0 / (1.0 + math.exp(-lead))
        result.append(
            {
                "prompt": _user(prompt),
                "chosen": _assistant(chosen),
                "rejected": _assistant(rejected),
                "score_chosen": preferred,
                "score_rejected": 1.0 - preferred,
                "gold": _assistant(_best(prompt, said, knobs)),
            }
        )
    return result


def _demonstrations(split: str, knobs: Knobs) -> list[dict[str, Any]]:
    return [
        {"prompt": _user(prompt), "completion": _assistant(_best(prompt, said, knobs))}
        for prompt, said in _drawn(split, knobs)
    ]


def _best(prompt: str, said: list[str], knobs: Knobs) -> str:
    return max(said, key=lambda text: view(prompt, text, knobs))


def _labels(split: str, knobs: Knobs) -> list[dict[str, Any]]:
    items = [(prompt, text) for prompt, said in _drawn(split, knobs) for text in said[:2]]
    views = [view(prompt, text, knobs) for prompt, text in items]
    # A rank, not a threshold, so that the share holds exactly.
    wanted = round(knobs.desirable * len(items))
    best = set(sorted(range(len(items)), key=lambda number: -views[number])[:wanted])
    return [
        {
            "prompt": _user(prompt),
            "completion": _assistant(text),
            "label": (number in best) != mistaken("labels", prompt + text, knobs),
        }
        for number, (prompt, text) in enumerate(items)
    ]


def _lists(split: str, knobs: Knobs) -> list[dict[str, Any]]:
    result = []
    for prompt, said in _drawn(split, knobs):
        texts = said[: knobs.list_size]
        scores = [view(prompt, text, knobs) for text in texts]
        if mistaken("lists", prompt, knobs):
            scores = [max(scores) + min(scores) - score for score in scores]
        result.append({"prompt": _user(prompt), "completions": [_assistant(text) for text in texts], "scores": scores})
    return result


def _forget(split: str, knobs: Knobs) -> list[dict[str, Any]]:
    known = sorted(facts(split), key=lambda fact: order(fact.prompt, knobs))
    return [
        {
            "prompt": _user(fact.prompt),
            "completion": _assistant(fact.completion),
            "split": "forget" if fact.subject in FORGET else "retain",
        }
        for fact in known[: knobs.size]
    ]


def _prompts(split: str, knobs: Knobs) -> list[dict[str, Any]]:
    return [{"prompt": _user(prompt)} for prompt, _ in _drawn(split, knobs)]


KINDS: dict[str, Callable[[str, Knobs], list[dict[str, Any]]]] = {
    "pairs": _pairs,
    "labels": _labels,
    "lists": _lists,
    "forget": _forget,
    "demonstrations": _demonstrations,
    "prompts": _prompts,
}


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
