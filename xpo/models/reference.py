"""The reference: a frozen model whose log-probabilities anchor the policy. There are four ways to have one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import transformers
from peft import PeftModel
from trl import ModelConfig

from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.api.vocabulary import Distributions
from xpo.errors import ModelError
from xpo.models.cache import LogpCache, identify, key
from xpo.models.fingerprint import fingerprint
from xpo.models.guard import choose_engine
from xpo.models.load import REFERENCE_ADAPTER, Policy, load_policy
from xpo.models.scoring import PLAIN, Engine, Scored, assemble, forward


@dataclass(frozen=True)
class Reference:
    """A frozen model to score with.

    Attributes:
        model: the model; shared with the policy when adapters are switched.
        description: which of the four it is, as shown at the start of a run.
        is_start: True when it equals the policy as it was before training.
        switch: context in which ``model`` acts as the reference.
        adapter: name of the adapter that is on then; empty for none at all, None where ``model`` is not switched.
        engine: how it is computed.
        cache: what is known of it already; None where nothing is kept.
    """

    model: torch.nn.Module
    description: str
    is_start: bool = True
    switch: Callable[[], AbstractContextManager[None]] = nullcontext
    adapter: str | None = None
    engine: Engine = PLAIN
    cache: LogpCache | None = None

    @torch.no_grad()
    def score(self, batch: Batch, temperature: float = 1.0, vocabulary: bool = False) -> Scores:
        """Score ``batch`` without gradient and without dropout; completions nobody asks about are left out."""
        everything = torch.arange(len(batch), device=batch.mask.device)
        asked = [one.referenced or vocabulary for group in batch.groups for one in group.completions]
        if self.cache is None or vocabulary or temperature != 1.0:
            some = [number for number, one in enumerate(asked) if one]
            parts = [self._compute(batch, everything[some], temperature)] if some else []
            return assemble(batch, parts, vocabulary)
        keys = [
            key(group.prompt_ids if one.after is None else group.prompt_ids[: one.after], one.ids)
            for group in batch.groups
            for one in group.completions
        ]
        known = [self.cache.get(name) for name in keys]
        missing = [number for number, found in enumerate(known) if found is None and asked[number]]
        parts = [self._compute(batch, everything[missing], temperature)] if missing else []
        logps = assemble(batch, parts).logps
        lengths = batch.lengths.tolist()
        for number in missing:
            if bool(logps[number].isnan().any()):
                raise ModelError(
                    f"the reference ({self.description}) says NaN of a completion of {lengths[number]} tokens: its "
                    "weights are broken, or it computes in too few digits; try --dtype float32, or another model"
                )
            self.cache.put(keys[number], logps[number, : lengths[number]])
        table = torch.zeros(batch.mask.shape)
        for row, found in zip(table, known, strict=True):
            if found is not None:
                row[: len(found)] = found
        return Scores(logps + table.to(logps), batch.mask)

    def _compute(self, batch: Batch, completions: torch.Tensor, temperature: float) -> Scored:
        training = self.model.training
        self.model.eval()
        try:
            with self.switch():
                found = forward(self.model, batch, completions, self.engine, temperature)
            return replace(found, distributions=self._anchored(found.distributions))
        finally:
            self.model.train(training)

    def _anchored(self, found: Distributions | None) -> Distributions | None:
        """Distributions that are projected as the reference whenever that happens."""
        if found is None:
            return None
        project = found.project

        def projected(states: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), self.switch():
                return project(states)

        return replace(found, project=projected)

    def identity(self, *, precision: str) -> str | None:
        """What decides its log-probabilities, for the cache; None where the weights are not here to be read.

        The tokenizer and its template are not part of it: what they make, the token ids, is what the cache knows
        completions by.

        Args:
            precision: what is computed in, if not in the precision of the weights.
        """
        if self.model.dtype == torch.float64:  # the cache keeps float32
            return None
        try:
            found = fingerprint(self.model, adapters=self.adapter != "", adapter=self.adapter or None)
        except ModelError:
            return None
        return identify(found, precision, f"transformers {transformers.__version__}")

    def computed(self, engine: Engine, groups: Sequence[Group], layout: str) -> Reference:
        """Computed as the policy is, by ``engine``; a model of another kind by what the guard says about it."""
        if not self.is_start:
            device = next(self.model.parameters()).device
            engine, _ = choose_engine(self.model, groups, layout, device)
        return replace(self, engine=engine)

    def to(self, device: torch.device) -> Reference:
        """Move a model of its own to the device; a shared one is there already."""
        return self if self.switch is not nullcontext else replace(self, model=self.model.to(device))


def make_reference(policy: Policy, config: ModelConfig, given: str | torch.nn.Module | None = None) -> Reference:
    """The reference of a policy that has not been trained yet.

    ``given`` (a name or a model) wins; else adapters off for new adapters, the frozen copy of a continued adapter, or a
    frozen copy of the whole model.
    """
    if isinstance(given, torch.nn.Module):
        return Reference(given.eval().requires_grad_(False), "given model", is_start=False)
    if given is not None:
        settings = replace(config, model_name_or_path=given, use_peft=False, model_revision="main")
        model = load_policy(settings, training=False).model
        return Reference(model.eval().requires_grad_(False), f"given model {given}", is_start=False)
    return start_of(policy)


def start_of(policy: Policy) -> Reference:
    """The policy as it is now, frozen, at the least cost in memory."""
    model = policy.model
    if isinstance(model, PeftModel):
        if REFERENCE_ADAPTER in model.peft_config:
            described = "frozen copy of the continued adapter"
            return Reference(model, described, switch=acting(model, REFERENCE_ADAPTER), adapter=REFERENCE_ADAPTER)
        return Reference(model, "the same model with adapters off", switch=model.disable_adapter, adapter="")
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    return Reference(frozen, "frozen copy of the starting model")


def acting(model: PeftModel, adapter: str) -> Callable[[], AbstractContextManager[None]]:
    """A context in which one frozen adapter of a model is on, in place of the one that is trained."""

    @contextmanager
    def switched() -> Iterator[None]:
        active = model.active_adapter
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        model.set_adapter(adapter)
        try:
            yield
        finally:
            model.set_adapter(active)
            # Switching marks adapters trainable as it goes; only what was trainable before may stay so.
            model.requires_grad_(False)
            for parameter in trainable:
                parameter.requires_grad_(True)

    return switched
