"""The rehearsal: a run's passes over a hollow model, with a ledger of every tensor made.

What a run computes with is the real thing: the layouts, the head, attention, autograd, adapters and the optimiser. So
nothing here knows an architecture. Only the numbers are missing, and with them most of the time.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xpo.api.batch import Batch, Scores
from xpo.compat import FakeTensorMode, checkpoint_activations, outside_modes
from xpo.models.critic import Critic
from xpo.models.hollow import Known, hollow
from xpo.models.layout import Layout, padded
from xpo.models.load import REFERENCE_ADAPTER, disable_dropout
from xpo.models.memory import Passes, Sampled, Terms, expected_engine
from xpo.models.outline import Outline
from xpo.models.phases import Phase, Phases
from xpo.models.reference import Reference, start_of
from xpo.models.scoring import (
    Engine,
    Scored,
    assemble,
    forward,
    head_of,
    innermost,
    keeps_logits,
    scalar_head,
    text_config,
)

#: Bytes for each logit of a token that is drawn: the logits, a copy, and their softmax and its sums in float64.
DRAWN = 4 + 4 + 8 + 8


@dataclass(frozen=True)
class _Part:
    """Completions of a batch that go through the model together."""

    completions: Tensor
    engine: Engine
    trained: bool


def rehearse(outline: Outline, terms: Terms, passes: Passes) -> list[Phase]:
    """The phases of a run, each where it takes most, without what the interpreter and the libraries take.

    Raises:
        Exception: of any kind, where the model does something that depends on values.
    """
    return _Rehearsal(outline, terms).run(passes)


class _Rehearsal:
    """One run over hollow tensors."""

    def __init__(self, outline: Outline, terms: Terms) -> None:
        self.terms, self.outline = terms, outline
        self.policy = replace(outline.policy, model=copy.deepcopy(outline.policy.model))
        self.model = self.policy.model
        self.other = None if terms.given is None else copy.deepcopy(terms.given.policy.model)
        self.engine = expected_engine(self.model, terms.layout, terms.device)
        self.phases = Phases(self._label)
        self.ledger = self.phases.ledger
        self.vocabulary = 0
        self.critic: Critic | None = None

    def run(self, passes: Passes) -> list[Phase]:
        usual = replace(self.engine, arrange=padded, branches=False)  # what the guard compares with
        checked = [(batch, self._parts(batch, usual)) for batch in passes.checked]
        trained = [(batch, self._parts(batch, self.engine)) for batch in passes.trained]
        scored = [(batch, self._parts(batch, self.engine)) for batch in passes.scored]
        reference: Reference | None
        with FakeTensorMode(allow_non_fake_inputs=True):
            self._prepare()
            with self.ledger:
                with self.phases.during("load"):
                    reference = self._reference()
                    self._value_model()
                for batch, parts in checked:
                    self._score("check", batch, parts)
                self._step()
                for batch, parts in trained:
                    self._train(batch, parts, reference)
                for batch, parts in scored:
                    self._score("examination", batch, parts)
                for sampled in passes.sampled:
                    self._sample(sampled)
        self.phases.add("load", "files", self.outline.stored)
        found = {phase.name: phase for phase in self.phases.ordered()}
        if passes.again:
            self.phases.add("examination", "reference", found["load"].parts["weights"])
        return self.phases.ordered()

    def _prepare(self) -> None:
        hollow(self.model)
        if not self.terms.dropout:
            disable_dropout(self.model)
        if self.terms.checkpointing is not None:
            checkpoint_activations(innermost(self.model), self.terms.checkpointing)
            if self.policy.adapter is not None:
                self.model.enable_input_require_grads()
        self.vocabulary = int(getattr(head_of(self.model).module, "out_features", 0))
        adapted = self.policy.adapter is not None
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            own = adapted and (tensor.requires_grad or "lora_" in name or f".{REFERENCE_ADAPTER}." in name)
            self.ledger.book([tensor], "adapters" if own else "weights")
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        for parameter in self.trained:
            self._booked(parameter)

    def _reference(self) -> Reference | None:
        if not self.terms.reference:
            return None
        model = self.other
        if model is None:
            with self.ledger.during("reference"):
                made = start_of(self.policy)
            return replace(made, engine=self.engine)
        with self.ledger.during("reference"):
            hollow(model)
        engine = expected_engine(model, self.terms.layout, self.terms.device)
        return Reference(model, "given model", is_start=False, engine=engine)

    def _value_model(self) -> None:
        if not self.terms.values:
            return
        with self.ledger.during("value model"):
            self.critic = Critic(self.model)
        for parameter in self.critic.own().values():
            self.trained.append(parameter)
            self._booked(parameter)

    def _booked(self, parameter: torch.nn.Parameter) -> None:
        """Tell the ledger of its gradient."""
        hook = parameter.register_post_accumulate_grad_hook  # torch leaves it untyped
        hook(lambda one: self.ledger.book([one.grad], "gradients"))  # type: ignore[no-untyped-call]  # torch's

    def _step(self) -> None:
        """The step of the optimiser, which leaves its states behind, as after the first step of a run."""
        self._gradients()
        with self.phases.during("optimiser step", "optimiser"):
            try:
                with outside_modes():
                    assert self.terms.optimiser is not None
                    self.optimiser = self.terms.optimiser(self.trained)
                self.optimiser.step()
            except Exception:  # each has its own ways; what this one holds is taken to be what AdamW does
                self.states = [torch.empty(2 * one.numel()) for one in self.trained]
        self._clear()

    def _train(self, batch: Batch, parts: list[_Part], reference: Reference | None) -> None:
        self.model.train()
        if self.terms.accumulates:
            self._gradients()
        with self.phases.during("forward"), self._precision():
            scored = [self._forward(batch, part) for part in parts]
            policy = assemble(batch, scored, self.terms.vocabulary)
            if self.critic is not None:
                valued = self.critic(batch, _laid_out(self.engine, batch, None)).sum()
        anchor: Scores | None = None
        if reference is not None:
            with self.phases.during("reference"), self._precision():
                reference = replace(reference, engine=_laid_out(reference.engine, batch, None))
                anchor = reference.score(batch, vocabulary=self.terms.vocabulary)
        with self.phases.during("backward"):
            loss = policy.logps.sum() if policy.rewards is None else policy.rewards.sum()
            loss = loss if self.critic is None else loss + valued
            if self.terms.vocabulary:
                others = [] if anchor is None else [anchor]
                loss = loss + policy.over_vocabulary(_divergence, *others).sum()
            loss.backward()
        self._clear()

    def _score(self, phase: str, batch: Batch, parts: list[_Part]) -> None:
        self.model.eval()
        with self.phases.during(phase), torch.no_grad(), self._precision():
            for part in parts:
                self._forward(batch, part)

    def _sample(self, sampled: Sampled) -> None:
        """Prompts are read at once; then their keys and values stay, and those of each new token are added."""
        inputs: dict[str, Any] = {"logits_to_keep": 1} if keeps_logits(type(innermost(self.model)).forward) else {}
        shape = (sampled.rows, sampled.prompt)
        self.model.eval()
        with self.phases.during("sampling"), torch.no_grad():
            before = sum(self.ledger.parts.values())
            ids = torch.zeros(shape, dtype=torch.long)
            output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **inputs)
            cache = sum(self.ledger.parts.values()) - before - output.logits.numel() * output.logits.element_size()
            held = dict(self.ledger.parts)
        layers = int(getattr(text_config(self.model), "num_hidden_layers", 1))
        # One layer at a time is copied when a token is added.
        grown = int(cache * (sampled.prompt + sampled.tokens) / sampled.prompt * (1 + 1 / layers))
        held["activations"] = held.get("activations", 0) - cache + grown
        held["logits"] = sampled.rows * self.vocabulary * DRAWN
        self.phases.keep("sampling", held)

    def _forward(self, batch: Batch, part: _Part) -> Scored:
        with nullcontext() if part.trained else torch.no_grad():
            return forward(self.model, batch, part.completions, part.engine)

    def _parts(self, batch: Batch, engine: Engine) -> list[_Part]:
        """The completions of a batch as ``score`` takes them."""
        found = []
        for trained in (False, True):
            index = (batch.trainable == trained).nonzero().flatten()
            if index.numel():
                whole = scalar_head(innermost(self.model)) is not None
                found.append(_Part(index, _laid_out(engine, batch, index, whole), trained))
        return found

    def _gradients(self) -> None:
        with self.ledger.during("gradients"):
            for parameter in self.trained:
                parameter.grad = torch.empty_like(parameter)

    def _clear(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _precision(self) -> Any:
        return torch.autocast("cpu", self.terms.precision, enabled=self.terms.precision is not None)

    def _label(self, tensor: Tensor) -> str:
        shape = tensor.shape
        if len(shape) > 1 and shape[-1] == self.vocabulary:
            return "logits"
        return "masks" if len(shape) > 2 and shape[-1] == shape[-2] else ""


def _laid_out(engine: Engine, batch: Batch, completions: Tensor | None, whole: bool = False) -> Engine:
    """The engine with the layout of some completions of a batch, or of all, made beforehand, while values count."""
    with outside_modes():
        some = torch.arange(len(batch)) if completions is None else completions
        layout = engine.arrange(batch, some, whole=whole)
        known = {"source": layout.source.as_subclass(Known)}
        if layout.last is not None:
            known["last"] = layout.last.as_subclass(Known)
        if layout.ends is not None:
            known["real"] = layout.real.as_subclass(Known)
        layout = replace(layout, **known)

    def known_already(batch: Batch, completions: Tensor, whole: bool = False) -> Layout:
        return layout

    return replace(engine, arrange=known_already)


def _divergence(logps: Tensor, *others: Tensor) -> Tensor:
    """A statistic of distributions that costs what most do."""
    return (logps.exp() * (logps - sum(others))).sum(-1)
