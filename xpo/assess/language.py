"""Scores of a language model: its log-probability of a completion, beside that of its reference or by itself."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.assess.batches import by_tokens
from xpo.assess.items import Item
from xpo.assess.opinions import Opinion
from xpo.assess.plans import HOW, Plan
from xpo.assess.references import place_of
from xpo.assess.settings import EvalSettings, Scorer
from xpo.data.counts import Counts
from xpo.data.tokenize import tokenize
from xpo.errors import ModelError
from xpo.models.fingerprint import fingerprint
from xpo.models.guard import choose_engine
from xpo.models.load import load_policy, load_tokenizer
from xpo.models.scoring import Engine, innermost, score, text_config
from xpo.train.bar import Bar
from xpo.train.settings import ModelSettings


def _norm(scores: Scores) -> Tensor:
    found: Tensor = -torch.linalg.vector_norm(scores.logps, dim=1)
    return found


#: What is made of the log-probabilities of a completion's tokens; sum, average and norm are RewardBench's.
_REDUCE: Mapping[Scorer, Callable[[Scores], Tensor]] = {
    "implicit": Scores.sum,
    "implicit_avg": Scores.mean,
    "logp_sum": Scores.sum,
    "logp_avg": Scores.mean,
    "logp_norm": _norm,
}


def opinion_of(plan: Plan, items: Sequence[Item], settings: EvalSettings, device: torch.device, label: str) -> Opinion:
    """Score every completion.

    Raises:
        ModelError: a model cannot be loaded, or says what is no number.
    """
    own, config = settings.own, named(plan.name, settings.model)
    tokenizer = load_tokenizer(config, settings.run.chat_template_path)
    model = load(config, device)
    counts = Counts(rows=len(items))
    longest = own.max_length or context(model)
    groups = groups_of(items, tokenizer, longest, settings.run.max_prompt_length, counts)
    unread = Counter({f"longer than {longest} tokens": len(items) - len(groups)} if len(groups) < len(items) else {})
    lines = [f"{label}: {line}" for line in counts.lines()]
    if not groups:
        raise ModelError(f"model '{plan.name}': no row fits into {longest} tokens; raise --max_length")
    check_vocabulary(model, groups, f"model '{plan.name}'")
    engine, told = choose_engine(model, groups, "tree", device)
    lines += [f"{label}: {line}" for line in told]
    found = _scored(model, groups, plan, engine, own.batch_tokens, f"scoring {label}")
    digest = digest_of(model)
    if plan.start is not None:
        if plan.start.name is None:
            assert isinstance(model, PeftModel)
            base = _scored(
                model, groups, plan, engine, own.batch_tokens, f"reference of {label}", switch=model.disable_adapter
            )
        else:
            del model
            gc.collect()
            reference = load(named(plan.start.name, settings.model, revision="main"), device)
            check_vocabulary(reference, groups, f"reference '{plan.start.name}'")
            engine, _ = choose_engine(reference, groups, "tree", device)
            base = _scored(reference, groups, plan, engine, own.batch_tokens, f"reference of {label}")
        found = [
            [own.beta * (new - old) for new, old in zip(mine, theirs, strict=True)]
            for mine, theirs in zip(found, base, strict=True)
        ]
    return Opinion(
        label,
        HOW[plan.scorer].format(beta=own.beta),
        None if plan.start is None else plan.start.about,
        scores={group.row: some for group, some in zip(groups, found, strict=True)},
        unread=unread,
        lines=([f"{label}: {plan.note}"] if plan.note else []) + lines,
        model=digest,
    )


def named(name: str, config: ModelSettings, revision: str | None = None) -> ModelSettings:
    """How a model is loaded, with its name, and another revision than that of the settings if one is given."""
    given: dict[str, Any] = {"model_name_or_path": place_of(name)}
    if revision is not None:
        given["model_revision"] = revision
    return replace(config, **given)


def load(config: ModelSettings, device: torch.device) -> Any:
    """A language model, frozen, on its device; quantised weights are put there as they are loaded."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    policy = load_policy(config, training=False)
    if policy.quantization is None:
        policy.model.to(device)
    return policy.model.eval().requires_grad_(False)


def context(model: torch.nn.Module) -> int | None:
    """Most tokens that a model was made for; None where it does not say."""
    most = getattr(text_config(model), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def digest_of(model: torch.nn.Module) -> str | None:
    """What tells a model from every other one; None where its weights are not here to be read."""
    try:
        return fingerprint(model)
    except ModelError:
        return None


def groups_of(
    items: Sequence[Item],
    tokenizer: PreTrainedTokenizerBase,
    longest: int | None,
    longest_prompt: int | None,
    counts: Counts,
) -> list[Group]:
    """Items as training would read them, those left out that do not fit; ``Group.row`` is the number of the item."""
    # Preferences between completions of the same tokens are ties, and not left out.
    rows = [replace(item.row, pairs=[]) for item in items]
    groups, _ = tokenize(rows, tokenizer, max_length=longest, max_prompt_length=longest_prompt, counts=counts)
    return groups


def check_vocabulary(model: Any, groups: Sequence[Group], name: str) -> None:
    """Refuse a model that does not know all tokens.

    Raises:
        ModelError: it does not.
    """
    size = innermost(model).get_input_embeddings().num_embeddings  # type: ignore[operator]  # torch types every attribute
    highest = max(max(group.prompt_ids, default=0) for group in groups)
    highest = max(highest, max(max(one.ids, default=0) for group in groups for one in group.completions))
    if highest >= size:
        raise ModelError(
            f"{name} has a vocabulary of {size} tokens, and the tokenizer of the model makes token {highest}; give "
            "models and a tokenizer that belong together"
        )


def _scored(
    model: Any,
    groups: Sequence[Group],
    plan: Plan,
    engine: Engine,
    budget: int,
    what: str,
    switch: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[list[float]]:
    """A number for every completion of every group."""
    found: list[list[float]] = [[] for _ in groups]
    device = next(model.parameters()).device
    with torch.no_grad(), switch(), Bar(what, len(groups)) as bar:
        for places in by_tokens(groups, budget):
            some = [groups[place] for place in places]
            values = iter(_REDUCE[plan.scorer](score(model, Batch.of(some, device=device), engine)).tolist())
            for place, group in zip(places, some, strict=True):
                found[place] = [next(values) for _ in group.completions]
                if not all(map(math.isfinite, found[place])):
                    raise ModelError(f"{what}: a log-probability is not a finite number; is '{plan.name}' whole?")
            bar.step(len(places))
    return found
