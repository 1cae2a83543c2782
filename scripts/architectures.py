"""Tiny random models of many architectures, and whether the tree layout computes what padded rows compute."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.models.guard import choose_engine
from xpo.models.load import disable_dropout
from xpo.models.scoring import PLAIN, Engine, score

VOCABULARY = 96
#: Shorter than the rows, so that a window counted along the row rather than along the sequence shows.
WINDOW = 12

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # far from uniform, so that a wrong token or position shows
}
OLD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}


@dataclass(frozen=True)
class Architecture:
    """A model type with what makes it special, and the settings of its tiny model.

    Attributes:
        kind: the ``model_type`` of transformers.
        trait: what could go wrong with trees.
        settings: of the tiny model.
        reason: why trees are not used; part of the line that says so. Empty where they are.
    """

    kind: str
    trait: str
    settings: Mapping[str, Any]
    reason: str = ""

    def model(self, **more: Any) -> PreTrainedModel:
        """A random model, the same each time, in evaluation mode."""
        config = AutoConfig.for_model(
            self.kind, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0, **self.settings
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config, **more).eval()
        disable_dropout(model)
        return model


ARCHITECTURES = (
    Architecture("llama", "rotary positions", SMALL),
    Architecture("qwen2", "biases", SMALL),
    Architecture("qwen3", "normalised queries and keys", {**SMALL, "head_dim": 8}),
    Architecture("mistral", "a sliding window", {**SMALL, "sliding_window": WINDOW}),
    Architecture("gemma", "scaled embeddings", {**SMALL, "head_dim": 8}),
    Architecture(
        "gemma2",
        "alternating windows, soft caps",
        {**SMALL, **ALTERNATING, "head_dim": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    ),
    Architecture("gemma3_text", "alternating windows, two rotary bases", {**SMALL, **ALTERNATING, "head_dim": 8}),
    Architecture("phi", "partial rotary positions, a bias in the head", {**SMALL, "num_key_value_heads": 4}),
    Architecture("phi3", "fused projections, a sliding window", {**SMALL, "sliding_window": WINDOW}),
    Architecture("cohere", "scaled logits", {**SMALL, "logit_scale": 0.5}),
    Architecture("granite", "scaled logits, scaled residuals", {**SMALL, "logits_scaling": 4.0}),
    Architecture("olmo2", "norms after the layers", SMALL),
    Architecture("stablelm", "partial rotary positions", SMALL),
    Architecture("starcoder2", "a sliding window, biases", {**SMALL, "sliding_window": WINDOW}),
    Architecture("gpt2", "learned positions", {**OLD, "n_positions": 128}),
    Architecture(
        "gpt_neo",
        "a window counted along the row",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "window_size": WINDOW,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 128,
            "initializer_range": 0.3,
        },
        reason="log-probabilities differ",
    ),
    Architecture("gptj", "interleaved rotary positions", {**OLD, "rotary_dim": 4, "n_positions": 128}),
    Architecture("gpt_neox", "parallel residuals", SMALL),
    Architecture("opt", "learned positions with an offset", {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    Architecture(
        "bloom",
        "ALiBi",
        {"hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3},
        reason="takes no positions",
    ),
    Architecture("falcon", "multi-query attention", {**SMALL, "alibi": False}),
    Architecture("falcon", "ALiBi", {**SMALL, "alibi": True}, reason="ValueError"),
    Architecture(
        "mpt", "ALiBi", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 128}, reason="takes no positions"
    ),
    Architecture("mixtral", "a mixture of experts", {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}),
    Architecture(
        "qwen3_moe",
        "a mixture of experts",
        {**SMALL, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    Architecture(
        "gpt_oss",
        "attention sinks, alternating windows",
        {**SMALL, **ALTERNATING, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    Architecture("smollm3", "layers without positions", SMALL),
    Architecture(
        "deepseek_v3",
        "latent attention",
        {
            **SMALL,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        },
    ),
    Architecture("glm4", "partial rotary positions", {**SMALL, "head_dim": 8}),
    Architecture("nemotron", "squared activations", SMALL),
    Architecture("exaone4", "alternating windows", {**SMALL, **ALTERNATING}),
    Architecture(
        "llama4_text",
        "chunked attention",
        {
            **SMALL,
            "head_dim": 8,
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "layer_types": ["chunked_attention", "chunked_attention", "full_attention"],
            "no_rope_layers": [1, 1, 0],
        },
    ),
    Architecture(
        "lfm2",
        "short convolutions",
        {**SMALL, "layer_types": ["conv", "full_attention", "conv"]},
        reason="layers of conv",
    ),
    Architecture(
        "qwen3_next",
        "linear attention",
        {
            **SMALL,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        reason="layers of linear_attention",
    ),
    Architecture(
        "jamba",
        "a state space in some layers",
        {
            **SMALL,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
        reason="layers of linear_attention",
    ),
    Architecture(
        "bamba",
        "a state space in some layers",
        {
            **SMALL,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "mamba_expand": 2,
        },
        reason="layers of linear_attention",
    ),
    Architecture(
        "recurrent_gemma",
        "recurrent blocks",
        {
            **SMALL,
            "head_dim": 8,
            "lru_width": 32,
            "attention_window_size": WINDOW,
            "block_types": ["recurrent", "attention", "recurrent"],
        },
        reason="layers of linear_attention",
    ),
    Architecture(
        "mamba",
        "a state space",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        reason="takes no positions",
    ),
    Architecture(
        "rwkv",
        "a recurrence",
        {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
        reason="takes no positions",
    ),
)


def groups(seed: int = 0) -> list[Group]:
    """Pairs and a list of random tokens; prompts and completions longer than the window; some begin alike."""
    rng = random.Random(seed)

    def ids(least: int, most: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(least, most))]

    made = [
        Group(ids(3, 30), [Completion([*ids(2, 25), 2], role) for role in ("chosen", "rejected")], [(0, 1)], row)
        for row in range(5)
    ]
    made.append(Group(ids(20, 30), [Completion([*ids(4, 20), 2]) for _ in range(5)], row=5))
    stem = ids(15, 18)
    made.append(Group(ids(4, 9), [Completion([*stem, *ids(2, 9), 2]) for _ in range(3)], row=6))
    return made


@dataclass(frozen=True)
class Finding:
    """What the guard decided for an architecture, and how far its choice is from the plain way."""

    architecture: Architecture
    engine: Engine
    lines: tuple[str, ...]
    logps: float
    gradient: float


def examine(architecture: Architecture, **more: Any) -> Finding:
    """Let the guard choose for a tiny model, then compare log-probs and gradients with the plain way."""
    model = architecture.model(**more)
    material = groups()
    engine, lines = choose_engine(model, material, "tree", torch.device("cpu"))
    batch = Batch.of(groups(1))
    found, expected = (_look(model, batch, way) for way in (engine, PLAIN))
    scale = float(expected[1].abs().max())
    return Finding(
        architecture,
        engine,
        tuple(lines),
        float((found[0] - expected[0]).abs().max()),
        float((found[1] - expected[1]).abs().max()) / scale,
    )


def _look(model: PreTrainedModel, batch: Batch, engine: Engine) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    scores = score(model, batch, engine)
    signs = torch.tensor([1.0 if number % 2 else -1.0 for number in range(len(batch))])
    (scores.mean() * signs).sum().backward()  # type: ignore[no-untyped-call]  # torch
    gradient = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
    return scores.logps.detach(), gradient


def table() -> str:
    """A Markdown table of all architectures, with what the tests hold each to."""
    lines = ["| model | with | layout |", "|---|---|---|"]
    for one in ARCHITECTURES:
        layout = f"padded: {one.reason}" if one.reason else "tree"
        lines.append(f"| {one.kind} | {one.trait} | {layout} |")
    return "\n".join(lines) + "\n"
