"""The shipped tokenizer, model and pool load plainly and keep their promises."""

import logging
import math
import subprocess
import sys
import warnings

import pytest

from xpo.testbed import pool

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT = [{"role": "user", "content": "Tell me about the hotel and its view."}]
ANSWER = [{"role": "assistant", "content": "The hotel was great. We loved the view."}]


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(pool.model_path())


@pytest.fixture(scope="module")
def model():
    return transformers.AutoModelForCausalLM.from_pretrained(pool.model_path()).eval()


def ids(tokenizer, messages, **options) -> list[int]:
    return tokenizer.apply_chat_template(messages, return_dict=False, **options)


def test_the_files_fit_their_budget() -> None:
    total = sum(file.stat().st_size for file in pool.model_path().rglob("*") if file.is_file())
    assert 1_000_000 < total <= 5_000_000


def test_loading_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            transformers.AutoTokenizer.from_pretrained(pool.model_path())
            transformers.AutoModelForCausalLM.from_pretrained(pool.model_path())
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_data_needs_no_torch() -> None:
    code = "import sys; from xpo.testbed import rows; rows('pairs', 'test'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_is_small_and_tied(model) -> None:
    assert model.config.model_type == "llama"
    assert model.num_parameters() < 1_200_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.max_position_embeddings >= 256


def test_special_tokens_agree_and_differ(tokenizer, model) -> None:
    own = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert len(set(own)) == 3
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == own
    assert len(tokenizer) == model.config.vocab_size


def test_the_tokenizer_adds_nothing_and_loses_nothing(tokenizer) -> None:
    for text in ("The hotel was great.", " naïve – 日本語\n\ttabs  and  spaces", "<b> {{ x }}"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_prompt_is_an_exact_prefix_of_its_conversation(tokenizer) -> None:
    for row in pool.pool()[::40]:
        prompt = [{"role": "user", "content": row.prompt}]
        before = ids(tokenizer, prompt, add_generation_prompt=True)
        for text in row.completions:
            whole = ids(tokenizer, [*prompt, {"role": "assistant", "content": text}])
            assert whole[: len(before)] == before
            assert whole[len(before) :] == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_several_turns_and_a_system_turn(tokenizer) -> None:
    system = [{"role": "system", "content": "Be brief."}]
    first = ids(tokenizer, [*system, *PROMPT, *ANSWER])
    second = ids(tokenizer, [*system, *PROMPT, *ANSWER, *PROMPT], add_generation_prompt=True)
    assert second[: len(first)] == first
    assert second.count(tokenizer.bos_token_id) == 1
    with pytest.raises(Exception, match="not tool"):
        ids(tokenizer, [{"role": "tool", "content": "x"}])


def test_the_assistant_mask_is_the_completion_with_its_end(tokenizer) -> None:
    out = tokenizer.apply_chat_template([*PROMPT, *ANSWER], return_dict=True, return_assistant_tokens_mask=True)
    before = ids(tokenizer, PROMPT, add_generation_prompt=True)
    length = len(out["input_ids"])
    assert out["assistant_masks"] == [0] * len(before) + [1] * (length - len(before))


def test_the_pool_is_on_policy(tokenizer, model) -> None:
    """The start model finds its own samples likely, and far less so under another prompt."""

    part = [(row.prompt, row.completions[0]) for row in pool.pool()[-30:]]
    swapped = [(prompt, part[number - 15][1]) for number, (prompt, _) in enumerate(part)]
    rows, starts = [], []
    for prompt, text in part + swapped:
        user = [{"role": "user", "content": prompt}]
        rows.append(ids(tokenizer, [*user, {"role": "assistant", "content": text}]))
        starts.append(len(ids(tokenizer, user, add_generation_prompt=True)))
    # Padding on the right is invisible to a causal model, so one forward does for all.
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    with torch.no_grad():
        logps = model(batch).logits[:, :-1].log_softmax(-1).gather(-1, batch[:, 1:, None])[..., 0]
    means = [float(logps[n, starts[n] - 1 : len(row) - 1].mean()) for n, row in enumerate(rows)]
    own, other = (sum(half) / len(part) for half in (means[: len(part)], means[len(part) :]))
    assert -2.2 < own < -1.0
    assert own > other + 0.2


def test_it_knows_its_facts_and_stops(tokenizer, model) -> None:
    row = pool.rows("forget", "test")[0]
    prompt = torch.tensor([ids(tokenizer, row["prompt"], add_generation_prompt=True)])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False)[0, prompt.shape[1] :]
    assert out[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(out, skip_special_tokens=True) == row["completion"][0]["content"]


def test_generation_is_the_models_own_distribution(model) -> None:
    config = model.generation_config
    assert config.do_sample
    assert (config.temperature, config.top_k, config.top_p) == (1.0, 0, 1.0)
    assert math.isfinite(config.max_new_tokens)


@pytest.mark.slow
def test_the_shipped_tokenizer_is_the_one_make_builds(tokenizer) -> None:
    """The grammar that is here wrote the corpus that the shipped files come from."""
    from xpo.testbed import make

    built = make.train_tokenizer(make.corpus(make.DOCUMENTS, seed=0), make.VOCABULARY)
    assert built.get_vocab() == tokenizer.get_vocab()
    assert built.chat_template == tokenizer.chat_template
