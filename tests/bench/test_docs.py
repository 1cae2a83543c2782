"""The page does what it says: its commands are understood, and records have the keys it names and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.bench.conftest import Here, suite
from tests.bench.test_suite import failing
from tests.conftest import ROOT
from xpo.bench.reading import read
from xpo.bench.suite import plan
from xpo.plugins import load
from xpo.train.sources import from_argv

PAGE = (ROOT / "docs/bench.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_commands_and_the_file_are_understood(tmp_path: Path) -> None:
    blocks = FENCE.findall(PAGE)
    [commands] = [body for kind, body in blocks if kind == "bash"]
    for line in commands.splitlines():
        assert plan(read(from_argv(line.split()[2:])), load()).cells
    [body] = [body for kind, body in blocks if kind == "yaml"]
    (tmp_path / "suite.yaml").write_text(body)
    made = plan(read(from_argv(["--config", str(tmp_path / "suite.yaml"), "--output_dir", "out"])), load())
    assert len(made.cells) == (3 + 3 + 6) * 3


def test_records_have_the_keys_that_the_page_names(tmp_path: Path) -> None:
    suite(f"--algos dpo,simpo --seeds 0,1 --grid beta=0.1,1 --output_dir {tmp_path / 'one'}", Here(failing))
    body = json.loads((tmp_path / "one/records.json").read_text())
    section = PAGE.partition("`records.json` is one object:")[2]
    words = set(re.findall(r"`\"?(\w+)\"?`", section))
    table, cells = body["table"], body["cells"]
    found = {*body, *body["start"], *table, *table["lines"][1], *table["tried"][0]}
    found |= {key for cell in cells for key in cell}
    found |= {key for cell in cells if cell["status"] == "done" for key in cell["examined"]["test"]}
    found |= {key for cell in cells if cell["status"] == "failed" for key in cell["failed"]}
    found |= {key for column in [*table["columns"], *table["prices"]] for key in column}
    found |= set(table["lines"][1]["numbers"]["win_rate"])
    assert found <= words
    assert {cell["status"] for cell in cells} == {"done", "failed"}
