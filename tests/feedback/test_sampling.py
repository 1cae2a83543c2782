"""Sampling: its own random stream for every sample, the softmax's distribution, and where completions end."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import LlamaForCausalLM

from tests import tiny
from xpo import Group, ModelError
from xpo.feedback import sampling
from xpo.feedback.sampling import Sampling, end_tokens, sample


def ids(model: torch.nn.Module, groups: list[Group], settings: Sampling, stream: str = "") -> list[list[list[int]]]:
    return [[c.ids for c in some] for some in sample(model, tiny.tokenizer(), groups, settings, stream=stream)]


def test_the_same_seed_samples_the_same_and_nothing_else_does() -> None:
    model, groups, settings = tiny.model(), tiny.groups("prompts", 4), Sampling(3, 8, seed=1)
    first = ids(model, groups, settings)
    torch.manual_seed(99)  # the global stream is not touched and does not matter
    state = torch.get_rng_state()
    assert ids(model, groups, settings) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert ids(model, groups, Sampling(3, 8, seed=2)) != first
    assert ids(model, groups, settings, stream="train/0/1") != first
    assert len({tuple(one) for some in first for one in some}) > 6  # samples of a prompt differ


def test_a_sample_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    model, groups, settings = tiny.model().double(), tiny.groups("prompts", 6), Sampling(3, 8)
    together = ids(model, groups, settings)
    assert [ids(model, [group], settings)[0] for group in groups] == together
    assert ids(model, groups[::-1], settings)[::-1] == together
    assert [some[:2] for some in ids(model, groups, Sampling(2, 8))] == [some[:2] for some in together]
    monkeypatch.setattr(sampling, "ROWS", 4)  # prompts cut in the middle of their samples
    assert ids(model, groups, settings) == together


def test_rows_with_the_same_prompt_have_samples_of_their_own() -> None:
    (a, b) = ids(tiny.model(), [Group([1, 2], row=0), Group([1, 2], row=1)], Sampling(3, 8))
    assert a != b


def test_a_shorter_limit_cuts_the_same_completions() -> None:
    model, groups = tiny.model(), tiny.groups("prompts", 4)
    long, short = ids(model, groups, Sampling(3, 8)), ids(model, groups, Sampling(3, 3))
    assert [[one[:3] for one in some] for some in long] == short


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_the_distribution_is_the_softmax(temperature: float) -> None:
    """Two tokens in a row against their exact probabilities, on a vocabulary of five."""
    model = tiny.model(3, vocabulary=5)
    model.get_output_embeddings().weight.data *= 0.4  # no outcome is nearly certain
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "w4"
    count, prompt = 6000, [1, 2]

    def probabilities(prefix: list[int]) -> list[float]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + prefix])).logits[0, -1].double()
        return torch.softmax(logits / temperature, -1).tolist()

    expected = {(4,): probabilities([])[4]}
    for first in range(4):
        for second, share in enumerate(probabilities([first])):
            expected[first, second] = probabilities([])[first] * share
    assert sum(expected.values()) == pytest.approx(1)
    (some,) = sample(model, tokenizer, [Group(prompt)], Sampling(count, 2, temperature))
    found = Counter(tuple(completion.ids) for completion in some)
    assert set(found) <= set(expected)
    # The statistic has 20 degrees of freedom; rare outcomes are put together. 60 is beyond one in a hundred thousand.
    common = {key: share for key, share in expected.items() if share * count >= 5}
    rest = 1 - sum(common.values())
    statistic = sum((found[key] - count * share) ** 2 / (count * share) for key, share in common.items())
    if rest * count >= 5:
        others = count - sum(found[key] for key in common)
        statistic += (others - rest * count) ** 2 / (rest * count)
    assert len(common) > 8
    assert statistic < 60


def test_settings_of_the_model_change_nothing() -> None:
    """What it would sample by itself, top-k and penalties included, is not what is trained."""
    model, groups, settings = tiny.model(), tiny.groups("prompts", 3), Sampling(2, 6)
    expected = ids(model, groups, settings)
    model.generation_config.update(
        do_sample=True, top_k=1, temperature=0.1, repetition_penalty=9.0, no_repeat_ngram_size=1, max_new_tokens=1
    )
    own = model.generation_config
    assert ids(model, groups, settings) == expected
    assert model.generation_config is own
    assert own.repetition_penalty == 9.0


def biased(token: int) -> LlamaForCausalLM:
    """A model that always says ``token``."""
    model = tiny.model()
    head = model.get_output_embeddings()
    bias = torch.zeros(tiny.SIZE)
    bias[token] = 50.0
    head.register_parameter("bias", torch.nn.Parameter(bias))
    return model


def test_eos_ends_a_completion_and_belongs_to_it() -> None:
    (some,) = sample(biased(tiny.EOS), tiny.tokenizer(), [Group([1])], Sampling(2, 5))
    assert [completion.ids for completion in some] == [[tiny.EOS]] * 2
    assert all(completion.finished for completion in some)


def test_without_eos_a_completion_is_cut_and_not_finished() -> None:
    (some,) = sample(biased(0), tiny.tokenizer(), [Group([1])], Sampling(2, 5))
    assert [completion.ids for completion in some] == [[0] * 5] * 2
    assert not any(completion.finished for completion in some)


def test_completions_of_different_length_carry_no_padding() -> None:
    some = sample(tiny.model(), tiny.tokenizer(), tiny.groups("prompts", 20), Sampling(4, 30))
    flat = [completion for group in some for completion in group]
    assert len({len(completion.ids) for completion in flat}) > 3
    for completion in flat:
        assert completion.finished == (completion.ids[-1] == tiny.EOS)
        assert tiny.EOS not in completion.ids[:-1]


def test_a_padding_token_that_is_the_eos_does_no_harm() -> None:
    model, groups, settings = tiny.model(), tiny.groups("prompts", 8), Sampling(2, 20)
    found = sample(model, tiny.tokenizer(pad="</s>"), groups, settings)
    assert [[c.ids for c in some] for some in found] == ids(model, groups, settings)


def test_a_model_may_have_several_ends() -> None:
    model = biased(7)
    model.generation_config.eos_token_id = [7, 9]
    assert end_tokens(model, tiny.tokenizer()) == [7, 9, tiny.EOS]
    (some,) = sample(model, tiny.tokenizer(), [Group([1])], Sampling(1, 5))
    assert some[0].ids == [7]
    assert some[0].finished


def test_no_end_at_all_is_an_error() -> None:
    model, tokenizer = tiny.model(), tiny.tokenizer()
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="set tokenizer"):
        end_tokens(model, tokenizer)


def test_the_model_is_left_in_its_mode() -> None:
    model = tiny.model().train()
    sample(model, tiny.tokenizer(), [Group([1])], Sampling(1, 2))
    assert model.training
    assert torch.is_grad_enabled()
