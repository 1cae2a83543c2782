"""``Algorithm``: the one class a method of preference optimisation implements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor

from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group, Kind
from xpo.api.loss import Loss
from xpo.errors import SettingError


@dataclass
class Config:
    """Base of an algorithm's own settings; every field becomes a flag. Check values in ``__post_init__``."""

    def require(self, condition: bool, message: str) -> None:
        """Refuse the settings with ``message`` unless ``condition`` holds."""
        if not condition:
            raise SettingError(message)


def option(default: Any, help: str) -> Any:  # noqa: A002 - the word argparse uses
    """A setting with its default and the sentence that documents it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Opponent:
    """Who else answers every prompt, for the policy's samples to be compared with.

    Attributes:
        samples: its completions of every prompt.
        mixture: share of the reference in what they are drawn from, token by token: the geometric mixture
            policy^(1 - mixture) * reference^mixture; 0 is the policy itself, 1 the reference.
        trained: the loss reads them too, as completions of role ``opponent`` behind the samples of a group. Otherwise
            they are gone once the comparison is made.
    """

    samples: int = 1
    mixture: float = 1.0
    trained: bool = False


@dataclass(frozen=True)
class Needs:
    """What an algorithm asks of the loop. Each is a promise: what is not declared is not computed.

    Attributes:
        reference: log-probabilities of the completions under a frozen reference model.
        vocabulary: full next-token distributions, for ``Scores.over_vocabulary``; they cost a second projection.
        reference_vocabulary: those of the reference too; it must then be computed at every step, as no cache has them.
        values: a value model beside the policy, trained with it, for ``Scores.values``.
        scores: a number for every completion of the data: ``score_chosen`` and ``score_rejected`` of pairs, ``score``
            (or ``reward``) of labelled completions, where a label alone counts as 1 or 0.
        samples: completions to sample of every prompt, for rollouts; and what is best for a method of other data where
            its completions are sampled while it trains.
        opponent: who else answers the prompts of rollouts.
        wins: scores of sampled completions are mean probabilities of being preferred: to the ``others`` of the prompt,
            or to ``all``, which counts the completion itself as 1/2; where there is an opponent, to its completions.
            None: they are rewards, and mean probabilities against the others only where there is a judge alone.
        ratios: log-probabilities of rollouts are compared with those they were drawn by, so that these must be the
            model's whole distribution.
        least: fewest groups a micro-batch may hold (over all ranks), for losses with batch statistics.
    """

    reference: bool = False
    vocabulary: bool = False
    reference_vocabulary: bool = False
    values: bool = False
    scores: bool = False
    samples: int = 0
    opponent: Opponent | None = None
    wins: Literal["others", "all"] | None = None
    ratios: bool = True
    least: int = 1


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    url: str
    year: int


ConfigT = TypeVar("ConfigT", bound=Config)


class Algorithm(Generic[ConfigT]):
    """A method: its name and papers, what it needs, and its loss.

    Subclasses set the class attributes and implement :meth:`loss`. An instance belongs to one run.

    Attributes:
        name: what users type after ``--algo``; lower case letters, digits, ``_`` and ``-``.
        summary: one sentence.
        paper: where it comes from.
        equation: the loss in one line of plain text.
        data: the kind of data it learns from.
        model: what it trains: a ``policy``; a ``reward`` model, which reads one number at the end of a completion; or a
            ``preference`` model, which reads one at the end of two.
        needs: what it asks of the loop; an instance may narrow it by its configuration.
        extras: further completions of a data row it reads, by their role -> the columns they may stand in.
        Config: the dataclass of its settings.
        metrics: what it logs, with the meaning of each key.
        training: defaults of training arguments its authors recommend for full fine-tuning, such as learning_rate.
        lora_training: the same for adapters, where they differ.
        raises: what its gradient makes more likely wherever it pulls at all: roles; ``desirable`` of labelled data,
            ``best`` of a list.
        lowers: what it makes less likely: roles; ``undesirable``, ``worst``.
        aliases: names other libraries give to fields of ``Config``, accepted as flags: their name -> the field.
        columns: columns with numbers that a data row may bring: for ``Batch.group_columns``, and of data with one
            completion a row also for ``Batch.columns``.
        accepts: flags of other libraries that mean nothing here and are taken only with this very value, because that
            value says what the algorithm does anyway.
        golden: losses of a test-vector file this class implements: the file's loss name -> renames of its
            hyper-parameters, data and metrics to fields of ``Config``, roles, columns and metrics; ``=field`` -> the
            value that field has for it.
        functions: helper functions of a test-vector file, by the file's name; called with the case's hyper-parameters
            and data as keywords, they return its outputs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[Paper]
    equation: ClassVar[str]
    data: ClassVar[Kind]
    model: ClassVar[Literal["policy", "reward", "preference"]] = "policy"
    needs: Needs = Needs()
    extras: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    columns: ClassVar[tuple[str, ...]] = ()
    Config: type[Any] = Config
    metrics: ClassVar[Mapping[str, str]] = {}
    training: ClassVar[Mapping[str, Any]] = {}
    lora_training: ClassVar[Mapping[str, Any]] = {}
    raises: ClassVar[tuple[str, ...]] = ()
    lowers: ClassVar[tuple[str, ...]] = ()
    aliases: ClassVar[Mapping[str, str]] = {}
    accepts: ClassVar[Mapping[str, Any]] = {}
    golden: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    functions: ClassVar[Mapping[str, Callable[..., Mapping[str, Any]]]] = {}

    config: ConfigT

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config = self.Config() if config is None else config

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Add, drop or pair completions. Sees the groups of a whole optimiser step on all ranks, in data order.

        The result must have as many groups, in the same order. It must depend on the groups alone, so that every rank
        and every split into micro-batches gets the same.
        """
        return list(groups)

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        """Columns computed once when completions have been sampled and scored, such as advantages.

        Args:
            batch: all completions this rank sampled for the step, rewards in ``batch.scores``.
            policy: their log-probs under the policy that sampled them, without gradient.
            reference: the same under the reference, when needed.

        Returns:
            Tensors (C,) or (C, T) by name; the loss finds them in ``batch.columns``.
        """
        return {}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        """The unreduced loss of a micro-batch. Pure: no reduction over items, none over ranks."""
        raise NotImplementedError(f"{type(self).__name__} does not implement loss()")

    def value_at_reference(self, batch: Batch) -> float | None:
        """The loss of ``batch`` where the policy equals the reference; None where nothing can be said beforehand."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Running state that belongs in a checkpoint, as JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        if state:
            raise SettingError(f"'{self.name}' keeps no state, but the checkpoint holds {sorted(state)} for it")

    @classmethod
    def settings(cls) -> dict[str, tuple[Any, str]]:
        """Name -> (default, help) of every field of ``Config``."""
        default = cls.Config()
        return {f.name: (getattr(default, f.name), f.metadata.get("help", "")) for f in fields(cls.Config)}


def rewards_of_pairs(batch: Batch, rewards: Tensor, logps: Tensor) -> dict[str, Tensor]:
    """The metrics every pairwise loss logs, one number a pair.

    Args:
        rewards: (C,) implicit reward of each completion, such as beta times the log-ratio.
        logps: (C,) the sequence quantity the loss reads: sum or average log-probability.
    """
    chosen, rejected = batch.pairs(rewards.detach())
    chosen_logps, rejected_logps = batch.pairs(logps.detach())
    chosen_length, rejected_length = batch.pairs(batch.lengths.to(rewards.dtype))
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).to(rewards.dtype),
        "logps/chosen": chosen_logps,
        "logps/rejected": rejected_logps,
        "length/chosen": chosen_length,
        "length/rejected": rejected_length,
    }


PAIR_METRICS: Mapping[str, str] = {
    "rewards/chosen": "mean implicit reward of the chosen completions",
    "rewards/rejected": "mean implicit reward of the rejected completions",
    "rewards/margins": "mean difference of the two",
    "rewards/accuracies": "share of pairs whose chosen completion has the higher implicit reward (strictly)",
    "logps/chosen": "mean log-probability of the chosen completions; falling while the margin grows is a warning",
    "logps/rejected": "mean log-probability of the rejected completions",
    "length/chosen": "mean tokens of the chosen completions",
    "length/rejected": "mean tokens of the rejected completions",
}
