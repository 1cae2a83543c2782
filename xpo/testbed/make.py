"""Make the testbed's shipped files from nothing: tokenizer, start model and pool.

    python -m xpo.testbed.make --output DIR

Everything follows from the grammar and ``--seed``, in about five minutes on two cores. Weights can differ in the last
digits from one machine to the next, and samples with them, which is why the result is shipped and not rebuilt.
"""

import argparse
import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from xpo.testbed.grammar import review
from xpo.testbed.pool import Row, write
from xpo.testbed.world import SPLITS, facts, split_prompts, topics

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
# A user turn needs no end: the next turn's token is one. Only an assistant turn closes, with EOS, so the text before
# a completion is token for token the same with and without it.
TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{%- elif message['role'] in ('system', 'user') -%}"
    "<|{{ message['role'] }}|>{{ message['content'] }}"
    "{%- else -%}"
    "{{ raise_exception('The testbed knows the roles system, user and assistant, not ' ~ message['role']) }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
CONTEXT = 512
LONGEST = 96
FACT_SHARE = 0.15
DOCUMENTS, VOCABULARY = 40960, 1280

Document = tuple[str, str]


def corpus(size: int, seed: int) -> list[Document]:
    """Prompts with a review or a fact each. All topics are here: only preference data is held out."""
    rng = random.Random(f"corpus {seed}")
    known = [(fact.prompt, fact.completion) for split in SPLITS for fact in facts(split)]
    reviewed = topics()
    documents: list[Document] = []
    for _ in range(size):
        if rng.random() < FACT_SHARE:
            documents.append(rng.choice(known))
        else:
            topic = rng.choice(reviewed)
            documents.append((rng.choice(topic.prompts()), review(topic, rng)))
    return documents


def train_tokenizer(documents: list[Document], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so any text encodes. It adds no token by itself: the chat template owns them all."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS, *TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((text for document in documents for text in document), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(TURNS),
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of about a million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=336,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # Sampling is the model's own distribution, untouched: on-policy methods assume that of whoever calls generate().
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=LONGEST,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def batches(rows: list[list[int]], size: int, epochs: int, rng: random.Random) -> Iterator[list[list[int]]]:
    """Batches of rows of about one length, so that little of a batch is padding."""
    for _ in range(epochs):
        rng.shuffle(rows)
        chunk = 32 * size
        for start in range(0, len(rows) - chunk + 1, chunk):
            near = sorted(rows[start : start + chunk], key=len)
            order = list(range(0, chunk, size))
            rng.shuffle(order)
            yield from (near[at : at + size] for at in order)


def pretrain(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: list[Document], seed: int, epochs: int = 2
) -> None:
    """Next-token prediction over prompt and completion, with one cosine of AdamW."""
    size, peak = 64, 4e-3
    rng = random.Random(f"batches {seed}")
    rows = [tokenizer.apply_chat_template(turns(*document), return_dict=False) for document in documents]
    steps = epochs * (len(rows) // (32 * size)) * 32
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
    )
    model.train()
    for step, batch in enumerate(batches(rows, size, epochs, rng)):
        longest = max(map(len, batch))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step + 1:>5} of {steps}  loss {loss.item():.3f}", flush=True)
    model.eval()


def turns(prompt: str, completion: str | None = None) -> list[dict[str, str]]:
    """A conversation, with or without its answer."""
    answer = [] if completion is None else [{"role": "assistant", "content": completion}]
    return [{"role": "user", "content": prompt}, *answer]


@torch.no_grad()
def sample(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], k: int, size: int = 64
) -> Iterator[tuple[str, list[str], list[bool]]]:
    """K samples a prompt at temperature 1, and whether each ended by itself."""
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        inputs = tokenizer.apply_chat_template(
            [turns(prompt) for prompt in part],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            padding=True,
            tokenizer_kwargs={"padding_side": "left"},
        )
        out = model.generate(**inputs, num_return_sequences=k)[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        ended = (out == tokenizer.eos_token_id).any(dim=1).tolist()
        for number, prompt in enumerate(part):
            yield prompt, texts[number * k : number * k + k], ended[number * k : number * k + k]


def make(output: Path, documents: int, vocabulary: int, seed: int) -> None:
    """Write all of the testbed's files to a folder."""
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    texts = corpus(documents, seed)
    tokenizer = train_tokenizer(texts, vocabulary)
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    pretrain(model, tokenizer, texts, seed)
    tokenizer.save_pretrained(output)
    model.save_pretrained(output)
    rows = [
        Row(split, prompt, tuple(completions), tuple(ended))
        for split, prompts in split_prompts(seed=seed).items()
        for prompt, completions, ended in sample(model, tokenizer, prompts, k=4)
    ]
    write(output / "pool.jsonl.gz", rows)
    print(f"{len(rows)} prompts in {output}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xpo.testbed.make", description="Make the testbed's shipped files.")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="size of the corpus")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="tokens, of which 256 are bytes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make(options.output, options.documents, options.vocabulary, options.seed)


if __name__ == "__main__":
    main()
