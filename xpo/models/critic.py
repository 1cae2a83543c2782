"""The value model beside a policy: what training changes is its own, what is frozen it shares with the policy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from xpo.api.batch import Batch
from xpo.models.scoring import Engine, Model, hidden_states, innermost

#: In a checkpoint: the critic's own weights.
FILE = "critic.safetensors"


class Critic(torch.nn.Module):
    """Reads the value of a state where the next token is predicted, with a backbone that starts as the policy's.

    Beside adapters it has adapters of its own on the same weights, so it costs little more than they do; beside a
    policy that is trained in full it is a second model.
    """

    def __init__(self, policy: Model) -> None:
        super().__init__()
        self.twin = _twin(policy)
        inner: Any = innermost(self.twin)
        inner.set_output_embeddings(torch.nn.Identity())  # nobody asks it for tokens
        # Values start at 0, and are kept in full precision: they are compared with squares of rewards.
        self.head = torch.nn.Linear(int(inner.config.get_text_config().hidden_size), 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch, engine: Engine) -> Tensor:
        """(C, T) the value before each completion token; 0 where there is none."""
        everything = torch.arange(len(batch), device=batch.mask.device)
        layout, states = hidden_states(self.twin, batch, everything, engine)
        values = self.head(states[layout.source].float())[:, 0]
        table = torch.zeros(batch.mask.shape, device=values.device)
        return table.index_put((layout.completion, layout.token), values)

    def own(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def save(self, directory: str) -> None:
        """Write what is its own."""
        save_file({name: one.detach().contiguous() for name, one in self.own().items()}, Path(directory) / FILE)

    def load(self, directory: str) -> None:
        """Take up what :meth:`save` wrote."""
        own = self.own()
        for name, tensor in load_file(Path(directory) / FILE).items():
            own[name].data.copy_(tensor)


def _twin(model: Model) -> Model:
    """A copy that shares every frozen parameter with the original."""
    shared: dict[int, Any] = {id(one): one for one in model.parameters() if not one.requires_grad}
    for module in model.modules():
        state = getattr(module, "quant_state", None)  # of 4-bit weights, as large as a sixteenth of them
        if state is not None:
            shared[id(state)] = state
    return copy.deepcopy(model, shared)
