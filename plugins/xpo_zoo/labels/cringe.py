"""CRINGE, contrastive iterative negative generation (Adolphs et al. 2022, arXiv 2211.05826)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import softplus


def cringe_loss(logps: Tensor, contrast_logps: Tensor) -> Tensor:
    """log(1 + exp(z[y_t] - z[s*])): two-way cross-entropy with s* as the target, eq. 3 of the paper.

    Args: (n, T) log-probabilities of the tokens y_t to unlearn and of the tokens s* to say instead; the normaliser of
        the logits z cancels in the difference.
    Returns: (n, T) losses, near 0 for a token that is already far less likely than its contrast.
    """
    return softplus(logps - contrast_logps)


def sampled(logps: Tensor, ids: Tensor, draws: Tensor, k: int) -> Tensor:
    """Log-probability of a token sampled from the model's k likeliest, without the token that is there.

    Args: (m, V) log-probabilities, (m,) tokens to leave out, (m,) numbers between 0 and 1 that decide the sampling, so
        that computing it again gives the same token.
    Returns: (m,) values.
    """
    others = logps.scatter(-1, ids[:, None], -torch.inf)
    likeliest = others.topk(min(k, logps.shape[-1] - 1)).values
    reached = likeliest.detach().softmax(-1).cumsum(-1) < draws[:, None]
    place = reached.sum(-1, keepdim=True).clamp_max(likeliest.shape[-1] - 1)
    return likeliest.gather(-1, place)[:, 0]


def contrasts(
    batch: Batch, policy: Scores, index: Tensor, *, k: int, seed: int = 0, detach_positives: bool = False
) -> Tensor:
    """Log-probability of a token to say instead, for every token of some completions.

    The token is that of the column ``contrast_ids`` where the data has one, and sampled otherwise. What is sampled
    depends on the seed and the data row alone: not on how a step is cut into micro-batches, nor on other ranks.

    Args: the (n,) indices of the completions.
    Returns: (n, T), of which the places beyond the end of a completion mean nothing.
    """
    part = policy.at(index)
    width = part.mask.shape[1]
    if "contrast_ids" in batch.columns:
        given = batch.columns["contrast_ids"][index, :width].long()
        found = part.over_vocabulary(lambda logps, ids: logps.gather(-1, ids[:, None])[:, 0], beside=[given])
    else:
        draws = _draws(batch, index, seed)[:, :width]
        found = part.over_vocabulary(partial(sampled, k=k), beside=[batch.ids[index, :width], draws])
    found = found.detach() if detach_positives else found
    return pad(found, (0, batch.ids.shape[1] - width))


def _draws(batch: Batch, index: Tensor, seed: int) -> Tensor:
    draws = torch.zeros(len(index), batch.ids.shape[1])
    for place, completion in enumerate(index.tolist()):
        rng = random.Random(f"{seed} {batch.groups[int(batch.group[completion])].row}")
        length = int(batch.lengths[completion])
        draws[place, :length] = torch.tensor([rng.random() for _ in range(length)])
    return draws.to(batch.ids.device)


@dataclass
class CringeConfig(Config):
    """Settings of CRINGE."""

    alpha: float = option(1.0, "weight of the contrast on undesirable completions")
    k: int = option(5, "the token to say instead is sampled from this many likeliest ones")
    detach_positives: bool = option(False, "hold the log-probability of the token to say instead constant")
    contrast_seed: int = option(0, "seed of that sampling; a row meets the same random numbers in every epoch")

    def __post_init__(self) -> None:
        self.require(self.alpha >= 0, f"alpha must not be negative, not {self.alpha}")
        self.require(self.k >= 1, f"k must be at least 1, not {self.k}")


class Cringe(Algorithm[CringeConfig]):
    """Likelihood of the desirable; for every undesirable token the model's own alternative is preferred to it."""

    name = "cringe"
    summary = "NLL of desirable completions, and a contrast of undesirable tokens with the model's own alternatives"
    paper = Paper("The CRINGE Loss: Learning what language not to model", "https://arxiv.org/abs/2211.05826", 2022)
    equation = (
        "L = mean over all tokens of -log pi(y_t) in desirable completions, "
        "alpha log(1 + exp(z[y_t] - z[s*])) in undesirable ones,  s* sampled from the top k of pi without y_t"
    )
    data = "labels"
    needs = Needs(vocabulary=True)
    Config = CringeConfig
    metrics = {
        "nll_loss": "mean NLL a token of the desirable completions",
        "cringe_loss": "mean contrast a token of the undesirable completions, before alpha",
        "logps/chosen": "mean log-probability of the desirable completions",
        "logps/rejected": "mean log-probability of the undesirable completions",
        "share/desirable": "share of desirable completions",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    raises = ("desirable",)
    lowers = ("undesirable",)
    aliases = {
        "ct_loss_weight": "alpha",
        "ct_num_pos_predictions": "k",
        "detach_positives_during_ct": "detach_positives",
    }
    golden = {"cringe": {"is_negative": "not_label"}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config = self.config
        index = batch.where("completion")
        desirable, mask = batch.labels[index], batch.mask[index]
        logps = policy.logps[index]
        instead = contrasts(
            batch,
            policy,
            index[~desirable],
            k=config.k,
            seed=config.contrast_seed,
            detach_positives=config.detach_positives,
        )
        penalties = cringe_loss(logps[~desirable], instead)
        values = (-logps).masked_scatter(~desirable[:, None], config.alpha * penalties)
        totals = policy.sum()[index]
        metrics = {
            "nll_loss": -logps[desirable][mask[desirable]],
            "cringe_loss": penalties[mask[~desirable]],
            "logps/chosen": totals[desirable],
            "logps/rejected": totals[~desirable],
            "share/desirable": desirable.to(logps.dtype),
        }
        return Loss([Term(values, "token", over="completion")], metrics)
