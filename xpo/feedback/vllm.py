"""Sampling by a vLLM server in place of transformers, through TRL's client, which also sends it the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

from peft import PeftModel
from torch import Tensor

from xpo.api.groups import Completion, Group
from xpo.errors import FeedbackError, SettingError
from xpo.feedback.sampling import Sampling

#: What TRL's client is made of.
_REQUIRED = ("vllm", "requests", "aiohttp")


def check_vllm() -> None:
    """Refuse ``--use_vllm`` where what it needs is not installed."""
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        raise SettingError(
            f'--use_vllm: not installed: {", ".join(missing)}; install "trl[vllm]", or leave --use_vllm out: '
            "transformers generates then, which needs nothing more"
        )


class Server:
    """A vLLM server that samples as the policy would.

    Its random numbers are its own, so that samples differ from those of transformers. What is asked for together shares
    a seed, so that a run that is repeated or resumed asks for the same, and a run on more ranks does not.

    Args:
        url: its address, such as ``http://localhost:8000``.
        ends: tokens that end a completion, of ``end_tokens``.
    """

    def __init__(self, url: str, ends: Sequence[int]) -> None:
        check_vllm()
        from xpo.compat import VLLMClient

        try:
            self.client: Any = VLLMClient(base_url=url)
        except ConnectionError as error:
            raise SettingError(f"--use_vllm: no server answers at {url}: {error}") from error
        self.ends, self.joined = list(ends), False

    def generate(self, groups: Sequence[Group], sampling: Sampling, streams: Sequence[str]) -> list[list[Completion]]:
        """``sampling.samples`` completions for each prompt, EOS included where the model ended by itself.

        Args:
            streams: of each group, a further part of the seed.
        """
        if not groups:
            return []
        k, asked = sampling.samples, [[stream, group.row] for group, stream in zip(groups, streams, strict=True)]
        key = sha256(json.dumps([sampling.seed, asked]).encode()).digest()
        answer = self.client.generate(
            [group.prompt_ids for group in groups],
            n=k,
            temperature=sampling.temperature,
            top_k=sampling.top_k or 0,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            logprobs=None,
            generation_kwargs={"seed": int.from_bytes(key[:4], "little") >> 1, "stop_token_ids": self.ends},
        )["completion_ids"]
        if len(answer) != k * len(groups):
            raise FeedbackError(
                f"the vLLM server gave {len(answer)} completions where {k * len(groups)} were asked for"
            )
        made = [Completion(list(ids), finished=bool(ids) and ids[-1] in self.ends) for ids in answer]
        return [made[start : start + k] for start in range(0, len(made), k)]

    def update(self, model: Any) -> None:
        """Send the weights of ``model``, with its adapters merged into them for that long.

        Raises:
            SettingError: the weights are not on a GPU, or the server takes none.
        """
        if not self.joined:
            try:
                self.client.init_communicator(device=model.device)
            except (RuntimeError, NotImplementedError) as error:
                raise SettingError(f"--use_vllm: weights cannot be sent to the server: {error}") from error
            self.joined = True
        with _merged(model):
            # The server must know every tensor before the first one comes.
            told = [(name, str(one.dtype).removeprefix("torch."), list(one.shape)) for name, one in _weights(model)]
            self.client.update_named_params(told, _weights(model))
        self.client.reset_prefix_cache()


@contextmanager
def _merged(model: Any) -> Iterator[None]:
    """Adapters merged into the weights for as long as the context lasts."""
    if not isinstance(model, PeftModel):
        yield
        return
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()


def _weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names they have without adapters, which are merged and no part of them."""
    for name, weight in model.named_parameters():
        if isinstance(model, PeftModel):
            if model.prefix in name or "original_module" in name:  # an adapter, or what a trained copy stands in for
                continue
            name = name.removeprefix("base_model.model.").replace(".base_layer", "")
            name = name.replace(f"modules_to_save.{model.active_adapter}.", "")
        yield name, weight.data
