"""The model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from xpo.api.algorithm import Algorithm, Config, Paper, option
from xpo.train.card import card, write_card
from xpo.train.record import Cost, Row, RunRecord, Sample


@dataclass
class MadeUpConfig(Config):
    beta: float = option(2.0, "slope | scale")
    gamma: float = option(0.5, "target margin")


class MadeUp(Algorithm[MadeUpConfig]):
    name = "made-up"
    summary = "A method for this test."
    paper = Paper("A Paper", "https://example.org/paper", 2024)
    equation = "-log sigmoid(beta (r_w - r_l) - gamma)"
    data = "pairs"
    Config = MadeUpConfig
    metrics = {"rewards/margins": "mean difference"}


def a_record(**changes: Any) -> RunRecord:
    settings: dict[str, Any] = {
        "xpo_version": "0.1",
        "algorithm": "made-up",
        "supplier": "some-package",
        "algorithm_settings": {"beta": 2.5, "gamma": 0.5},
        "settings": {"training": {"learning_rate": 1e-6, "optim": "adamw_torch"}, "given": ["learning_rate"]},
        "seed": 42,
        "model": {"name": "org/model", "adapter": None},
        "data": {"origin": "org/data", "kind": "pairs", "rows": 10, "fingerprint": "f1", "lines": ["1 of 10 dropped"]},
        "output_dir": "/somewhere/private/runs/made-up",
        "metrics": {"eval_rewards/margins": 1.25, "loss": None},
        "comparison": [Row("accuracy", 0.5, 0.75, "%", "up", note="a note")],
        "samples": [Sample("a private prompt", "before", "after")],
        "cost": Cost(steps=60),
    }
    return RunRecord(**{**settings, **changes})


def front_matter(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter() -> None:
    assert front_matter(card(a_record(), MadeUp)) == {
        "base_model": "org/model",
        "library_name": "transformers",
        "datasets": ["org/data"],
        "tags": ["xpo", "preference-optimization", "made-up"],
    }


def test_front_matter_claims_only_what_the_hub_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    local = front_matter(card(a_record(data={"origin": "rows.jsonl"}), MadeUp))
    embedded = a_record(model={"name": "a/b", "embedded": True}, data={"origin": "a/b", "embedded": True})
    for found in (local, front_matter(card(embedded, MadeUp))):
        assert not {"base_model", "datasets"} & found.keys()


def test_what_is_in_it() -> None:
    text = card(a_record(reference="adapters off"), MadeUp, plot=True)
    for part in (
        "# made-up",
        "```text\n-log sigmoid(beta (r_w - r_l) - gamma)\n```",
        "[A Paper](https://example.org/paper), 2024",
        "(from `some-package`)",
        "Reference: adapters off.",
        "| **`beta`** | `2.5` | `2.0` | slope \\| scale |",
        "| `gamma` | `0.5` | `0.5` | target margin |",
        "| **`learning_rate`** | `1e-06` |",
        "| `optim` | `adamw_torch` |",
        "| accuracy ↑ | 50.0% | 75.0% | +25.0 pp |",
        "- accuracy: a note",
        "| `eval_rewards/margins` | 1.25 | mean difference (held out) |",
        "| fingerprint | f1 |",
        "- 1 of 10 dropped",
        "| steps | 60 |",
        "![Metric history](history.png)",
        "@misc{made-up2024,",
    ):
        assert part in text
    assert "`loss`" not in text


def test_rows_of_the_users_data_and_directories_stay_at_home() -> None:
    home = a_record(model={"name": "/home/someone/model"}, data={"origin": "/home/someone/rows.jsonl", "rows": 1})
    text = card(home, MadeUp)
    assert "private" not in text
    assert "/home" not in text
    assert "rows.jsonl" in text


def test_samples_of_the_testbed_are_shown_whatever_they_hold() -> None:
    samples = [Sample("prompt", "", "```\n# not a heading\n```")]
    text = card(a_record(data={"origin": "testbed", "embedded": True}, samples=samples), MadeUp)
    assert "Before:\n\n```text\n(empty)\n```" in text
    assert "After:\n\n````text\n```\n# not a heading\n```\n````" in text


@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        ({}, {}, 'AutoModelForCausalLM.from_pretrained("made-up")'),
        ({"adapter": {"r": 8}}, {}, 'AutoPeftModelForCausalLM.from_pretrained("made-up")'),
        (
            {"auto_class": "AutoModelForSequenceClassification"},
            {},
            "AutoModelForSequenceClassification.from_pretrained(",
        ),
        ({}, {"training": {"hub_model_id": "me/it"}}, 'AutoTokenizer.from_pretrained("me/it")'),
    ],
)
def test_the_code_that_loads_it(model: dict[str, Any], settings: dict[str, Any], expected: str) -> None:
    text = card(a_record(model=model, settings=settings), MadeUp)
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert expected in code
    assert front_matter(text)["library_name"] == ("peft" if "adapter" in model else "transformers")


def test_lora_settings_only_of_an_adapter() -> None:
    settings = {"model": {"lora_r": 16}, "training": {"weight_decay": 0.0}}
    assert "lora_r" not in card(a_record(settings=settings), MadeUp)
    assert "| `lora_r` | `16` |" in card(a_record(settings=settings, model={"adapter": "lora"}), MadeUp)


def test_an_empty_record_makes_a_short_card() -> None:
    text = card(RunRecord("0.1", "made-up"), MadeUp)
    for title in ("Results", "Settings", "Data", "Cost"):
        assert f"## {title}" not in text
    assert "None" not in text


def test_write_card(tmp_path: Path) -> None:
    write_card(a_record(), MadeUp, tmp_path)
    assert "history.png" not in (tmp_path / "README.md").read_text()
    (tmp_path / "history.png").write_bytes(b"")
    write_card(a_record(), MadeUp, tmp_path)
    assert "history.png" in (tmp_path / "README.md").read_text()
