"""Checks that an update depends on the data alone: not on padding, the order of rows, or how a step is split."""

from __future__ import annotations

import random

from xpo.api.batch import Batch
from xpo.api.loss import counts
from xpo.testing.fabricate import STEP
from xpo.testing.outcome import Outcome, difference, joined, relative
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import APART, NEAR, Subject
from xpo.testing.trial import prepared, step_of, trial

#: Rounding of float64, of sums in another order.
ROUNDING = 1e-9
#: A mean of means is off by the number of micro-batches; a statistic of each of them by far less.
FACTOR = 0.25


def padding(subject: Subject) -> str:
    """More padding behind the completions changes nothing."""
    for situation in subject.situations:
        algorithm = subject.make()
        plain = subject.once(situation)
        wider = trial(algorithm, prepared(algorithm, situation), situation, wider=5)
        if difference(plain, wider) > ROUNDING:
            raise Cross(
                f"padding counts: with 5 more columns of it the loss is {wider.loss:.8g} instead of {plain.loss:.8g}, "
                "or its gradient differs; count tokens with batch.lengths or batch.mask, not by the width of a tensor, "
                "and cut no columns off, as [:, :-1] does to the longest completion alone"
            )
    return "5 more columns"


def prompts(subject: Subject) -> str:
    """Longer prompts of which the models say the same change nothing: tokens of a prompt are not of a completion."""
    for situation in subject.situations:
        algorithm = subject.make()
        longer = trial(algorithm, prepared(algorithm, situation), situation, longer=5)
        if difference(subject.once(situation), longer) > ROUNDING:
            raise Cross(
                "tokens of the prompt count: with prompts that are 5 tokens longer, after which the models say the "
                f"same, the loss is {longer.loss:.8g} instead of {subject.once(situation).loss:.8g}, or its gradient "
                "differs; batch.lengths and batch.mask are of the completions alone"
            )
    return "5 more tokens"


def row_order(subject: Subject) -> str:
    """The order of the rows of a micro-batch changes nothing."""
    for situation in subject.situations:
        algorithm = subject.make()
        plain = subject.once(situation)
        groups = prepared(algorithm, situation)
        other = trial(algorithm, random.Random(1).sample(groups, len(groups)), situation)
        if difference(plain, other) > ROUNDING:
            if (least := algorithm.needs.least) > 1:
                raise NotApplicable(f"its statistic of the micro-batch, declared by Needs(least={least}), has an order")
            raise Cross(
                f"the loss depends on the order of the rows: in another one it is {other.loss:.8g} instead of "
                f"{plain.loss:.8g}, or its gradient differs; find completions by batch.pairs, lists, where or group, "
                "not by their place or by their neighbours"
            )
    return "shuffled"


def batch_split(subject: Subject) -> str:
    """How a step is cut into micro-batches changes nothing: each term is a mean over the whole step."""
    least = subject.make().needs.least
    cuts = [[1] * STEP, [5, 3]] if least == 1 else [_about(least)]
    for situation in (NEAR, APART):
        whole = step_of(subject.make(), situation, [STEP])
        for sizes in cuts:
            split = step_of(subject.make(), situation, sizes)
            if difference(whole, split) > ROUNDING:
                return _by_copies(subject, whole, split)
    return " and ".join("+".join(map(str, sizes)) for sizes in cuts)


def _about(least: int) -> list[int]:
    """As many parts of a step as hold ``least`` rows each."""
    count = max(STEP // least, 1)
    return [STEP // count + (part < STEP % count) for part in range(count)]


def _by_copies(subject: Subject, whole: Outcome, split: Outcome) -> str:
    """What to say of a method that reads a statistic: two copies of a micro-batch must weigh as one of twice the size.

    A statistic of the micro-batch, or a running one, is about the same in a copy; a mean of means is off by two.
    """
    one, two = subject.make(), subject.make()
    least, groups = one.needs.least, prepared(one, NEAR)
    found = "several micro-batches give another update than one of all their rows"
    if relative(whole.loss, split.loss, least=whole.largest) > ROUNDING:
        found += f" (loss {split.loss:.8g} and {whole.loss:.8g})"
    totals = {key: 2.0 * count for key, count in counts(Batch.of(groups)).items()}
    both = trial(one, [*groups, *groups], NEAR, totals=totals)
    copies = [trial(two, groups, NEAR, totals=totals) for _ in range(2)]
    together, apart = both.loss, sum(copy.loss for copy in copies)
    if abs(apart) <= ROUNDING * copies[0].largest:  # the loss of centred advantages is rounding, its gradient is not
        together, apart = both.largest, copies[0].largest
    if relative(together, apart) > FACTOR:
        raise Cross(
            f"{found}: the loss is normalised by the micro-batch, as two copies of one make {apart:.3g}, and both "
            f"in one {together:.3g}; return unreduced values in Term and divide by no count of rows, pairs or tokens, "
            "the loop divides by those of the whole step"
        )
    if least == 1 and subject.cls.data == "lists" and _of_one_length(subject):
        raise Cross(
            f"{found}: places of a list that are not there count, as lists of one length do not disturb each other and "
            "those of several do; batch.slots says which are there: give batch.lists a fill of -1e4 before a softmax, "
            "leave them out of sums, and divide by the number of those that are there"
        )
    if least == 1 and not one.state_dict():
        raise Cross(
            f"{found}: the loss is normalised by the micro-batch, so that what a row contributes depends on the others "
            "in it, by a mean over their tokens, a deviation, a neighbour or a rank; return unreduced values in Term, "
            "which the loop averages over the step, or declare Needs(least=2) if a statistic of it is meant"
        )
    if least > 1:
        return f"copies weigh alike; its statistic is that of the micro-batch, as Needs(least={least}) declares"
    return "copies weigh alike; its running state moves with every micro-batch"


def _of_one_length(subject: Subject) -> bool:
    """Whether lists of as many completions, in one micro-batch, make what each makes by itself."""
    groups = prepared(subject.make(), NEAR)
    totals = counts(Batch.of(groups))
    for length in {len(group.completions) for group in groups}:
        alike = [group for group in groups if len(group.completions) == length]
        together = trial(subject.make(), alike, NEAR, totals=totals)
        alone = joined([trial(subject.make(), [group], NEAR, totals=totals) for group in alike])
        if difference(together, alone) > ROUNDING:
            return False
    return True
