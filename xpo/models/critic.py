"""The value model beside a policy: what training changes is its own, what is frozen it shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from xpo.api.batch import Batch
from xpo.api.groups import Group
from xpo.errors import ModelError
from xpo.models.guard import choose_engine
from xpo.models.load import disable_dropout
from xpo.models.networks import twin
from xpo.models.scoring import Engine, Model, hidden_states, innermost, scalar_head

#: In a checkpoint: the critic's own weights.
FILE = "critic.safetensors"


class Critic(torch.nn.Module):
    """Reads the value of a state where the next token is predicted.

    A copy of a causal language model begins with values of 0; one of a scalar model with what that reads there.
    """

    def __init__(
        self,
        model: Model,
        shared: Iterable[torch.nn.Parameter] | None = None,
        *,
        factor: float = 1.0,
        offset: float = 0.0,
        kin: bool = True,
        about: str = "begins as the policy, with values of 0",
    ) -> None:
        """A value model that begins as a copy of ``model``.

        Args:
            shared: parameters not to copy; those that are frozen, if not given. All copies are trained.
            factor, offset: values are ``factor * (reading - offset)``, in rewards.
            kin: the model is made as the policy is, and can be computed in the same way.
            about: where it begins, as shown at the start of a run.
        """
        super().__init__()
        shared = [one for one in model.parameters() if not one.requires_grad] if shared is None else list(shared)
        self.twin, self.kin, self.about = twin(model, shared), kin, about
        self._engine: Engine | None = None
        held = {id(one) for one in shared}
        for one in self.twin.parameters():
            if id(one) not in held and one.is_floating_point():
                one.requires_grad_(True)
        # What it said when completions were sampled it must say again, whether or not the policy has dropout.
        disable_dropout(self.twin)
        inner: Any = innermost(self.twin)
        reading = scalar_head(inner)
        # Values are kept in full precision: they are compared with squares of rewards.
        self.head = torch.nn.Linear(int(inner.config.get_text_config().hidden_size), 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        if reading is None:
            inner.set_output_embeddings(torch.nn.Identity())  # nobody asks it for tokens
            return
        weight: Tensor = reading.weight  # type: ignore[assignment]  # torch types every attribute
        bias: Tensor | None = getattr(reading, "bias", None)
        with torch.no_grad():
            self.head.weight.copy_(factor * weight.float())
            self.head.bias.fill_(factor * ((0.0 if bias is None else float(bias)) - offset))
        inner.score = torch.nn.Identity()
        settings = inner.config.get_text_config()
        if settings.pad_token_id is None:  # values are read where xpo says, but the model itself wants to know
            settings.pad_token_id = 0

    def forward(self, batch: Batch, engine: Engine) -> Tensor:
        """(C, T) the value before each completion token, float32; 0 where there is none."""
        everything = torch.arange(len(batch), device=batch.mask.device)
        layout, states = hidden_states(self.twin, batch, everything, self._engine or engine)
        with torch.autocast(states.device.type, enabled=False):
            values = self.head(states[layout.source].float())[:, 0]
        table = torch.zeros(batch.mask.shape, device=values.device)
        return table.index_put((layout.completion, layout.token), values)

    def choose_engine(self, groups: Sequence[Group], layout: str) -> list[str]:
        """Find out how a model of another kind than the policy is computed, and what there is to say about it."""
        if self.kin:
            return []
        inner: Any = innermost(self.twin)
        like = next(one for one in self.twin.parameters() if one.is_floating_point())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # Any number that tells states apart; the head itself may be 0.
            inner.score = torch.nn.Linear(self.head.in_features, 1).to(device=like.device, dtype=like.dtype)
        try:
            self._engine, lines = choose_engine(self.twin, groups, layout, like.device)
        finally:
            inner.score = torch.nn.Identity()
        return [f"value model: {line}" for line in lines]

    def own(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def save(self, directory: str) -> None:
        """Write what is its own."""
        save_file({name: one.detach().contiguous() for name, one in self.own().items()}, Path(directory) / FILE)

    def load(self, directory: str) -> None:
        """Take up what :meth:`save` wrote.

        Raises:
            ModelError: there is nothing, or the value model was another one.
        """
        own, path = self.own(), Path(directory) / FILE
        if not path.is_file():
            raise ModelError(f"{directory} holds no value model ({FILE}); it is not a checkpoint of such a run")
        found = load_file(path)
        if {name: one.shape for name, one in found.items()} != {name: one.shape for name, one in own.items()}:
            raise ModelError(
                f"the value model in {directory} has other weights than that of this run; resume with the --reward, "
                "--value_model and adapters it was begun with"
            )
        for name, tensor in found.items():
            own[name].data.copy_(tensor)
