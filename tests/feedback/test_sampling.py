"""Sampling: its own random stream for every sample, the distribution drawn from, where completions end, and caches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests import tiny
from xpo import Group, ModelError, SettingError
from xpo.feedback import decode, sampling
from xpo.feedback.decode import keeps_keys
from xpo.feedback.sampling import Mixture, Sampling, end_tokens, pick, sample
from xpo.models.load import Policy
from xpo.models.reference import Reference, start_of


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


#: Architectures that place tokens in different ways: rotary, learned, by distance (ALiBi), and within a window.
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny.model,
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SIZES)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(hidden_size=32, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, **HEADS, **SIZES)
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(hidden_size=32, intermediate_size=48, **HEADS, **SIZES)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, **SIZES)),
    "falcon": lambda: FalconForCausalLM(FalconConfig(hidden_size=32, alibi=True, **HEADS, **SIZES)),
    "mistral": lambda: MistralForCausalLM(
        MistralConfig(hidden_size=32, intermediate_size=48, num_key_value_heads=2, sliding_window=4, **HEADS, **SIZES)
    ),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            hidden_size=32,
            intermediate_size=48,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
            **HEADS,
            **SIZES,
        )
    ),
    "mamba": lambda: MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **SIZES)),
}
SIZES: dict[str, Any] = {"vocab_size": tiny.SIZE, "bos_token_id": None, "eos_token_id": tiny.EOS, "pad_token_id": None}
HEADS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4}


def made(name: str) -> PreTrainedModel:
    """Random and far from uniform, in double precision so that both ways round to the same tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = MODELS[name]().eval().double()
        if name != "llama":
            for weight in model.parameters():
                if weight.dim() > 1 and name != "mamba":
                    torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_samples_what_transformers_would(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of different lengths, rows that end early, and windows shorter than the text."""
    model, groups, settings = made(name), tiny.groups("prompts", 5), Sampling(3, 12)
    model.generation_config.eos_token_id = list(range(0, tiny.SIZE, 5))
    assert keeps_keys(model) == (name != "mamba")
    found = ids(model, groups, settings)
    monkeypatch.setattr(decode, "keeps_keys", lambda model: False)
    assert ids(model, groups, settings) == found
    assert len({len(one) for some in found for one in some}) > 1


class Read:
    """What a model was given at each call, as (rows, columns)."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.shapes: list[tuple[int, ...]] = []
        model.get_input_embeddings().register_forward_hook(lambda _, args, __: self.shapes.append(tuple(args[0].shape)))


def test_a_prompt_is_read_once_for_all_its_samples() -> None:
    model = biased(0)  # never ends, so that all rows stay
    read = Read(model)
    groups = [Group([1, 2, 3], row=0), Group([4], row=1), Group([1, 2, 3], row=2)]
    sample(model, tiny.tokenizer(), groups, Sampling(5, 4))
    assert read.shapes == [(2, 3), *[(15, 1)] * 3]


def test_rows_that_ended_leave_the_batch() -> None:
    model, groups = tiny.model(), tiny.groups("prompts", 20)
    read = Read(model)
    some = sample(model, tiny.tokenizer(), groups, Sampling(4, 40))
    lengths = [len(completion.ids) for group in some for completion in group]
    alive = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    rows = [shape[0] for shape in read.shapes[1:]]
    assert len(rows) == len(alive)  # and nothing is computed once all have ended
    assert all(present >= needed for present, needed in zip(rows, alive, strict=True))
    assert all(3 * present <= 4 * needed + 4 for present, needed in zip(rows, alive, strict=True))


def test_a_cache_that_stays_empty_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, groups, settings = tiny.model().double(), tiny.groups("prompts", 4), Sampling(2, 6)
    expected = ids(model, groups, settings)
    forward = LlamaForCausalLM.forward

    def forgetful(self: Any, attention_mask: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        return forward(self, attention_mask=attention_mask, **{**kwargs, "use_cache": False})

    monkeypatch.setattr(LlamaForCausalLM, "forward", forgetful)
    assert keeps_keys(model)
    assert ids(model, groups, settings) == expected


def test_each_group_may_have_a_stream_of_its_own() -> None:
    model, groups, settings = tiny.model().double(), tiny.groups("prompts", 3), Sampling(2, 8)
    found = sample(model, tiny.tokenizer(), groups, settings, stream=["a", "b", "a"])
    apart = [ids(model, [group], settings, stream)[0] for group, stream in zip(groups, "aba", strict=True)]
    assert [[one.ids for one in some] for some in found] == apart
    with pytest.raises(ValueError, match="zip"):
        sample(model, tiny.tokenizer(), groups, settings, stream=["a"])


@pytest.mark.parametrize(("top_k", "top_p"), [(None, 0.7), (5, 1.0), (5, 0.6), (1, 1.0), (None, 1e-9), (500, 0.999)])
def test_truncation_is_that_of_transformers(top_k: int | None, top_p: float) -> None:
    """Evenly spaced numbers hit each token as often as its probability says."""
    scores = torch.randn(1, 30, generator=torch.Generator().manual_seed(1)) * 2
    count = 20000
    tokens = pick(scores.expand(count, -1), (torch.arange(count) + 0.5).double() / count, top_k, top_p)
    warped = scores if top_k is None else TopKLogitsWarper(top_k)(None, scores)
    expected = torch.softmax(TopPLogitsWarper(top_p)(None, warped), -1)[0]
    found = torch.bincount(tokens, minlength=30) / count
    assert torch.allclose(found, expected.float(), atol=1.5 / count)
    assert set(tokens.tolist()) <= set(expected.nonzero()[:, 0].tolist())


def test_truncation_reaches_the_samples() -> None:
    model, groups = tiny.model(), tiny.groups("prompts", 4)
    greedy = ids(model, groups, Sampling(3, 6, top_k=1))
    assert all(some.count(some[0]) == 3 for some in greedy)
    assert greedy == ids(model, groups, Sampling(3, 6, top_p=1e-6))
    assert greedy != ids(model, groups, Sampling(3, 6))


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_truncation_that_leaves_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="--top_"):
        Sampling(1, 1, **wrong)


def adapted() -> Policy:
    """A policy with adapters that do something, and so another distribution than its base."""
    torch.manual_seed(0)
    model = get_peft_model(tiny.model(), LoraConfig(target_modules="all-linear", r=4))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return Policy(model.double().eval(), None, None, None)


def references() -> dict[str, Callable[[], tuple[Any, Reference]]]:
    def switched() -> tuple[Any, Reference]:
        policy = adapted()
        return policy.model, start_of(policy)

    def apart() -> tuple[Any, Reference]:
        return tiny.model(0).double(), Reference(tiny.model(1).double().train(), "given")

    return {"adapters": switched, "model": apart}


@pytest.mark.parametrize("kind", ["adapters", "model"])
def test_a_mixture_is_drawn_token_by_token(kind: str) -> None:
    """Samples of four tokens against plain arithmetic: whole texts, no cache, the same random numbers."""
    model, reference = references()[kind]()
    groups, settings = tiny.groups("prompts", 4), Sampling(2, 4, temperature=0.7, seed=3)

    def logits(other: bool, text: list[int]) -> torch.Tensor:
        with torch.no_grad():
            if not other:
                return model.eval()(torch.tensor([text])).logits[0, -1]
            with reference.switch():
                return reference.model.eval()(torch.tensor([text])).logits[0, -1]

    def drawn(share: float, group: Group, k: int) -> list[int]:
        text, made = list(group.prompt_ids), []
        for number in sampling._uniforms(settings, "", group.row, k).tolist():
            p, q = (torch.softmax(logits(other, text) / 0.7, -1) for other in (False, True))
            weights = (p ** (1 - share) * q**share).cumsum(-1)
            token = int((weights <= number * weights[-1]).sum())
            text, made = [*text, token], [*made, token]
            if token == tiny.EOS:
                break
        return made

    seen = set()
    for share in (0.0, 0.3, 1.0):
        found = sample(model, tiny.tokenizer(), groups, settings, mixture=Mixture(reference, share))
        expected = [[drawn(share, group, k) for k in range(2)] for group in groups]
        assert [[one.ids for one in some] for some in found] == expected
        seen.add(str(expected))
    assert len(seen) == 3
    alone = ids(model, groups, settings)
    assert alone == [[drawn(0.0, group, k) for k in range(2)] for group in groups]  # and the adapters are on again


def test_a_reference_is_left_in_its_mode() -> None:
    reference = Reference(tiny.model(1).train(), "given")
    sample(tiny.model(), tiny.tokenizer(), [Group([1])], Sampling(1, 2), mixture=Mixture(reference, 0.5))
    assert reference.model.training


def test_models_without_a_cache_of_keys_can_be_mixed_too() -> None:
    """They read the whole text at each token; with themselves they make what they make alone."""
    model, groups, settings = made("mamba"), tiny.groups("prompts", 3), Sampling(2, 5)
    mixture = Mixture(Reference(made("mamba"), "given"), 0.5)
    found = sample(model, tiny.tokenizer(), groups, settings, mixture=mixture)
    assert [[one.ids for one in some] for some in found] == ids(model, groups, settings)
