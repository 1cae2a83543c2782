"""Supervised fine-tuning, as the first stage of Ouyang et al. 2022 (arXiv 2203.02155)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xpo import NLL, Algorithm, Batch, Config, Group, Loss, Paper, Scores, nll, option


@dataclass
class SFTConfig(Config):
    """Settings of supervised fine-tuning."""

    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")
    completion_only_loss: bool = option(True, "learn the completion only; false learns the prompt as well")

    def __post_init__(self) -> None:
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")


class SFT(Algorithm[SFTConfig]):
    """Imitation: the likelihood of what was demonstrated."""

    name = "sft"
    summary = "negative log-likelihood of demonstrations"
    paper = Paper(
        "Training language models to follow instructions with human feedback", "https://arxiv.org/abs/2203.02155", 2022
    )
    equation = "L = mean over the tokens of a step of -log pi(y_t|x, y_<t)"
    data = "demonstrations"
    Config = SFTConfig
    metrics = {
        "nll_loss": "NLL of the demonstrations, averaged as the setting nll says",
        "logps": "mean log-probability of the demonstrations, summed over tokens",
        "length": "mean tokens of the demonstrations that count",
    }
    training = {"learning_rate": 2e-5}
    lora_training = {"learning_rate": 2e-4}
    raises = ("completion",)
    accepts = {"loss_type": "nll"}
    golden = {"sft": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Let completions begin at the second token of the prompt, where the prompt is learnt as well."""
        if self.config.completion_only_loss:
            return list(groups)
        return [
            replace(
                group,
                # The first token has nothing to be predicted from.
                completions=[replace(one, ids=[*group.prompt_ids[1:], *one.ids], after=1) for one in group.completions],
            )
            for group in groups
        ]

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        term, items = nll(batch, policy, "completion", per=self.config.nll)
        index = batch.where("completion")
        logps = policy.sum()[index]
        return Loss([term], {"nll_loss": items, "logps": logps, "length": batch.lengths[index].to(logps.dtype)})
