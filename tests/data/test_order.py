import random

import pytest
import torch
from torch.utils.data import DataLoader

from xpo.api.groups import Completion, Group
from xpo.data.order import MicroStep, StepData, StepSampler, single
from xpo.errors import DataError, PluginError, SettingError


def groups_of(number):
    return [Group([1], [Completion([2]), Completion([3])], [(0, 1)], row=row) for row in range(number)]


def labelled(labels):
    return [Group([1], [Completion([2], label=label)], row=row) for row, label in enumerate(labels)]


def sampler(groups, per_device=2, accumulation=2, world=1, rank=0, seed=0, **options):
    return StepSampler(
        groups, per_device=per_device, accumulation=accumulation, world=world, rank=rank, seed=seed, **options
    )


def micro_batches(groups, world, **options):
    """The rows of each micro-batch over all ranks, and the steps as one rank sees them."""
    ranks = [[part for (part,) in sampler(groups, world=world, rank=rank, **options)] for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    assert len(ranks[0]) == len(sampler(groups, world=world, **options))
    for parts in zip(*ranks, strict=True):
        assert len({(part.step, part.epoch, part.rows) for part in parts}) == 1
    batches = [[part.rows[position] for part in parts for position in part.part] for parts in zip(*ranks, strict=True)]
    return batches, list(dict.fromkeys((part.step, part.rows) for part in ranks[0]))


def test_properties_over_random_sizes():
    rng = random.Random(0)
    for _ in range(300):
        number = rng.randint(1, 60)
        per_device, accumulation, world = rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 4)
        least = rng.randint(1, min(per_device * world, number))
        options = {"per_device": per_device, "accumulation": accumulation, "seed": rng.random(), "least": least}
        groups = groups_of(number)
        batches, steps = micro_batches(groups, world, **options)
        left_out = sampler(groups, world=world, **options).left_out
        seen = [row for batch in batches for row in batch]
        # Every row exactly once, but for those left out, and in the order of the steps.
        assert seen == [row for _, rows in steps for row in rows]
        assert len(set(seen)) == len(seen) == number - left_out
        assert [step for step, _ in steps] == list(range(len(steps)))
        size = per_device * accumulation * world
        assert all(len(rows) == size for _, rows in steps[:-1])
        assert all(least <= len(batch) <= per_device * world for batch in batches)
        # Only what cannot make another batch of the least size is left out.
        assert left_out < least
        full = batches[: (number // size) * accumulation]
        assert all(len(batch) == per_device * world for batch in full)
        rest = [len(batch) for batch in batches[len(full) :]]
        assert not rest or max(rest) - min(rest) <= 1


@pytest.mark.parametrize("number", [1, 5, 8, 9, 23, 24, 31])
def test_every_split_takes_the_same_steps(number):
    groups = groups_of(number)
    splits = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (4, 1, 2), (1, 4, 2), (2, 1, 4), (1, 1, 8)]
    steps = [
        micro_batches(groups, world, per_device=per_device, accumulation=accumulation)[1]
        for per_device, accumulation, world in splits
    ]
    assert all(other == steps[0] for other in steps)


@pytest.mark.parametrize("number", [5, 8, 13])
def test_ranks_share_the_micro_batches_of_one_process(number):
    groups = groups_of(number)
    one, _ = micro_batches(groups, 1, per_device=4)
    two, _ = micro_batches(groups, 2, per_device=2)
    four, _ = micro_batches(groups, 4, per_device=1)
    assert one == two == four


def test_the_order_follows_seed_and_epoch_alone():
    groups = groups_of(50)
    first = sampler(groups, seed=7)
    assert list(first) == list(first) == list(sampler(groups, seed=7))
    orders = []
    for seed in (7, 8):
        for epoch in range(3):
            again = sampler(groups, seed=seed)
            again.set_epoch(epoch)
            orders.append(tuple(again.order()))
            assert next(iter(again))[0].epoch == epoch
    assert len(set(orders)) == 6
    # The same on every machine and in every process, whatever PYTHONHASHSEED: a change here breaks resumed runs.
    assert sampler(groups_of(8), seed=42).order() == [3, 1, 4, 0, 6, 2, 5, 7]
    assert sampler(groups, shuffle=False).order() == list(range(50))


def test_the_last_step_is_spread_evenly():
    parts = [
        [part for (part,) in sampler(groups_of(5), per_device=4, accumulation=4, world=2, rank=rank)] for rank in (0, 1)
    ]
    assert [[part.part for part in rank] for rank in parts] == [[(0, 1, 2)], [(3, 4)]]
    parts = [part for (part,) in sampler(groups_of(7), per_device=3, accumulation=4)]
    assert [part.part for part in parts] == [(0, 1, 2), (3, 4), (5, 6)]


def test_ranks_without_rows_are_idle():
    (part,) = [part for (part,) in sampler(groups_of(2), per_device=2, world=4, rank=3)]
    assert part.part == ()
    assert len(part.rows) == 2


def test_too_few_rows_for_a_batch_are_left_out():
    for number, left_out in ((8, 0), (9, 1), (10, 0), (11, 0), (12, 0)):
        one = sampler(groups_of(number), per_device=4, accumulation=2, least=2)
        assert one.left_out == left_out
    # 5 rows make micro-batches of 3 and 2; where 4 is the least, one of 4 is what can be had.
    one = sampler(groups_of(5), per_device=4, accumulation=2, least=4)
    assert ([len(part.part) for (part,) in one], one.left_out, len(one)) == ([4], 1, 1)
    with pytest.raises(DataError, match="has 1 rows, and the algorithm needs at least 2"):
        sampler(groups_of(1), least=2)
    with pytest.raises(DataError):
        sampler([])
    with pytest.raises(SettingError, match="per_device_train_batch_size to 2 or more"):
        sampler(groups_of(9), per_device=1, world=2, least=4)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.44])
@pytest.mark.parametrize("sort", [True, False])
def test_labels_are_spread_evenly(share, sort):
    number, window = 500, 20
    labels = [row < share * number for row in range(number)]
    if not sort:
        random.Random(0).shuffle(labels)
    for epoch in range(3):
        one = sampler(labelled(labels), seed=3)
        one.set_epoch(epoch)
        order = one.order()
        assert sorted(order) == list(range(number))
        for start in range(number - window):
            desirable = sum(labels[row] for row in order[start : start + window])
            assert abs(desirable - share * window) <= 1
        # Within a label the order is random, not that of the data.
        mine = [row for row in order if labels[row]]
        assert mine != sorted(mine)


def test_converted_pairs_never_make_batches_of_one_label():
    one = sampler(labelled([row % 2 == 0 for row in range(64)]), per_device=4)
    for (part,) in one:
        assert sum(part.rows[position] % 2 == 0 for position in part.part) == 2


def test_balance_is_decided_from_the_data():
    mixed = labelled([True] * 30 + [False] * 30)
    assert sampler(mixed).order() == sampler(mixed, balanced=True).order() != sampler(mixed, balanced=False).order()
    assert sampler(mixed, shuffle=False).order() == list(range(60))
    with pytest.raises(DataError, match="two labels"):
        sampler(labelled([True] * 4), balanced=True)
    forget = [Group([1], [Completion([2], role)], row=0) for role in ["forget"] * 8 + ["retain"] * 24]
    for (part,) in sampler(forget, per_device=4):
        assert sum(part.rows[position] < 8 for position in part.part) == 1


def test_data_applies_collate_once_to_the_whole_step():
    groups, calls = groups_of(10), []

    def collate(step):
        calls.append([group.row for group in step])
        for group, after in zip(step, [*step[1:], step[0]], strict=True):
            group.completions.append(Completion([after.row], "extra", trainable=False))
            group.completions[0].columns["seen"] = 1.0
        return list(step)

    data = StepData(groups, collate)
    loader = DataLoader(data, batch_sampler=sampler(groups, per_device=2, accumulation=3), collate_fn=single)
    for _ in range(2):
        batches = list(loader)
        assert [len(batch.groups) for batch in batches] == [2, 2, 2, 2, 2]
        assert not any(batch.idle for batch in batches)
        for batch in batches:
            rows = [batch.micro.rows[position] for position in batch.micro.part]
            assert [group.row for group in batch.groups] == list(rows)
            assert all(len(group.completions) == 3 for group in batch.groups)
    assert [len(call) for call in calls] == [6, 4, 6, 4]
    assert all(len(group.completions) == 2 and not group.completions[0].columns for group in groups)
    assert len(data) == 10


def test_an_idle_rank_gets_a_stand_in():
    data = StepData(groups_of(4), list)
    batch = data[MicroStep(0, 0, (2, 1), ())]
    assert (batch.idle, [group.row for group in batch.groups]) == (True, [2])


def test_collate_must_return_as_many_groups():
    data = StepData(groups_of(4), lambda step: list(step)[1:])
    with pytest.raises(PluginError, match="got the 2 groups of a step and returned 1"):
        data[MicroStep(0, 0, (0, 1), (0, 1))]


def test_workers_give_the_same_batches():
    groups = groups_of(9)
    one = sampler(groups)
    here = [batch.groups for batch in DataLoader(StepData(groups, list), batch_sampler=one, collate_fn=single)]
    there = DataLoader(StepData(groups, list), batch_sampler=one, collate_fn=single, num_workers=1)
    torch.set_num_threads(1)
    assert [batch.groups for batch in there] == here


LENGTHS = [9, 1, 8, 2, 7, 3, 6, 4]


def of_lengths(lengths):
    return [Group([1] * length, row=row) for row, length in enumerate(lengths)]


def test_rows_of_a_step_are_spread_by_length():
    def lengths(how, **options):
        made = sampler(of_lengths(LENGTHS), shuffle=False, spread=how, **options)
        return [[LENGTHS[part.rows[position]] for position in part.part] for (part,) in made]

    assert lengths("kept", per_device=2, accumulation=4) == [[9, 1], [8, 2], [7, 3], [6, 4]]
    assert lengths("alike", per_device=2, accumulation=4) == [[9, 8], [7, 6], [3, 4], [1, 2]]
    assert [sum(part) for part in lengths("even", per_device=2, accumulation=4)] == [10, 10, 10, 10]
    assert [sum(part) for part in lengths("even", per_device=4, accumulation=2)] == [20, 20]
    # Both ranks get as much of each micro-batch.
    ranks = [lengths("alike", per_device=2, accumulation=2, world=2, rank=rank) for rank in range(2)]
    assert [[sum(part) for part in rank] for rank in ranks] == [[15, 5], [15, 5]]


@pytest.mark.parametrize("how", ["alike", "even"])
def test_every_row_is_taken_once_however_a_step_is_spread(how):
    rng = random.Random(1)
    for _ in range(100):
        number, per_device, accumulation, world = (rng.randint(1, top) for top in (40, 4, 4, 3))
        groups = of_lengths([rng.randint(1, 9) for _ in range(number)])
        options = {"per_device": per_device, "accumulation": accumulation, "seed": rng.random()}
        kept, steps = micro_batches(groups, world, **options)
        spread, same = micro_batches(groups, world, spread=how, **options)
        assert steps == same
        assert sorted(map(len, kept)) == sorted(map(len, spread))
        assert sorted(row for batch in kept for row in batch) == sorted(row for batch in spread for row in batch)


def test_similar_rows_make_a_step_and_steps_are_shuffled():
    rng = random.Random(2)
    groups = of_lengths([rng.randint(1, 99) for _ in range(801)])
    made = sampler(groups, per_device=8, accumulation=1, similar=True)
    orders = []
    for epoch in range(2):
        made.set_epoch(epoch)
        steps = list({part.rows: None for (part,) in made})
        assert sorted(row for rows in steps for row in rows) == list(range(801))
        ranges = [max(groups[row].length for row in rows) - min(groups[row].length for row in rows) for rows in steps]
        assert sum(ranges) / len(ranges) < 6  # about 75 at random
        means = [groups[rows[0]].length for rows in steps]
        assert means != sorted(means, reverse=True)
        orders.append(steps)
    assert orders[0] != orders[1]
