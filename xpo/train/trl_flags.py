"""Flags that TRL or transformers know and xpo does not honour as they are: each has another name here, or a reason.

A flag is never ignored. One that asks for what xpo does anyway is accepted; one on which no result hangs is accepted
and said to change nothing; one that another setting says too becomes that (``translate``); every other is refused by
name, with the way out. A setting that the chosen algorithm declares itself always comes first.
"""

from __future__ import annotations

from collections.abc import Mapping

from xpo.train.foreign import METHOD, METRICS, OBJECTS, SAMPLING, TEXTS, Foreign

#: Other names of settings. A name is only replaced when the setting behind it exists.
ALIASES: Mapping[str, str] = {
    "model": "model_name_or_path",
    "dataset": "dataset_name",
    "test_split_size": "eval_size",
    "ref_model": "reference_model",
    "ref_model_name_or_path": "reference_model",
    "torch_dtype": "dtype",
    "reward_funcs": "reward",
    "num_ppo_epochs": "num_iterations",
    "num_mini_batches": "refresh_steps",
    "response_length": "max_completion_length",
    "max_new_tokens": "max_completion_length",
    "judge_model": "judge",
    "value_model_path": "value_model",
    "critic_model_name_or_path": "value_model",
    "reward_model_name_or_path": "reward",
    "max_seq_length": "max_length",
    "overwrite_output_dir": "overwrite",
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}

_SAMPLING = (
    "samples are drawn from the model's whole distribution, because the loss weighs them by it; "
    "only --temperature and --max_completion_length shape them"
)
_BACKEND = "completions are sampled with the model that is being trained, by transformers; leave the flag out"
_STEP = (
    "the completions of one optimiser step are sampled together: set --per_device_train_batch_size and "
    "--gradient_accumulation_steps; or --refresh_steps to sample for several steps at once"
)
_SHOWN = "completions are shown at the end of a run: set --sample_completions"
_PADDING = "padding never counts in xpo, so there is nothing to set; leave the flag out"
_ORDER = "the order of the data is set by --train_sampling_strategy: random, sequential or group_by_length"
_LOADER = "rows are in memory and tokenized before training begins; --dataloader_num_workers is all there is to set"

#: Flags of TRL's commands and of older releases of TRL and transformers.
FOREIGN: Mapping[str, Foreign] = {
    "datasets": Foreign("a run trains on one source; join the data sets and give the result as --dataset", (None, [])),
    "dataset_streaming": Foreign("a run reads its data once and knows every row; give a smaller split", (False,)),
    "streaming": Foreign("a run reads its data once and knows every row; give a smaller split", (False,)),
    "ignore_bias_buffers": Foreign("set --ddp_broadcast_buffers false instead", (False,)),
    "shuffle_dataset": Foreign(_ORDER, (True,)),
    "group_by_length": Foreign(_ORDER, (False,)),
    "truncation_mode": Foreign(
        "what is too long loses the beginning of its prompt, never the end of a completion; leave the flag out, "
        "or remove long rows from the data",
        ("keep_end",),
    ),
    "model_init_kwargs": Foreign(
        'it takes a JSON object, such as {"dtype": "bfloat16"}; or say it with --dtype', (None, {})
    ),
    "router_aux_loss_coef": Foreign("the loss is the method's alone, without a load-balancing term", (None, 0, 0.0)),
    "dataset_num_proc": Foreign("rows are prepared in one process", (None, 1), idle=int),
    "padding_free": Foreign("--layout tree packs rows without padding; leave the flag out", (False, True)),
    "pad_to_multiple_of": Foreign("padding never counts in xpo", (None, "auto"), idle=int),
    "pad_token": Foreign(_PADDING, (None,)),
    "padding_value": Foreign(_PADDING),
    "label_pad_token_id": Foreign(_PADDING, (-100,)),
    "precompute_ref_log_probs": Foreign(
        "the reference scores a completion once, when it first comes up: see --reference_cache", (False, True)
    ),
    "precompute_ref_batch_size": Foreign("the reference sees the same batches as the policy", (None,), idle=int),
    "force_use_ref_model": Foreign("give the other model as --reference_model", (False,)),
    "reference_free": Foreign(METHOD, (False,)),
    "activation_offloading": Foreign("set --activation_checkpointing to save memory", (False,)),
    "model_adapter_name": Foreign("give the adapter's directory as --model"),
    "ref_adapter_name": Foreign("when --model is an adapter, the reference is that adapter, frozen"),
    "generate_during_eval": Foreign(_SHOWN, (False,)),
    "logging_dir": Foreign("logs go where the tracker of --report_to puts them: set TENSORBOARD_LOGGING_DIR"),
    "save_safetensors": Foreign("models are saved as safetensors", (True,)),
    # What makes one method differ from another.
    "beta": Foreign(METHOD),
    "loss_type": Foreign(METHOD),
    "loss_weights": Foreign(METHOD, (None,)),
    "ld_alpha": Foreign(METHOD, (None, 1, 1.0)),
    "f_divergence_type": Foreign(METHOD),
    "f_alpha_divergence_coef": Foreign(METHOD, (0.5,)),
    "label_smoothing": Foreign(METHOD, (0, 0.0)),
    "rpo_alpha": Foreign("an NLL on the chosen completions is added by --sft_coef", (None,)),
    "use_weighting": Foreign(METHOD, (False,)),
    "discopop_tau": Foreign(METHOD, (0.05,)),
    "desirable_weight": Foreign(METHOD),
    "undesirable_weight": Foreign(METHOD),
    "epsilon": Foreign(METHOD),
    "epsilon_high": Foreign(METHOD, (None,)),
    "normalize_advantages": Foreign(METHOD, (False,)),
    "reward_clip_range": Foreign(METHOD, (None,)),
    "mask_truncated_completions": Foreign(
        "a completion that was cut off counts as it is; --missing_eos_penalty takes something off its reward", (False,)
    ),
    # Sampling.
    "min_p": Foreign(_SAMPLING, (None, 0, 0.0)),
    "repetition_penalty": Foreign(_SAMPLING, (1, 1.0)),
    "generation_kwargs": Foreign(_SAMPLING, (None, {})),
    "chat_template_kwargs": Foreign("write them into a template and give it as --chat_template_path", (None, {})),
    "num_generations_eval": Foreign("evaluation samples as many completions as training: --num_generations", (None,)),
    "generation_batch_size": Foreign(_STEP, (None,)),
    "steps_per_generation": Foreign(_STEP, (None,)),
    "cache_implementation": Foreign(_BACKEND, (None,)),
    "ds3_gather_for_generation": Foreign(_BACKEND, (True,)),
    "use_transformers_continuous_batching": Foreign(_BACKEND, (False,)),
    "transformers_continuous_batching_config": Foreign(_BACKEND, (None,)),
    "use_transformers_paged": Foreign(_BACKEND, (False,)),
    "vllm_mode": Foreign("vLLM runs as a server of its own; give --use_vllm and --vllm_server_base_url", ("server",)),
    "vllm_model_impl": Foreign(_BACKEND, ("vllm",)),
    "vllm_enable_sleep_mode": Foreign(_BACKEND, (False,)),
    "vllm_structured_outputs_regex": Foreign(_BACKEND, (None,)),
    "vllm_server_host": Foreign(_BACKEND, ("0.0.0.0",)),
    "vllm_server_port": Foreign(_BACKEND, (8000,)),
    "vllm_server_timeout": Foreign(_BACKEND, (240, 240.0)),
    "vllm_group_port": Foreign(_BACKEND, (51216,)),
    "vllm_gpu_memory_utilization": Foreign(_BACKEND, (0.3,)),
    "vllm_max_model_length": Foreign(_BACKEND, (None,)),
    "vllm_tensor_parallel_size": Foreign(_BACKEND, (1,)),
    "log_unique_prompts": Foreign(_SHOWN, (False,)),
    "log_multimodal": Foreign("the data is text", (True,)),
    **TEXTS,
    **SAMPLING,
    **OBJECTS,
}

#: Training arguments that xpo's loop would not honour; their defaults and the values listed here are accepted.
REFUSED: Mapping[str, Foreign] = {
    "label_smoothing_factor": Foreign(
        "it is about next-token labels; a method that smooths has its own label_smoothing"
    ),
    "label_names": Foreign(METRICS),
    "include_for_metrics": Foreign(METRICS),
    "prediction_loss_only": Foreign(METRICS),
    "batch_eval_metrics": Foreign(METRICS),
    "eval_do_concat_batches": Foreign(METRICS),
    "eval_use_gather_object": Foreign(METRICS),
    "eval_accumulation_steps": Foreign(METRICS),
    "do_predict": Foreign("a run ends with an evaluation of the rows held out: set --eval_size or --eval_dataset"),
    "average_tokens_across_devices": Foreign("losses are always divided by counts over all processes"),
    "bf16_full_eval": Foreign("evaluation computes as training does: set --bf16"),
    "fp16_full_eval": Foreign("evaluation computes as training does: set --fp16"),
    "dataloader_pin_memory": Foreign(_LOADER, (False,)),
    "dataloader_persistent_workers": Foreign(_LOADER),
    "dataloader_prefetch_factor": Foreign(_LOADER),
    "dataloader_multiprocessing_context": Foreign(_LOADER),
    "dataloader_in_order": Foreign(_LOADER),
    "dataloader_drop_last": Foreign("every row counts, also those of the last, smaller step"),
    "length_column_name": Foreign("lengths are counted in tokens"),
    "remove_unused_columns": Foreign("columns of the data never reach the model; leave the flag out", (True,)),
    "use_liger_kernel": Foreign("it replaces parts of the model's forward, and the log-probabilities with them"),
    "liger_kernel_config": Foreign("it replaces parts of the model's forward, and the log-probabilities with them"),
    "neftune_noise_alpha": Foreign("noise on the embeddings would also change the log-probabilities the loss compares"),
    "use_cache": Foreign("a cache has no use in training; sampling switches it on by itself"),
    "include_num_input_tokens_seen": Foreign("xpo counts the tokens itself", (False,)),
    "parallelism_config": Foreign("a completion is scored on one device; give --fsdp or --deepspeed to spread a model"),
}
