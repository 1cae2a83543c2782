"""Where xpo and TRL agree, method by method, and where they differ on purpose: the rows, and the tables of the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

#: Rows of the batch, and the longest completion. Sums over more tokens lose digits that float32 does not have.
BATCH, LONGEST = 12, 5

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A method of xpo beside a setting of TRL.

    Attributes:
        algo, ours: the method and its settings.
        trainer, theirs: TRL's trainer, and the settings of its configuration.
        reason: why the two differ on purpose; empty where they are equal.
        ours_instead, theirs_instead: settings that, changed, make them equal: the proof of the reason.
        state: state of the method that makes them equal, where no setting does.
        pieces: micro-batches TRL takes the batch in; their losses are averaged. One of them makes them equal.
        proof: what makes them equal in words, where settings do not say it.
    """

    algo: str
    ours: Settings
    trainer: str
    theirs: Settings
    reason: str = ""
    ours_instead: Settings = field(default_factory=dict)
    theirs_instead: Settings = field(default_factory=dict)
    state: Settings = field(default_factory=dict)
    pieces: int = 1
    proof: str = ""

    @property
    def precise(self) -> bool:
        """Whether both compute in float64. The other trainers fall back to float32 whatever the model is in."""
        return self.trainer in ("CPO", "TPO", "Reward")

    @property
    def tolerance(self) -> float:
        """Largest relative difference of what is called equal."""
        return 1e-12 if self.precise else 1e-5

    def as_set(self) -> Row:
        """The row as it stands, before anything is changed that makes the two equal."""
        return replace(self, state={})

    def proven(self) -> Row:
        """The row as changed, which should be equal."""
        ours, theirs = {**self.ours, **self.ours_instead}, {**self.theirs, **self.theirs_instead}
        return replace(self, ours=ours, theirs=theirs, pieces=1)


def _dpo(
    algo: str, ours: Settings, loss_type: str | list[str] = "sigmoid", trl: Settings | None = None, **more: Any
) -> Row:
    """A row beside DPOTrainer, which calls tau beta; ``trl`` holds further settings of it."""
    beta = {"beta": ours["tau" if algo == "ipo" else "beta"]} if ours else {}
    return Row(algo, ours, "DPO", {"loss_type": loss_type, **beta, **(trl or {})}, **more)


_PER_MICRO_BATCH = "TRL takes the mean over the tokens of each micro-batch, so the loss depends on accumulation"

ROWS = (
    _dpo("dpo", {"beta": 2.0}),
    _dpo("robust_dpo", {"beta": 2.0, "label_smoothing": 0.1}, "robust", trl={"label_smoothing": 0.1}),
    _dpo("ipo", {"tau": 2.0}, "ipo"),
    _dpo("hinge_norm", {"beta": 2.0}, "hinge"),
    _dpo("exo", {"beta": 2.0, "label_smoothing": 1e-3}, "exo_pair", trl={"label_smoothing": 1e-3}),
    _dpo("nca", {"beta": 2.0}, "nca_pair"),
    _dpo("apo_zero", {"beta": 2.0}, "apo_zero"),
    _dpo("apo_down", {"beta": 2.0}, "apo_down"),
    _dpo("discopop", {"beta": 2.0, "tau": 0.5}, "discopop", trl={"discopop_tau": 0.5}),
    _dpo("aot", {"beta": 2.0, "label_smoothing": 0.1}, "aot", trl={"label_smoothing": 0.1}),
    _dpo("aot_unpaired", {"beta": 2.0, "label_smoothing": 0.1}, "aot_unpaired", trl={"label_smoothing": 0.1}),
    _dpo("dpo_norm", {"beta": 2.0}, "sigmoid_norm"),
    _dpo("ld_dpo", {"beta": 2.0, "alpha": 0.4}, trl={"ld_alpha": 0.4}),
    _dpo("f_dpo", {"beta": 0.5, "divergence": "reverse_kl"}, trl={"f_divergence_type": "reverse_kl"}),
    _dpo("f_dpo", {"beta": 0.5, "divergence": "forward_kl"}, trl={"f_divergence_type": "forward_kl"}),
    _dpo("f_dpo", {"beta": 0.5, "divergence": "js"}, trl={"f_divergence_type": "js_divergence"}),
    _dpo("rpo", {"beta": 2.0, "alpha": 0.7, "nll": "token"}, ["sigmoid", "sft"], trl={"loss_weights": [1.0, 0.7]}),
    _dpo("sft", {}, "sft"),
    Row("sft", {}, "SFT", {}),
    Row("sft", {"completion_only_loss": False}, "SFT", {"completion_only_loss": False}),
    Row("kto", {"beta": 2.0, "desirable_weight": 1.3}, "KTO", {"beta": 2.0, "desirable_weight": 1.3}),
    Row(
        "apo_zero_unpaired",
        {"beta": 2.0, "undesirable_weight": 0.8},
        "KTO",
        {"loss_type": "apo_zero_unpaired", "beta": 2.0, "undesirable_weight": 0.8},
    ),
    Row("cpo", {"beta": 0.2, "nll_weight": 0.5}, "CPO", {"beta": 0.2, "cpo_alpha": 0.5}),
    Row("cpo", {"beta": 0.2, "label_smoothing": 0.1}, "CPO", {"beta": 0.2, "label_smoothing": 0.1}),
    Row(
        "simpo",
        {"beta": 2.0, "gamma": 0.8},
        "CPO",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.8, "cpo_alpha": 0.0},
    ),
    Row(
        "cpo_simpo",
        {"beta": 2.0, "gamma": 0.8, "nll_weight": 0.5},
        "CPO",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.8, "cpo_alpha": 0.5},
    ),
    Row(
        "alphapo",
        {"beta": 2.5, "gamma": 0.1, "alpha": 0.25},
        "CPO",
        {"loss_type": "alphapo", "beta": 2.5, "simpo_gamma": 0.1, "alpha": 0.25},
    ),
    Row("orpo", {"lambda_": 0.2, "nll_include_prompt": True}, "ORPO", {"beta": 0.2}),
    Row("tpo", {"beta": 0.2, "nll_weight": 0.5}, "TPO", {"beta": 0.2, "tpo_alpha": 0.5}),
    Row(
        "tpo",
        {"beta": 2.0, "gamma": 0.5, "length_normalize": True},
        "TPO",
        {"loss_type": "tpo-l", "beta": 2.0, "tpo_l_gamma": 0.5},
    ),
    Row("bradley_terry", {"center_coef": 0.02}, "Reward", {"center_rewards_coefficient": 0.02}),
    _dpo(
        "dpo",
        {"beta": 2.0, "label_smoothing": 0.1},
        trl={"label_smoothing": 0.1},
        reason="TRL's sigmoid loss no longer reads `label_smoothing`, and does not say so: there is no cDPO",
        ours_instead={"label_smoothing": 0.0},
    ),
    _dpo(
        "ipo",
        {"tau": 2.0, "length_normalize": False},
        "ipo",
        reason="TRL averages over tokens, and so does xpo by default; this is the equation as the paper prints it",
        ours_instead={"length_normalize": True},
    ),
    _dpo(
        "f_dpo",
        {"beta": 0.5, "divergence": "alpha", "alpha": 0.3},
        trl={"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
        reason="TRL counts alpha the other way round: its alpha is 1 - alpha of the paper and of the authors' code",
        theirs_instead={"f_alpha_divergence_coef": 0.7},
    ),
    _dpo(
        "bco_pair",
        {"beta": 2.0},
        "bco_pair",
        reason="TRL has dropped the running mean delta of the rewards, which is what the paper adds",
        proof="delta held at 0",
        state={"delta": 0.0, "delta_count": 10**15},
    ),
    _dpo(
        "wpo",
        {"beta": 2.0},
        trl={"use_weighting": True},
        reason="TRL lets the weight of a pair exceed 1; the authors' code does not",
        ours_instead={"clamp": False},
    ),
    _dpo(
        "sppo",
        {"beta": 0.5, "hard": True},
        "sppo_hard",
        reason="TRL adds the two squared errors, the authors' code takes half their sum",
        ours_instead={"scale": 1.0},
    ),
    _dpo(
        "rpo",
        {"beta": 2.0, "alpha": 0.7},
        ["sigmoid", "sft"],
        trl={"loss_weights": [1.0, 0.7]},
        reason="the paper divides the NLL of each completion by its length, TRL that of the batch by all its tokens",
        ours_instead={"nll": "token"},
    ),
    _dpo(
        "rpo",
        {"beta": 2.0, "alpha": 0.7, "nll": "token"},
        ["sigmoid", "sft"],
        trl={"loss_weights": [1.0, 0.7]},
        reason=_PER_MICRO_BATCH,
        pieces=BATCH,
    ),
    Row(
        "simpo",
        {},
        "CPO",
        {"loss_type": "simpo"},
        reason="TRL adds an NLL unless `cpo_alpha=0.0`, with the beta of CPO, and a margin of 5 times beta",
        ours_instead={"beta": 0.1, "gamma": 0.5, "sft_weight": 1.0},
    ),
    Row(
        "cpo_simpo",
        {"beta": 2.0, "gamma": 0.8},
        "CPO",
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.8},
        reason=_PER_MICRO_BATCH,
        pieces=BATCH,
    ),
    Row(
        "orpo",
        {"lambda_": 0.2},
        "ORPO",
        {"beta": 0.2},
        reason="TRL's NLL covers the prompt as well; the NLL of the equation is that of the completion",
        ours_instead={"nll_include_prompt": True},
    ),
    Row(
        "orpo",
        {"lambda_": 0.2, "nll_include_prompt": True},
        "ORPO",
        {"beta": 0.2},
        reason=_PER_MICRO_BATCH,
        pieces=BATCH,
    ),
    Row(
        "bradley_terry",
        {},
        "Reward",
        {},
        reason="xpo keeps rewards around 0 unless told otherwise",
        ours_instead={"center_coef": 0.0},
    ),
)


@dataclass(frozen=True)
class Difference:
    """How far xpo is from TRL.

    Attributes:
        loss: |ours - theirs| / |theirs|.
        gradient: the same of the gradient of all weights, in the Euclidean norm.
        factor: theirs / ours where loss and gradient are one multiple of ours.
    """

    loss: float
    gradient: float
    factor: float | None = None

    def within(self, tolerance: float) -> bool:
        """Whether neither exceeds ``tolerance``."""
        return max(self.loss, self.gradient) < tolerance


@dataclass(frozen=True)
class Finding:
    """What was measured of a row: as it is set, and with what should make the two equal."""

    row: Row
    as_set: Difference
    proven: Difference

    def loss(self) -> str:
        """The difference of the losses for the table."""
        return self._cell(self.as_set.loss)

    def gradient(self) -> str:
        """The difference of the gradients for the table."""
        return self._cell(self.as_set.gradient)

    def _cell(self, difference: float) -> str:
        if not self.row.reason:
            return f"< {_power(self.row.tolerance)}" if difference < self.row.tolerance else one_digit(difference)
        factor = self.as_set.factor
        return one_digit(difference) if factor is None else f"{factor:.1f}x"


def _power(number: float) -> str:
    return f"{number:.0e}".replace("e-0", "e-")


def one_digit(number: float) -> str:
    """A number to one significant digit: as much of it as is the same on every machine."""
    return f"{float(f'{number:.0e}'):g}"


@cache
def findings() -> tuple[Finding, ...]:
    """All rows, measured."""
    from scripts.side_by_side import measure

    return tuple(
        Finding(row, found := measure(row.as_set()), measure(row.proven()) if row.reason else found) for row in ROWS
    )


def equal() -> str:
    """The rows in which xpo and TRL are equal, as a Markdown table."""
    lines = ["| xpo | TRL | loss | gradient |", "|---|---|---|---|"]
    for found in findings():
        if not found.row.reason:
            lines.append(f"| {_both(found.row)} | {found.loss()} | {found.gradient()} |")
    return "\n".join(lines) + "\n"


def different() -> str:
    """The rows in which they differ on purpose."""
    lines = ["| xpo | TRL | loss | gradient | why | equal with |", "|---|---|---|---|---|---|"]
    for found in findings():
        if found.row.reason:
            if not found.proven.within(found.row.tolerance):
                raise SystemExit(
                    f"{found.row.algo} beside {found.row.trainer}Trainer: the reason given is not the reason"
                )
            cells = [_both(found.row), found.loss(), found.gradient(), found.row.reason, _proof(found.row)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _both(row: Row) -> str:
    return f"`{row.algo}({_arguments(row.ours)})` | `{row.trainer}Config({_arguments(row.theirs)})`"


def _proof(row: Row) -> str:
    if row.proof:
        return row.proof
    if row.pieces > 1:
        return "one micro-batch"
    return f"`{_arguments(row.ours_instead)}`" if row.ours_instead else f"TRL's `{_arguments(row.theirs_instead)}`"


def _arguments(settings: Settings) -> str:
    return ", ".join(f"{name}={value!r}".replace("'", '"') for name, value in settings.items())
