"""Looks at what is sampled while training: a table on the terminal now and then, and lines in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase, TrainerCallback

from xpo.api.groups import Completion, Group
from xpo.data.order import MicroBatch
from xpo.train.machine import is_main
from xpo.train.progress import STDERR

#: In the output directory: what was looked at.
FILE = "completions.jsonl"
#: Characters of a text that the table shows.
SHOWN = 200


class Looks(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Shows some prompts of a step with their completions and scores, and writes them down.

    Args:
        tokenizer: the policy's.
        sampled: the micro-batches that this process has sampled for last.
        every: steps between two looks; the first step is looked at too.
        prompts: how many prompts a look shows.
        told: what reward functions told of a completion, by column; written down as ``extra``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        sampled: Callable[[], Iterable[MicroBatch]],
        every: int,
        prompts: int,
        console: Console | None = None,
        told: Callable[[Group, Completion], Mapping[str, Any]] = lambda *_: {},
    ) -> None:
        self.tokenizer, self.sampled, self.told = tokenizer, sampled, told
        self.every, self.prompts = every, prompts
        self.console = console or STDERR

    def on_step_end(self, args: Any, state: Any, *arguments: object, **keywords: object) -> None:
        step = state.global_step
        if not is_main() or (step != 1 and step % self.every):
            return
        entries = [entry for group in self._groups() for entry in self._entries(group, step)]
        if entries:
            with (Path(args.output_dir) / FILE).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(entry, ensure_ascii=False, default=str) + "\n" for entry in entries)
            self.console.print(_table(entries, step))

    def _groups(self) -> Sequence[Group]:
        """Groups of the first prompts: of labels and of all pairs a prompt has several."""
        found: list[Group] = []
        seen: set[int] = set()
        for micro in self.sampled():
            for group in () if micro.idle else micro.groups:
                if group.row in seen or len(seen) < self.prompts:
                    seen.add(group.row)
                    found.append(group)
        return found

    def _entries(self, group: Group, step: int) -> list[dict[str, Any]]:
        decode = self.tokenizer.decode
        return [
            {
                "step": step,
                "row": group.row,
                "prompt": decode(group.prompt_ids, skip_special_tokens=True),
                "completion": decode(one.ids, skip_special_tokens=True),
                "role": one.role if one.label is None else "desirable" if one.label else "undesirable",
                "score": one.score,
                "tokens": len(one.ids),
                "finished": one.finished,
                **({"extra": dict(extra)} if (extra := self.told(group, one)) else {}),
            }
            for one in group.completions
        ]


def _table(entries: Sequence[Mapping[str, Any]], step: int) -> Table:
    table = Table(title=f"samples at step {step}", title_justify="left", show_lines=False)
    for name, side in (("prompt", "left"), ("completion", "left"), ("", "left"), ("score", "right")):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]  # rich's literal
    last = None
    for entry in entries:
        if last not in (None, entry["row"]):
            table.add_section()
        score = "–" if entry["score"] is None else f"{entry['score']:.3g}"
        cut = "" if entry["finished"] else " …"
        table.add_row(
            Text("" if entry["row"] == last else _short(entry["prompt"])),
            Text(_short(entry["completion"]) + cut),
            entry["role"],
            score,
        )
        last = entry["row"]
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
