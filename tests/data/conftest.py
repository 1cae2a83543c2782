"""Small tokenizers made in code: byte-level BPE over a few sentences, with the habits of real ones as options."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

Make = Callable[..., PreTrainedTokenizerFast]

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Question: what colour is the sky? Answer: the sky is blue, or grey, or black at night.",
    "You are a helpful assistant. system user assistant",
    "one two three four five six seven eight nine ten",
] * 4

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: A template that never closes a turn, as those of base models are.
OPEN = (
    "{{ bos_token or '' }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
SPECIAL = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}


def _core() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return core


@pytest.fixture(scope="session")
def make_tokenizer() -> Make:
    """make_tokenizer(bos=..., adds=("bos",), template=...): the special tokens there are, and those it adds itself."""
    blank = _core().to_str()

    def make(
        *, bos: bool = True, eos: bool = True, adds: tuple[str, ...] = ("bos",), template: str | None = None
    ) -> PreTrainedTokenizerFast:
        core = Tokenizer.from_str(blank)
        before = "<s> " if "bos" in adds else ""
        after = " </s>" if "eos" in adds else ""
        core.post_processor = processors.TemplateProcessing(
            single=f"{before}$A{after}",
            special_tokens=[(SPECIAL[name], core.token_to_id(SPECIAL[name])) for name in adds],
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=core,
            bos_token="<s>" if bos else None,
            eos_token="</s>" if eos else None,
            pad_token="<pad>",
            extra_special_tokens=["<|im_start|>", "<|im_end|>"],
            clean_up_tokenization_spaces=False,
            model_max_length=64,
        )
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def plain(make_tokenizer: Make) -> PreTrainedTokenizerFast:
    """Adds a BOS, as Llama does; has no chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def chat(make_tokenizer: Make) -> PreTrainedTokenizerFast:
    """ChatML without BOS, as Qwen has it: turns close with <|im_end|> and a line break; the EOS is another token."""
    return make_tokenizer(bos=False, adds=(), template=CHATML)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Write rows, or lines as they are, to a file."""

    def write(rows: list[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and small real models that may lie beside the repository; tests that want them skip otherwise."""
    path = Path(os.environ.get("XPO_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (path / "models" / "stories260K").is_dir():
        pytest.skip("no shared data and models (set XPO_SHARED)")
    return path
