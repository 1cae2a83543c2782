"""A rule of thumb for models that cannot be rehearsed, since what they compute depends on values.

A layer of a decoder keeps about ten numbers for each of its states and three for each number inside its MLP; that is
what the rehearsal finds for dense models of the Llama family, with adapters and without.
"""

from __future__ import annotations

from xpo.models.head import TILE
from xpo.models.memory import Passes, Terms, expected_engine
from xpo.models.outline import Outline
from xpo.models.phases import Phase
from xpo.models.scoring import head_of, text_config

#: Numbers kept for each state, and for each number inside an MLP.
STATES, INNER = 10, 3
#: Tiles of logits there are at once while the head is computed, in float32.
TILES = 4


def rough_phases(outline: Outline, terms: Terms, passes: Passes) -> list[Phase]:
    """The phases of a run by the rule of thumb."""
    model = outline.policy.model
    config = text_config(model)
    held = {"weights": 0, "adapters": 0, "reference": 0, "optimiser": 0}
    gradients = 0
    for tensor in (*model.parameters(), *model.buffers()):
        size = tensor.numel() * tensor.element_size()
        held["adapters" if tensor.requires_grad and outline.policy.adapter else "weights"] += size
        if tensor.requires_grad:
            gradients += size
            held["optimiser"] += 8 * tensor.numel()
    if terms.reference:
        other = None if terms.given is None else terms.given.policy.model
        if other is not None:
            held["reference"] = sum(one.numel() * one.element_size() for one in other.parameters())
        elif outline.policy.adapter is None:
            held["reference"] = held["weights"]
    engine = expected_engine(model, terms.layout, terms.device)
    width = 4 if terms.precision is None else terms.precision.itemsize
    inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
    inner = int(inner or 4 * config.hidden_size) * int(getattr(config, "num_experts_per_tok", None) or 1)
    layers = 1 if terms.checkpointing is not None else int(config.num_hidden_layers)
    most = logits = 0
    for batch in passes.trained:
        layout = engine.arrange(batch, batch.trainable.nonzero().flatten())
        rows, length = layout.input_ids.shape
        kept = layers * (STATES * int(config.hidden_size) + INNER * inner) * width
        if layers == 1:  # what a layer is computed from again
            kept += int(config.num_hidden_layers) * int(config.hidden_size) * width
        most = max(most, rows * length * kept + rows * length * length * (4 * layers + 1))
        logits = max(logits, len(layout.source))
    vocabulary = int(getattr(head_of(model).module, "out_features", 0) or config.vocab_size)
    passing = {"activations": most, "logits": min(logits * vocabulary, TILE) * 4 * TILES}
    parts = {"load": held, "backward": {**held, "gradients": gradients, **passing}}
    parts["optimiser step"] = {**held, "gradients": gradients}
    return [Phase(name, {part: size for part, size in sizes.items() if size}) for name, sizes in parts.items()]
