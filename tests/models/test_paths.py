"""A model's name that is plainly a path: what is not there is refused at once, and the hub is never asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from xpo.errors import ModelError
from xpo.models.load import load_policy, load_tokenizer
from xpo.train.settings import ModelSettings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that a library was asked for."""
    names: list[str] = []

    def ask(name: str, *arguments: Any, **settings: Any) -> Any:
        names.append(name)
        raise OSError("not found")

    for cls in ("AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(f"xpo.models.load.{cls}.from_pretrained", ask)
    return names


@pytest.mark.parametrize("name", ["./mine", "../mine", "/mine/model", "~/mine", "runs/a/b", "mine/", "runs/mine/"])
def test_a_path_that_leads_nowhere_is_refused_at_once(name: str, asked: list[str]) -> None:
    config = ModelSettings(model_name_or_path=name)
    for load in (load_tokenizer, load_policy):
        with pytest.raises(ModelError) as error:
            load(config)
        assert f"'{name}' cannot be loaded: there is no such directory" in str(error.value)
    assert asked == []


@pytest.mark.parametrize("name", ["mine", "owner/mine"])
def test_what_may_be_an_id_is_looked_for(name: str, asked: list[str]) -> None:
    with pytest.raises(ModelError, match="is neither a directory here nor a model that can be had from the hub"):
        load_tokenizer(ModelSettings(model_name_or_path=name))
    assert asked == [name]


def test_a_path_that_leads_somewhere_is_taken(tmp_path: Path) -> None:
    assert load_tokenizer(ModelSettings(model_name_or_path=f"{tiny.saved(tmp_path)}/")).eos_token == "</s>"
