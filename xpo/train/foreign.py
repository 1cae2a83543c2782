"""What TRL's commands of text and of samples know beside the flags of pairs, and what its trainers take from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Foreign:
    """A flag that is understood but has no effect.

    Attributes:
        reason: why it is refused, and what to do instead.
        accepts: values that ask for what happens anyway.
        idle: type of further values that no result hangs on: they are taken, and the reason is told.
    """

    reason: str
    accepts: tuple[Any, ...] = ()
    idle: type | None = None


METHOD = "it belongs to one method; choose the method with --algo (`xpo algos` lists them and their settings)"
METRICS = "xpo computes its own evaluation, row by row; leave the flag out"

_PACKED = (
    "a batch is counted in rows of the data, and --layout tree reads them without padding as it is; leave the flag out"
)
_ENTROPY = "it belongs to a bonus for entropy, which no method here has"
_CORRECTED = "what samples are compared with is scored with the model itself, so there is nothing to correct"
_STOPPING = (
    "a run stops early by a callback, which is an object: from Python, xpo.train(..., "
    "callbacks=[transformers.EarlyStoppingCallback(3)], load_best_model_at_end=True, eval_strategy='steps', ...)"
)
_ADAPTERS = "adapters are made by settings: use_peft=True, lora_r=16, lora_alpha=32, lora_target_modules=[...]"
_OPTIMISER = "the optimiser is made by settings: optim, optim_args, learning_rate, lr_scheduler_type"
_OWN_LOSS = "a loss of one's own is a plugin: `xpo new NAME` writes one to begin with"

#: Flags of ``trl sft`` and ``trl reward``.
TEXTS: Mapping[str, Foreign] = {
    "packing": Foreign(_PACKED, (False,)),
    "eval_packing": Foreign(_PACKED, (None, False)),
    "packing_strategy": Foreign(_PACKED, ("bfd",)),
    "eos_token": Foreign(
        "completions end with the token that the tokenizer says; set tokenizer.eos_token and save it beside the model",
        (None,),
    ),
    "dataset_text_field": Foreign("plain text is read from the column 'text'; rename the column", ("text",)),
    "dataset_kwargs": Foreign(
        "rows are read by their columns, and always prepared; leave the flag out",
        (None, {}, {"skip_prepare_dataset": False}),
    ),
    "completion_only_loss": Foreign("completions alone are learned from, never prompts", (None, True)),
    "assistant_only_loss": Foreign(
        "of a conversation the last answer is learned; to learn from all of them, give a row for each", (False,)
    ),
    "center_rewards_coefficient": Foreign(METHOD, (None,)),
}

#: Flags of ``trl grpo``.
SAMPLING: Mapping[str, Foreign] = {
    "scale_rewards": Foreign(METHOD),
    "importance_sampling_level": Foreign(METHOD, ("token",)),
    "multi_objective_aggregation": Foreign(
        "rewards are summed, by --reward_weights, before anything is made of them", ("sum_then_normalize",)
    ),
    "delta": Foreign(METHOD, (None,)),
    "top_entropy_quantile": Foreign(METHOD, (1, 1.0)),
    "off_policy_mask_threshold": Foreign(METHOD, (None,)),
    "use_bias_correction_kl": Foreign(METHOD, (False,)),
    **dict.fromkeys(("sapo_temperature_neg", "sapo_temperature_pos"), Foreign(METHOD)),
    **dict.fromkeys(("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"), Foreign(METHOD)),
    "entropy_coef": Foreign(_ENTROPY, (0, 0.0)),
    "use_adaptive_entropy": Foreign(_ENTROPY, (False,)),
    **dict.fromkeys(("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta"), Foreign(_ENTROPY)),
    "entropy_target": Foreign(_ENTROPY),
    "max_tool_calling_iterations": Foreign("samples are text alone, without calls of tools", (None,)),
    "cast_lm_head_to_fp32": Foreign("precision is set by --dtype and --bf16; leave the flag out", (False,)),
    "vllm_importance_sampling_correction": Foreign(_CORRECTED, (False,)),
    **dict.fromkeys(
        (
            *("vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max"),
            *("vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap"),
        ),
        Foreign(_CORRECTED, (None,)),
    ),
    "log_completions_hub_repo": Foreign("--log_completions writes samples to completions.jsonl", (None,)),
}

#: Arguments of trainers, which are objects.
OBJECTS: Mapping[str, Foreign] = {
    "callbacks": Foreign("callbacks are objects: pass them from Python, xpo.train(..., callbacks=[...])", (None, [])),
    **dict.fromkeys(("early_stopping_patience", "early_stopping_threshold"), Foreign(_STOPPING)),
    "peft_config": Foreign(_ADAPTERS, (None,)),
    "quantization_config": Foreign("give load_in_4bit=True or load_in_8bit=True, with use_peft=True", (None,)),
    "args": Foreign("training arguments are settings of their own: xpo.train(..., learning_rate=1e-6)", (None,)),
    **dict.fromkeys(("optimizers", "optimizer_cls_and_kwargs"), Foreign(_OPTIMISER, (None, (None, None)))),
    "formatting_func": Foreign("rows are read by their columns; format them before they are passed", (None,)),
    "data_collator": Foreign("rows are laid out by --layout; leave it out", (None,)),
    **dict.fromkeys(("compute_metrics", "preprocess_logits_for_metrics"), Foreign(METRICS, (None,))),
    "compute_loss_func": Foreign(_OWN_LOSS, (None,)),
    "model_init": Foreign("pass the model itself", (None,)),
    "reward_processing_classes": Foreign("a reward model is read with the tokenizer beside it", (None,)),
}
