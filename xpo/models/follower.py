"""A reference that follows the policy (TR-DPO, Gorbatovski et al. 2024, arXiv 2404.09656), by steps or by rounds."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from xpo.errors import SettingError
from xpo.models.load import Policy
from xpo.models.reference import Reference, acting

#: Name of the adapter that is the reference of a policy of adapters, where the reference moves.
FOLLOWER = "follower"
#: In a checkpoint: the reference as it is.
FILE = "reference.safetensors"


class Follower:
    """Moves the weights of a reference towards those of the policy.

    Of full weights it moves the frozen copy. Adapters get a frozen twin, whose matrices are moved: of two adapters the
    mean of the products is not the product of the means, so a share of 1 alone is exact there.

    Attributes:
        reference: what follows.
    """

    def __init__(self, policy: Policy, reference: Reference) -> None:
        self._policy = policy.model
        if isinstance(policy.model, PeftModel):
            if reference.adapter is None:
                raise SettingError(_OTHER)
            self._add(policy.model, reference.adapter)
            self.reference = Reference(
                policy.model,
                "adapters that follow the policy's",
                is_start=False,
                switch=acting(policy.model, FOLLOWER),
                adapter=FOLLOWER,
            )
            return
        mine, theirs = dict(policy.model.named_parameters()), dict(reference.model.named_parameters())
        if {name: one.shape for name, one in mine.items()} != {name: one.shape for name, one in theirs.items()}:
            raise SettingError(_OTHER)
        self.reference = Reference(reference.model, f"{reference.description}, follows the policy", is_start=False)

    @torch.no_grad()
    def move(self, share: float) -> None:
        """reference <- share * policy + (1 - share) * reference, weight by weight."""
        theirs = self._weights()
        for name, own in self._own().items():
            theirs[name].lerp_(own.to(theirs[name]), share)
        self._set(theirs)

    def save(self, directory: str) -> None:
        """Write the reference as it is."""
        save_file({name: one.contiguous().clone() for name, one in self._weights().items()}, Path(directory) / FILE)

    def load(self, directory: str) -> None:
        """Take up what :meth:`save` wrote."""
        self._set(load_file(Path(directory) / FILE))

    def _own(self) -> dict[str, Tensor]:
        if isinstance(self._policy, PeftModel):
            return dict(get_peft_model_state_dict(self._policy, adapter_name=self._policy.active_adapter))
        return {name: one.data for name, one in self._policy.named_parameters()}

    def _weights(self) -> dict[str, Tensor]:
        if isinstance(self._policy, PeftModel):
            return dict(get_peft_model_state_dict(self._policy, adapter_name=FOLLOWER))
        return {name: one.data for name, one in self.reference.model.named_parameters()}

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        if isinstance(self._policy, PeftModel):
            set_peft_model_state_dict(self._policy, weights, adapter_name=FOLLOWER)
            return
        for name, one in self.reference.model.named_parameters():
            one.data.copy_(weights[name])

    def _add(self, model: PeftModel, start: str) -> None:
        """A frozen adapter that begins as the reference is: as the adapter ``start``, or as none."""
        active = model.active_adapter
        trained = [one for one in model.parameters() if one.requires_grad]
        settings = copy.deepcopy(model.peft_config[active])
        settings.inference_mode = True
        with torch.random.fork_rng():  # what its matrices are drawn as is of no interest
            model.add_adapter(FOLLOWER, settings)
        set_peft_model_state_dict(
            model, get_peft_model_state_dict(model, adapter_name=start or active), adapter_name=FOLLOWER
        )
        model.set_adapter(active)
        model.requires_grad_(False)
        for one in trained:
            one.requires_grad_(True)


_OTHER = (
    "--reference_model is another model than the policy and cannot follow it; drop --sync_ref_model, or with --rounds "
    "give --round_reference kept"
)
