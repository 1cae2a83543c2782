"""What to say of a run whose weights have become no numbers."""

from __future__ import annotations

from transformers import TrainingArguments


def diverged(args: TrainingArguments, algorithm: str, step: int) -> str:
    """The message of the error that ends a run.

    Args:
        algorithm: what it trained with.
        step: at which it was noticed.
    """
    ways = [f"lower --learning_rate {args.learning_rate:g}"]
    if not args.max_grad_norm:
        ways.append("clip gradients with --max_grad_norm 1")
    if args.fp16:
        ways.append("take --bf16 for --fp16")
    ways.append(f"look at settings and data at their extremes (`xpo check {algorithm}`)")
    return (
        f"training diverged: by step {step} weights are NaN or infinite, so it has stopped, and they are not saved; "
        f"checkpoints from before stay in {args.output_dir}. Ways out: {'; '.join(ways)}"
    )
