"""A model made on the spot: a tokenizer trained on the rows at hand, and random weights of a chosen size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

#: Special tokens; a turn ends with the token that ends a text.
START, END, PAD = "<|start|>", "<|end|>", "<|pad|>"
#: Renders a prompt as the beginning of the conversation that answers it, to the token.
TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\\n' + message['content'] + '<|end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Sizes of a Llama; the larger ones are those of Llama 3."""

    hidden: int
    layers: int
    heads: int
    keys: int
    inner: int
    vocabulary: int
    tied: bool = True


SIZES: Mapping[str, Size] = {
    "tiny": Size(hidden=64, layers=2, heads=4, keys=4, inner=172, vocabulary=2000),  # to try the program out
    "40m": Size(hidden=512, layers=8, heads=8, keys=8, inner=1376, vocabulary=32_000),
    "1b": Size(hidden=2048, layers=16, heads=32, keys=8, inner=8192, vocabulary=128_256),
    "8b": Size(hidden=4096, layers=32, heads=32, keys=8, inner=14_336, vocabulary=128_256, tied=False),
}


def make_model(size: Size, rows: Iterable[Mapping[str, Any]], folder: Path, dtype: str, device: str) -> Path:
    """Train the tokenizer, draw the weights from a seed, and save both in ``folder``."""
    tokenizer = make_tokenizer(rows, size.vocabulary)
    config = LlamaConfig(
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.keys,
        intermediate_size=size.inner,
        # Little text gives fewer tokens than that; the head costs what it costs in a model of this size all the same.
        vocab_size=size.vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=size.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=dtype,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(rows: Iterable[Mapping[str, Any]], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most ``vocabulary`` tokens, with a chat template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts(rows), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=PAD)
    tokenizer.add_special_tokens({"additional_special_tokens": [START]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """All that is said in some pairs."""
    for row in rows:
        for name in ("prompt", "chosen", "rejected"):
            cell = row[name]
            yield from [cell] if isinstance(cell, str) else (str(message["content"]) for message in cell)
