"""The page as text: it needs nothing else, says what the tables say, and nothing from the data becomes markup."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import suite
from tests.bench.pages import (
    COMPLETIONS,
    HOSTILE,
    MACHINE,
    STATES,
    Element,
    cell,
    drawn,
    few,
    grid,
    read,
    records,
)
from tests.conftest import ROOT
from xpo.bench.page.document import POLICY, page
from xpo.bench.page.markup import joined, tag
from xpo.bench.run import write_outputs
from xpo.bench.scores import PRICES
from xpo.bench.summary import summarise
from xpo.bench.table import comma_separated, markdown
from xpo.train.marked import Number

LOADING = ("src", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "ping", "style")


@pytest.fixture(scope="module", params=STATES)
def state(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], str, Element]:
    body = STATES[request.param]()
    text = drawn(body)
    return request.param, body, text, read(text)


def test_a_page_loads_nothing(state: Any) -> None:
    _, _, text, found = state
    policy = found.one("meta", http_equiv="Content-Security-Policy")
    assert policy.attributes["content"] == POLICY
    assert POLICY == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    before = text[: text.index("Content-Security-Policy")]
    assert "<script" not in before
    assert "<style" not in before
    for element in found.walk():
        assert not {*LOADING} & {*element.attributes}, element
        assert not any(name.startswith("on") for name in element.attributes), element
        assert element.attributes.get("href", "#").startswith("#"), element
        assert element.name not in ("link", "iframe", "object", "embed", "base", "img", "form", "image", "use")
    [style] = found.all("style")
    assert "@import" not in style.text
    assert "url(" not in style.text
    own = style.text + "".join(script.text for script in found.all("script") if "type" not in script.attributes)
    assert [line for line in re.findall(r"https?:[^\"\s]*", own) if line != "http://www.w3.org/2000/svg"] == []
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|import)\b *\(", own)


def test_a_page_can_be_read_by_everybody(state: Any) -> None:
    _, _, text, found = state
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    names = [element.attributes["id"] for element in found.walk() if "id" in element.attributes]
    assert len(names) == len({*names})
    for element in found.walk():
        for key in ("aria-labelledby", "aria-describedby"):
            assert {*element.attributes.get(key, "").split()} <= {*names}
        href = element.attributes.get("href")
        assert href is None or href[1:] in names
    assert [len(found.all(name)) for name in ("main", "header", "nav", "footer", "h1")] == [1] * 5
    body = found.one("body")
    assert body.inside[0].fits({"class_": "skip", "href": "#main"})  # type: ignore[union-attr]  # a tag it is
    for table in found.all("table"):
        assert table.one("caption").text
        assert all(head.attributes.get("scope") in ("col", "row") for head in table.all("th"))
        if table.attributes["id"] != "commands":
            heads = table.one("thead").all("th")
            assert all(head.all("button") and "aria-sort" in head.attributes for head in heads) or not found.all(
                "svg", role="img"
            )
    for figure in found.all("svg", class_="figure"):
        assert figure.attributes["role"] == "img"
        assert figure.all("title")[0].text
        assert figure.one("desc").text
    levels = [int(element.name[1]) for element in found.walk() if re.fullmatch(r"h\d", element.name)]
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert all(label.text for label in found.all("label") if label.all("select"))


def test_the_table_says_what_the_other_tables_say(state: Any) -> None:
    _, body, _, found = state
    summary = summarise(body)
    rows = {
        row.one("th").attributes.get("data-v", "start"): row for row in found.one("table", id="quality").all("tr")[1:]
    }
    exact = {row["method"]: row for row in csv.DictReader(comma_separated(summary).splitlines())}
    assert [*rows] == [*exact]
    text = markdown(summary, body)
    for method, row in rows.items():
        if exact[method]["state"] in ("failed", "missing"):
            continue
        for column in summary.columns:
            shown = row.one("td", data_k=column.key)
            value = shown.attributes.get("data-v", "")
            assert value == exact[method][column.key] or float(value) == pytest.approx(float(exact[method][column.key]))
            said = " ".join(shown.text.replace("\N{NO-BREAK SPACE}", " ").split())
            mark = exact[method][f"{column.key}_mark"]
            assert bool(shown.all("strong")) == (mark == "best")
            assert said.endswith("≈") or "≈ [" in said if mark == "equal" else "≈" not in said
            plain = " ".join(said.replace("≈", "").split())
            assert f"| {plain} |" in text or f"**{plain}**" in text or f"| {plain} ≈ |" in text
    costs = {row.one("th").attributes["data-v"]: row for row in found.one("table", id="costs").all("tr")[1:]}
    assert [*costs] == [*exact][1:]
    for line in summary.lines[1:]:
        for price in PRICES:
            shown = costs[line.method].one("td", data_k=price.key)
            known = line.prices.get(price.key)
            assert shown.attributes.get("data-v") == (None if known is None else str(known))


def test_every_state_says_what_it_is(state: Any) -> None:
    which, _, _, found = state
    said = found.one("main").text
    figures = {figure.attributes["id"] for figure in found.all("svg", class_="figure")}
    usual = {"kl-figure", "mean_length-figure", "curves-figure"}
    if which in ("all failed", "nothing finished"):
        assert figures == set()
        absent = found.one("table", id="quality").all("td", class_="absent")
        assert len(absent) == 2
        assert all(one.text.startswith("failed" if which == "all failed" else "not run yet") for one in absent)
    elif which == "old":
        assert figures == usual - {"curves-figure"}
        assert "There are no learning curves" in said
    else:
        assert figures == usual
    if which == "no rewards":
        assert "Win rate against KL" in said
    if which == "nobody judges":
        assert "Preference accuracy against KL" in said
        assert "no win rate" in said
    if which == "one seed":
        assert not found.one("svg", id="curves-figure").all("path", class_="thin")
        assert "one seed" in said


def test_a_column_that_somebody_adds_appears() -> None:
    body = few()
    summary = summarise(body)
    added = replace(
        summary.columns[0], key="added", title="a new one", better="down", share=False, digits=3, note="new"
    )
    lines = [
        replace(line, numbers={**line.numbers, "added": Number(0.25, 0.125, 0.5, "best")}) if line.numbers else line
        for line in summary.lines
    ]
    found = read(page(replace(summary, columns=[*summary.columns, added], lines=lines), body)).one(
        "table", id="quality"
    )
    head = found.one("thead").all("th")[-1]
    assert head.text == "a new one\N{NO-BREAK SPACE}↓"
    assert head.attributes == {"scope": "col", "aria-sort": "none", "data-k": "added"}
    assert {one.text for one in found.all("td", data_k="added")} == {"0.250 [0.125, 0.500]"}


def test_what_is_not_there_is_shown_with_its_reason() -> None:
    found = read(drawn(few()))
    rows = {row.one("th").attributes.get("data-v"): row for row in found.one("table", id="quality").all("tr")[1:]}
    assert f"seed 1 failed: RuntimeError: {HOSTILE} (exit status 1)" in rows["beta"].one("td", data_k="seeds").text
    assert rows["beta"].one("td", data_k="seeds").text.startswith("1/2")
    gone = rows["gamma"].one("td", class_="absent").text
    assert gone == "failed" + "".join(
        f"seed {seed} failed: out of memory: ended by SIGKILL (exit status 1)" for seed in (0, 1)
    )
    assert rows["later"].one("td", class_="absent").text.count("has not been run") == 2
    assert len(found.one("ul", id="failures-list").all("li")) == 3
    states = [entry.text for entry in found.one("aside", id="methods").all("li")]
    assert [word for word in states if word.startswith(("beta", "gamma", "later"))] == [
        "beta 1 of 2 seeds",
        "gamma failed",
        "later not run",
    ]


def test_nothing_from_the_data_becomes_markup() -> None:
    body = few()
    body["shared"]["model_name_or_path"] = HOSTILE
    body["start"]["device"] = {"name": HOSTILE, "kind": HOSTILE}
    for one in body["cells"]:
        one["curves"] = {HOSTILE: one["curves"]["loss"]} if "curves" in one else {}
        one["log"], one["command"] = HOSTILE, [HOSTILE]
    text = drawn(body)
    found = read(text)
    assert found.all("img") == found.all("b") == []
    assert [script.attributes for script in found.all("script")] == [{"type": "application/json", "id": "data"}, {}, {}]
    assert text.count("</script") == 3
    about = json.loads(found.one("script", id="data").text)
    assert about["metrics"] == [HOSTILE]
    assert HOSTILE in about["methods"]
    for place in ("failures-list", "notes-list"):
        assert HOSTILE in found.one("ul", id=place).text
    assert HOSTILE in found.one("header").text
    assert HOSTILE in found.one("section", aria_labelledby="provenance").text


def test_samples_stand_side_by_side_with_what_is_known_of_them() -> None:
    body = records([cell("alpha", 0), cell("beta", 0)])
    found = read(drawn(body))
    prompts = found.all("section", class_="sample")
    assert [one.one("p", class_="prompt").text for one in prompts] == body["start"]["examined"]["test"]["prompts"]
    for number, one in enumerate(prompts):
        assert [card.one("h4").text for card in one.all("li")] == [
            "start",
            *(line.method for line in summarise(body).lines[1:]),
        ]
        texts = [card.one("p", class_="text") for card in one.all("li")]
        assert {text.text for text in texts} == {COMPLETIONS[number] or "(nothing)"}
        assert COMPLETIONS[number] == "" or all(text.attributes["dir"] == "auto" for text in texts)
    alpha = body["cells"][0]["examined"]["test"]
    facts = [card.one("p", class_="facts").text for card in prompts[1].all("li") if card.one("h4").text == "alpha"]
    won = "better than" if alpha["wins"][1] else "worse than"
    assert facts == [
        f"seed 0; reward {alpha['rewards'][1]:.2f}; {alpha['lengths'][1]} tokens, cut off; {won} the start's"
    ]


def test_curves_without_a_finite_number_are_counted_and_not_drawn() -> None:
    nothing = {"steps": [1, 2], "values": [None, None]}
    cells = [cell("alpha", 0), cell("alpha", 1), cell("beta", 0)]
    for one in cells[:2]:
        one["curves"]["rewards/accuracies"] = nothing
    found = read(drawn(records(cells)))
    assert "2 curves without any finite number are left out" in found.one("main").text
    assert len(found.one("svg", id="curves-figure").all("path", class_="line")) == 1
    options = [(one.text, one.attributes["value"]) for one in found.one("select", id="choose-metric").all("option")]
    assert options == [("loss", "0"), ("grad_norm", "1"), ("rewards/accuracies (1 of 3 cells)", "2")]
    assert json.loads(found.one("script", id="data").text)["metrics"] == ["loss", "grad_norm", "rewards/accuracies"]
    for one in cells:
        one["curves"] = {"loss": nothing}
    found = read(drawn(records(cells)))
    assert "There are no learning curves" in found.one("main").text
    assert found.all("svg", id="curves-figure") == []


def test_the_same_records_give_the_same_page() -> None:
    body = few()
    assert drawn(body) == drawn(json.loads(json.dumps(body)))


def test_a_chosen_setting_is_the_one_that_figures_and_samples_show() -> None:
    body = grid()
    found = read(drawn(body))
    [line] = [line for line in summarise(body).lines if line.method == "twice"]
    assert line.setting == "beta=0.5"
    tried = [row.text for row in found.one("table", id="tried").one("tbody").all("tr")]
    assert [row.startswith("twicebeta=0.5 (chosen)2/2") for row in tried] == [False, True, False]
    marks = found.one("svg", id="kl-figure").all("g", class_="cell")
    assert len(marks) == 4  # two methods, two seeds, without the setting that was not chosen
    rewards = sorted(float(mark.attributes["data-y"]) for mark in marks)
    test = [one["examined"]["test"]["rewards"] for one in body["cells"] if one["setting"] in ("beta=0.5", "")]
    assert rewards == pytest.approx(sorted(sum(some) / len(some) for some in test), rel=1e-5)


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<", tag("br"), None, class_="a", data_m=0, hidden=True, title='"', off=False, none=None) == (
        '<p class="a" data-m="0" hidden title="&quot;">&lt;<br></p>'
    )
    assert joined("&", joined("&")) == "&amp;&amp;"


def test_a_suite_writes_the_page_from_records_alone(tmp_path: Path) -> None:
    suite(f"--algos dpo,simpo --seeds 0,1 --output_dir {tmp_path / 'one'}")
    text = (tmp_path / "one/report.html").read_text()
    body = json.loads((tmp_path / "one/records.json").read_text())
    assert all(one["curves"] == {} for one in body["cells"])  # stand-ins leave no history
    assert drawn(body) == text
    assert str(tmp_path) not in text
    history = next((tmp_path / "one/cells").glob("dpo*/seed-0")) / "history.jsonl"
    history.write_text('{"loss": 1.0, "step": 1}\n{"loss": 0.5, "step": 2}\n')
    write_outputs(tmp_path / "one")
    body = json.loads((tmp_path / "one/records.json").read_text())
    assert body["cells"][0]["curves"] == {"loss": {"steps": [1, 2], "values": [1.0, 0.5]}}
    assert "curves-figure" in (tmp_path / "one/report.html").read_text()


def test_machines_that_differ_are_told_apart() -> None:
    body = records([cell("alpha", 0), cell("alpha", 1)])
    body["cells"][1]["device"] = {"name": "another", "kind": "cuda"}
    said = read(drawn(body)).one("section", aria_labelledby="provenance").text
    assert "start, alpha, seed 0" in said
    assert "another" in said
    assert MACHINE["device"]["name"] in said  # type: ignore[index]  # a mapping
    assert "xpo train --algo alpha --seed 1" in said
    assert "xpo bench --output_dir . --table" in said


def test_the_wheel_holds_what_the_page_is_made_of() -> None:
    for name in ("style.css", "figures.js", "script.js"):
        assert (files("xpo.bench.page") / name).read_text(encoding="utf-8")
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert (
        "xpo" in built["targets"]["wheel"]["packages"]
    )  # hatchling takes all files of a package that git does not ignore
    assert not {"exclude", "only-include", "artifacts"} & {*built, *built["targets"]["wheel"]}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not [line for line in ignored if line.endswith((".css", ".js")) or line.strip("/") in ("page", "bench")]
