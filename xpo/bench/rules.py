"""Which settings of training a suite shares, makes itself, or refuses, so that its cells can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Settings that say what samples are worth: for methods that sample, and for the examination of all.
FEEDBACK = (
    *("reward", "reward_weights", "judge", "judge_url", "judge_timeout", "judge_retries", "judge_concurrency"),
    "judge_template",
)
#: Settings that the comparison rests on: one value for all methods.
SHARED = (
    *("model_name_or_path", "model_revision", "dtype", "trust_remote_code", "load_in_4bit", "load_in_8bit"),
    *("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "eval_dataset", "eval_size"),
    *("chat_template_path", "max_length", "max_prompt_length", "max_steps", *FEEDBACK),
)
#: Settings that a suite makes itself, or that would make its runs unlike -> the way out.
REFUSED: Mapping[str, str] = {
    "algo": "name the methods with --algos",
    "seed": "name the seeds with --seeds",
    "resume_from_checkpoint": "a suite goes on by itself: give the same command again",
    "overwrite": "give another --output_dir; --retry_failed runs again what failed",
    "num_train_epochs": "a pass of the data is more steps for one method than for another; give --max_steps or "
    "--budget_tokens",
    "push_to_hub": "a suite compares models; train the one you want with `xpo train`",
    "eval_strategy": "methods are examined when they have been trained",
    "eval_steps": "methods are examined when they have been trained",
    "load_best_model_at_end": "methods are examined as they are when training ends",
    "sample_completions": "the page shows what every model says to the same test prompts",
    "disable_tqdm": "what a cell prints goes to the log.txt of its folder",
    "forget_column": "methods that forget are not compared here",
    "retain_dataset": "methods that forget are not compared here",
}
#: What every run is told unless somebody says otherwise. No run has it easier for what another has cached.
DEFAULTS: Mapping[str, Any] = {"save_strategy": "no", "report_to": "none", "reference_cache": "memory"}
#: What every run is told: the suite examines by itself, and its logs are files.
FIXED: Mapping[str, Any] = {"eval_prompts": 0, "sample_completions": 0, "disable_tqdm": True}
#: Under a budget of tokens nobody knows the number of steps: it is no bound, and no schedule may depend on it.
UNBOUNDED: Mapping[str, Any] = {"max_steps": 1_000_000, "lr_scheduler_type": "constant", "warmup_steps": 0}
