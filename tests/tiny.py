"""Models, tokenizers and data so small that training takes moments; all made by code from seeds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from xpo import Algorithm, Batch, Completion, Group
from xpo.api.mixture import Part, helped
from xpo.feedback.rewards import Reward
from xpo.feedback.sampling import Sampling
from xpo.feedback.verdicts import Feedback
from xpo.models.critic import Critic
from xpo.models.load import Policy, disable_dropout
from xpo.models.reference import make_reference
from xpo.plugins import load
from xpo.train.rollouts import Rollouts
from xpo.train.settings import ModelSettings, TrainingArguments
from xpo.train.trainer import PreferenceTrainer

# Matrices this small are slower on several threads than on one.
torch.set_num_threads(1)

#: Id 0 is a word like any other: what treats it as padding loses a token.
WORDS = [*(f"w{number}" for number in range(37)), "<unk>", "<pad>", "</s>"]
SIZE = len(WORDS)
EOS, PAD = WORDS.index("</s>"), WORDS.index("<pad>")
#: A chat template of these words: a word in front of what the user says, and another in front of the answer.
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}w1 {{ message['content'] }} "
    "{% else %}w2 {{ message['content'] }} </s> {% endif %}{% endfor %}{% if add_generation_prompt %}w2 {% endif %}"
)


def tokenizer(*, pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """One token a word; nothing is added to a text."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>", pad_token=pad)
    made.clean_up_tokenization_spaces = False
    return made


def _config(vocabulary: int, **settings: Any) -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(
        vocab_size=vocabulary,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,  # far from uniform, so that a wrong token or position shows
        bos_token_id=None,
        eos_token_id=EOS if vocabulary == SIZE else None,
        pad_token_id=None,
        tie_word_embeddings=False,
        use_cache=True,
        **{**sizes, **settings},
    )


def model(seed: int = 0, *, vocabulary: int = SIZE, **settings: Any) -> LlamaForCausalLM:
    """A random Llama of some thousand parameters, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(_config(vocabulary, **settings)).eval()


def classifier(seed: int = 0, **settings: Any) -> LlamaForSequenceClassification:
    """A random reward model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForSequenceClassification(_config(SIZE, num_labels=1, **settings)).eval()


def saved(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A model and its tokenizer on disk."""
    model(seed, **settings).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def saved_for_chat(folder: Path) -> Path:
    """The same with a chat template."""
    words = tokenizer()
    words.chat_template = CHAT
    saved(folder)
    words.save_pretrained(folder)
    return folder


def text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(WORDS[:37], k=rng.randint(least, most)))


def rows(kind: str, count: int, seed: int = 0, longest: int = 9) -> list[dict[str, Any]]:
    """Rows of data of ragged lengths; prompts are all different, labels come in runs."""
    rng = random.Random(f"{kind}{seed}")
    made = []
    for number in range(count):
        row: dict[str, Any] = {"prompt": f"w{number // 37 % 37} w{number % 37} " + text(rng, 1, 5)}
        if kind == "pairs":
            row["chosen"], row["rejected"] = (" " + text(rng, 1, longest) for _ in range(2))
        elif kind == "labels":
            row["completion"], row["label"] = " " + text(rng, 1, longest), rng.random() < 0.6
        elif kind == "lists":
            row["completions"] = [" " + text(rng, 1, longest) for _ in range(rng.randint(2, 4))]
            row["scores"] = rng.sample(range(10), len(row["completions"]))
        elif kind in ("forget", "retain", "demonstrations"):
            row["completion"] = " " + text(rng, 1, longest)
        made.append(row)
    return made


def groups(kind: str, count: int, seed: int = 0, longest: int = 9) -> list[Group]:
    """The same rows as groups, completions with their EOS."""

    def ids(words: str) -> list[int]:
        return [WORDS.index(word) for word in words.split()]

    made = []
    for number, row in enumerate(rows(kind, count, seed, longest)):
        group = Group(ids(row["prompt"]), row=number, source=row)
        if kind == "pairs":
            group.completions = [Completion([*ids(row[role]), EOS], role) for role in ("chosen", "rejected")]
            group.pairs = [(0, 1)]
        elif kind == "labels":
            group.completions = [
                Completion([*ids(row["completion"]), EOS], label=row["label"], score=float(row["label"]))
            ]
        elif kind == "lists":
            scored = zip(row["completions"], row["scores"], strict=True)
            group.completions = [Completion([*ids(words), EOS], score=score / 10) for words, score in scored]
        elif kind in ("forget", "retain", "demonstrations"):
            role = "completion" if kind == "demonstrations" else kind
            group.completions = [Completion([*ids(row["completion"]), EOS], role)]
        made.append(group)
    return made


def count_reward(*, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Rewards low token ids: every completion has its own value."""
    return [sum(1.0 - token / SIZE for token in ids) / 4 for ids in completion_ids]


def algorithm(name: str, helpers: Sequence[Part] = (), **settings: Any) -> Algorithm[Any]:
    cls = load().algorithm(name).cls
    return helped(cls(cls.Config(**settings)), helpers)


@dataclass
class Fit:
    """What training left behind."""

    trainer: PreferenceTrainer
    losses: list[float]
    weights: dict[str, torch.Tensor]

    def distance(self, other: Fit) -> float:
        """Largest difference of any weight."""
        return max(float((self.weights[name] - other.weights[name]).abs().max()) for name in self.weights)


def trainer(
    name: str,
    folder: Path,
    *,
    policy: Policy | None = None,
    train: Sequence[Group] | None = None,
    config: Mapping[str, Any] | None = None,
    helpers: Sequence[Part] = (),
    beside: Sequence[Sequence[Group]] = (),
    samples: int = 4,
    iterations: int = 1,
    layout: str = "tree",
    **arguments: Any,
) -> PreferenceTrainer:
    """The loop itself, about to train a tiny model; the arguments are training arguments."""
    method = algorithm(name, helpers, **(config or {}))
    if policy is None:
        policy = Policy(model() if method.model == "policy" else classifier(), None, None, None)
        policy.model.config.pad_token_id = PAD
    disable_dropout(policy.model)
    kind = "prompts" if method.data == "rollouts" else method.data
    riding = [*beside, *([groups("retain", 11)] if kind == "forget" and not beside else [])]
    chosen = {
        "output_dir": str(folder),
        "use_cpu": True,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "max_steps": 5,
        **arguments,
    }
    settings = TrainingArguments(**chosen)
    rollouts = None
    if method.data == "rollouts":
        sampling = Sampling(method.needs.samples if method.needs.opponent else samples, 6, 1.0, settings.seed)
        rewards = [Reward("count", count_reward)]
        feedback = Feedback(tokenizer(), rewards, wins=method.needs.wins)
        rollouts = Rollouts(method, feedback, sampling, keep_logps=iterations > 1)
    return PreferenceTrainer(
        algorithm=method,
        policy=policy,
        tokenizer=tokenizer(),
        args=settings,
        train=groups(kind, 37) if train is None else train,
        beside=(riding, ()),
        critic=Critic(policy.model) if method.needs.values else None,
        reference=make_reference(policy, ModelSettings()) if method.needs.reference else None,
        rollouts=rollouts,
        iterations=iterations,
        layout=layout,
    )


def fit(name: str, folder: Path, **arguments: Any) -> Fit:
    """Train a tiny model; the arguments are those of ``trainer``."""
    made = trainer(name, folder, **arguments)
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    weights = made.accelerator.unwrap_model(made.model).state_dict()
    return Fit(made, losses, {key: value.detach().clone() for key, value in weights.items()})


def batch_of(*some: Group) -> Batch:
    return Batch.of(list(some))
