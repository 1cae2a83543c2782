"""Sampling by a vLLM server: what it is asked, what its answers become, and which weights it is sent."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from xpo import FeedbackError, Group, SettingError
from xpo.feedback import vllm
from xpo.feedback.sampling import Sampling
from xpo.feedback.vllm import Server, check_vllm

GROUPS = [Group([1, 2], row=7), Group([3], row=8)]


class Client:
    """In place of TRL's, with its names and its order: the completions of a prompt before those of the next."""

    def __init__(self, base_url: str) -> None:
        if "nobody" in base_url:
            raise ConnectionError("cannot be reached")
        self.asked: list[dict[str, Any]] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.device: Any = None
        self.calls: list[str] = []

    def generate(self, prompts: Sequence[list[int]], n: int, **settings: Any) -> dict[str, Any]:
        self.asked.append({"prompts": prompts, "n": n, **settings})
        return {"completion_ids": [[*ids, k, tiny.EOS if k else 5] for ids in prompts for k in range(n)]}

    def init_communicator(self, device: torch.device) -> None:
        self.calls.append("init")

    def update_named_params(self, told: list[Any], weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        sent = [(name, weight.clone()) for name, weight in weights]
        assert [(name, str(weight.dtype)[6:], list(weight.shape)) for name, weight in sent] == told
        self.weights = dict(sent)
        self.calls.append("update")

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(vllm, "_REQUIRED", ())
    monkeypatch.setattr("xpo.compat.VLLMClient", Client, raising=False)
    return Server("http://localhost:8000", [tiny.EOS])


def test_answers_become_groups_of_completions(server: Server) -> None:
    settings = Sampling(2, 9, temperature=0.5, top_k=3, top_p=0.9)
    some = server.generate(GROUPS, settings, ["a", "a"])
    assert [[one.ids for one in group] for group in some] == [
        [[1, 2, 0, 5], [1, 2, 1, tiny.EOS]],
        [[3, 0, 5], [3, 1, tiny.EOS]],
    ]
    # Whether one ended is read off its last token: the context of the server may cut it before the limit.
    assert [[one.finished for one in group] for group in some] == [[False, True]] * 2
    (asked,) = server.client.asked
    seed = asked["generation_kwargs"].pop("seed")
    assert 0 <= seed < 2**31
    assert asked == {
        "prompts": [[1, 2], [3]],
        "n": 2,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "max_tokens": 9,
        "logprobs": None,
        "generation_kwargs": {"stop_token_ids": [tiny.EOS]},
    }
    server.generate(GROUPS, Sampling(1, 9), ["a", "a"])
    assert server.client.asked[-1]["top_k"] == 0  # which is vLLM's word for no limit


def test_seeds_follow_what_is_asked_for(server: Server) -> None:
    def seed(sampling: Sampling, groups: list[Group], streams: list[str]) -> int:
        server.generate(groups, sampling, streams)
        return int(server.client.asked[-1]["generation_kwargs"]["seed"])

    one = seed(Sampling(2, 9), GROUPS, ["a", "a"])
    assert seed(Sampling(2, 9), GROUPS, ["a", "a"]) == one
    others = [
        seed(Sampling(2, 9, seed=1), GROUPS, ["a", "a"]),
        seed(Sampling(2, 9), GROUPS, ["a", "b"]),
        seed(Sampling(2, 9), GROUPS[::-1], ["a", "a"]),
    ]
    assert len({one, *others}) == 4


def test_nothing_is_asked_for_no_prompts(server: Server) -> None:
    assert server.generate([], Sampling(2, 9), []) == []
    assert server.client.asked == []


def test_a_wrong_number_of_answers_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.client, "generate", lambda *_, **__: {"completion_ids": [[1]]})
    with pytest.raises(FeedbackError, match="gave 1 completions where 4 were asked"):
        server.generate(GROUPS, Sampling(2, 9), ["", ""])


def test_weights_are_sent_under_their_names(server: Server) -> None:
    model = tiny.model()
    server.update(model)
    server.update(model)
    assert server.client.calls == ["init", "update", "reset", "update", "reset"]  # it joins once
    assert set(server.client.weights) == {name for name, _ in model.named_parameters()}


def test_adapters_are_merged_while_weights_are_sent_and_not_after(server: Server) -> None:
    base = tiny.model()
    plain = dict(copy.deepcopy(base).named_parameters())
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], r=4))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
        if "modules_to_save" in name:
            torch.nn.init.zeros_(weight)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    server.update(model)
    assert set(server.client.weights) == set(plain)
    changed = {name for name, weight in server.client.weights.items() if not torch.equal(weight, plain[name])}
    assert changed == {name for name in plain if "q_proj" in name or "lm_head" in name}
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    for name, weight in server.client.weights.items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name
    for name, weight in model.named_parameters():
        assert torch.allclose(weight, before[name], atol=1e-6), name


def test_weights_that_cannot_be_sent_are_an_error_of_the_setting(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: Any) -> None:
        raise NotImplementedError("needs a CUDA device, got 'cpu'")

    monkeypatch.setattr(server.client, "init_communicator", refuse)
    with pytest.raises(SettingError, match="cannot be sent to the server: needs a CUDA device"):
        server.update(tiny.model())


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "_REQUIRED", ())
    monkeypatch.setattr("xpo.compat.VLLMClient", Client, raising=False)
    with pytest.raises(SettingError, match="no server answers at http://nobody"):
        Server("http://nobody", [1])


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_what_is_not_installed_is_named_with_the_ways_out() -> None:
    with pytest.raises(SettingError, match=r"not installed: vllm.*trl\[vllm\].*transformers generates"):
        check_vllm()
    with pytest.raises(SettingError, match="not installed"):
        Server("http://localhost:8000", [1])


def test_the_client_of_trl_has_the_names_that_are_used() -> None:
    """The stand-in above is no proof that TRL's has them."""
    from xpo.compat import VLLMClient

    for name in ("generate", "init_communicator", "update_named_params", "reset_prefix_cache"):
        assert callable(getattr(VLLMClient, name))
