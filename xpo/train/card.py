"""The model card: what was trained, how, at what cost and with what result. Nothing in it that was not measured."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpo.train.diagnostics import MEANINGS
from xpo.train.output import CARD, PLOT, write_text
from xpo.train.record import RunRecord
from xpo.train.summary import LEGEND, cells, clean, cost, notes, number

if TYPE_CHECKING:
    from xpo.api.algorithm import Algorithm

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

#: Training settings worth reading in a card; the others are in run.json.
TRAINING = (
    *("learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "optim", "weight_decay", "max_grad_norm"),
    *("max_length", "max_prompt_length", "max_completion_length", "bf16", "fp16", "gradient_checkpointing"),
    *("load_in_4bit", "load_in_8bit"),
)
LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")


def write_card(record: RunRecord, algorithm: type[Algorithm[Any]], directory: str | os.PathLike[str]) -> None:
    """Write ``README.md``; on rank 0 only. After the weights are saved, because saving an adapter writes one too."""
    write_text(Path(directory) / CARD, card(record, algorithm, plot=(Path(directory) / PLOT).exists()))


def card(record: RunRecord, algorithm: type[Algorithm[Any]], plot: bool = False) -> str:
    """The card as Markdown with YAML front matter.

    Data rows are shown only if the data is the embedded testbed: a card travels further than the data may.

    Args:
        plot: whether the metric history is drawn beside the card.
    """
    sections = [
        _front_matter(record),
        _head(record, algorithm),
        _results(record, algorithm),
        f"![Metric history]({PLOT})" if plot else "",
        _load(record),
        _settings(record, algorithm),
        _data(record),
        _section("Cost", _table(("", ""), cost(record))),
        _section("Versions", _table(("package", "version"), {"xpo": record.xpo_version, **record.versions}.items())),
        _citation(algorithm),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(record: RunRecord) -> str:
    lines = ["---"]
    if not record.model.get("embedded") and (base := _hub_id(record.model.get("name"))):
        lines.append(f"base_model: {json.dumps(base)}")
    lines.append(f"library_name: {'peft' if record.model.get('adapter') else 'transformers'}")
    if not record.data.get("embedded") and (data := _hub_id(record.data.get("origin"))):
        lines += ["datasets:", f"- {json.dumps(data)}"]
    lines += ["tags:", "- xpo", "- preference-optimization", f"- {json.dumps(record.algorithm)}", "---"]
    return "\n".join(lines)


def _head(record: RunRecord, algorithm: type[Algorithm[Any]]) -> str:
    paper = algorithm.paper
    start = _shown(record.model.get("name")) or "a language model"
    supplier = f" (from `{record.supplier}`)" if record.supplier else ""
    adapter = "An adapter for" if record.model.get("adapter") else "Trained from"
    lines = [
        f"# {_shown(record.output_dir) or record.algorithm}",
        f"{adapter} `{start}` with `{record.algorithm}`{supplier}, using xpo {record.xpo_version}.",
        f"{algorithm.summary} [{paper.title}]({paper.url}), {paper.year}.",
        f"What training minimises:\n\n```text\n{algorithm.equation}\n```",
    ]
    if record.reference:
        lines.append(f"Reference: {record.reference}.")
    return "\n\n".join(lines)


def _results(record: RunRecord, algorithm: type[Algorithm[Any]]) -> str:
    parts = []
    if record.comparison:
        rows = [cells(row) for row in record.comparison]
        parts.append(_table(("", "before", "after", "change"), [row[:4] for row in rows]))
        parts += [f"{LEGEND}.", *(f"- {note}" for note in notes(record.comparison))]
    if record.notes:
        parts.append("What was off:\n\n" + "\n".join(f"- {note}" for note in record.notes))
    finite = {key: value for key, value in record.metrics.items() if value is not None and math.isfinite(value)}
    if finite:
        metrics = [(f"`{key}`", number(value), _meaning(key, algorithm)) for key, value in finite.items()]
        parts.append("Final metrics:\n\n" + _table(("metric", "value", "meaning"), metrics))
    if record.data.get("embedded"):
        for sample in record.samples:
            texts = (("Prompt", sample.prompt), ("Before", sample.before), ("After", sample.after))
            parts.append("\n\n".join(f"{title}:\n\n{_fenced(clean(text))}" for title, text in texts))
    return _section("Results", "\n\n".join(parts))


def _meaning(key: str, algorithm: type[Algorithm[Any]]) -> str:
    bare = key.removeprefix("eval_")
    meaning = algorithm.metrics.get(bare) or MEANINGS.get(bare, "")
    return f"{meaning} (held out)" if meaning and bare != key else meaning


def _load(record: RunRecord) -> str:
    kind = record.model.get("auto_class", "AutoModelForCausalLM")
    imports = [f"from transformers import {kind}, AutoTokenizer"]
    if record.model.get("adapter"):
        kind = kind.replace("AutoModel", "AutoPeftModel")
        imports = [f"from peft import {kind}", "from transformers import AutoTokenizer"]
    where = json.dumps(_flat(record).get("hub_model_id") or _shown(record.output_dir) or ".")
    one = ", num_labels=1" if kind.startswith("AutoPeft") and kind.endswith("SequenceClassification") else ""
    code = [*imports, "", f"model = {kind}.from_pretrained({where}{one})"]
    code.append(f"tokenizer = AutoTokenizer.from_pretrained({where})")
    return _section("Load it", "```python\n" + "\n".join(code) + "\n```")


def _settings(record: RunRecord, algorithm: type[Algorithm[Any]]) -> str:
    known, rows = algorithm.settings(), []
    for name, value in record.algorithm_settings.items():
        default, meaning = known.get(name, (value, ""))
        rows.append((_name(name, value != default), _value(value), _value(default), meaning))
    parts = [_table(("setting", "value", "default", "meaning"), rows)] if rows else []
    flat = _flat(record)
    given = record.settings.get("given", ())
    names = TRAINING + (LORA if record.model.get("adapter") else ())
    training = [
        (_name(name, name in given), _value(flat[name])) for name in names if flat.get(name) not in (None, False)
    ]
    if record.seed is not None:
        training.append((_name("seed", "seed" in given), _value(record.seed)))
    if training:
        parts.append(_table(("training", "value"), training))
    if any(row[0].startswith("**") for row in [*rows, *training]):
        parts.append("Bold: not left to the default.")
    return _section("Settings", "\n\n".join(parts))


def _flat(record: RunRecord) -> dict[str, Any]:
    """The settings without their sections."""
    flat = dict(record.settings)
    for section in record.settings.values():
        flat.update(section if isinstance(section, Mapping) else {})
    return flat


def _data(record: RunRecord) -> str:
    about = {**record.data, "origin": _shown(record.data.get("origin"))}
    keys = ("origin", "kind", "rows", "groups", "fingerprint")
    table = _table(("", ""), [(key, about[key]) for key in keys if about.get(key) is not None])
    # The lines are counts of rows, never rows.
    return _section("Data", "\n".join([table, "", *(f"- {line}" for line in record.data.get("lines", ()))]).strip())


def _citation(algorithm: type[Algorithm[Any]]) -> str:
    paper = algorithm.paper
    fields = (("title", paper.title), ("year", str(paper.year)), ("url", paper.url))
    body = ",\n".join(f"  {key:5} = {{{value}}}" for key, value in fields)
    return _section("Citation", f"```bibtex\n@misc{{{algorithm.name}{paper.year},\n{body}\n}}\n```")


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [[_cell(value) for value in row] for row in rows]
    whole = [list(head), ["---"] * len(head), *lines] if lines else []
    return "\n".join("| " + " | ".join(line) + " |" for line in whole)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _name(name: str, changed: bool) -> str:
    return f"**`{name}`**" if changed else f"`{name}`"


def _value(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def _fenced(text: str) -> str:
    # A fence longer than any the text holds, so that the text cannot end it.
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _hub_id(name: Any) -> str | None:
    """``name`` if the Hub could know it by that name and it is no local path."""
    return name if isinstance(name, str) and HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _shown(name: Any) -> str | None:
    """A local path by its last part, since the directories of a machine are nobody's business; else the name as is."""
    if not name:
        return None
    path = Path(str(name)).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else str(name)
