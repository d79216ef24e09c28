"""The order of samples, as properties of the stream of positions."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_model.data.loading.sampler import CyclicOrder, GroupedOrder, MicrobatchSampler, SequentialOrder
from neva_recipes.config import DataError

SEEDS = st.integers(0, 2**70)


def stream(order, start, steps, size):
    return [position for step in range(steps) for position in order.global_batch(start + step * size, size).tolist()]


@settings(deadline=None)
@given(count=st.integers(1, 50), seed=SEEDS, size=st.integers(1, 70))
def test_every_epoch_has_every_sample_once(count, seed, size):
    epochs = 3
    steps = -(-epochs * count // size)
    taken = stream(CyclicOrder(count, seed), 0, steps, size)
    for epoch in range(epochs):
        assert sorted(taken[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_are_shuffled_differently():
    orders = [CyclicOrder(1000, seed).global_batch(epoch * 1000, 1000).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    # Shuffled well: positions and samples are uncorrelated (the standard deviation of the coefficient is 0.03).
    assert all(abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15 for order in orders)


def test_the_order_is_the_same_on_every_machine():
    # Fixed by the Philox generator's published algorithm: a change of it would break the resume of old runs.
    assert CyclicOrder(8, 1234).global_batch(6, 6).tolist() == [5, 6, 0, 5, 6, 4]


@settings(deadline=None)
@given(count=st.integers(1, 50), seed=SEEDS, size=st.integers(1, 20), step=st.integers(0, 12))
def test_a_resumed_order_continues_the_uninterrupted_one(count, seed, size, step):
    whole = stream(CyclicOrder(count, seed), 0, step + 3, size)
    assert stream(CyclicOrder(count, seed), step * size, 3, size) == whole[step * size :]
    assert stream(CyclicOrder(count, seed), step * size + 1, 2, size) == whole[step * size + 1 :][: 2 * size]


@given(count=st.integers(0, 40), size=st.integers(1, 9))
def test_a_single_pass_is_the_file_in_whole_batches(count, size):
    order = SequentialOrder(count)
    steps = count // size
    assert stream(order, 0, steps, size) == list(range(steps * size))
    assert order.global_batch(steps * size, size) is None


@st.composite
def shares(draw):
    ranks, micro, microbatches = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return ranks, micro, microbatches, ranks * micro * microbatches


def sampler(order, size, micro, rank, ranks, consumed):
    return MicrobatchSampler(
        order, global_batch_size=size, micro_batch_size=micro, rank=rank, ranks=ranks, consumed_samples=consumed
    )


@settings(deadline=None)
@given(share=shares(), count=st.integers(1, 60), seed=SEEDS, step=st.integers(0, 5))
def test_ranks_divide_the_same_global_batch_under_every_layout(share, count, seed, step):
    ranks, micro, microbatches, size = share
    consumed = step * size
    expected = CyclicOrder(count, seed).global_batch(consumed, size).tolist()
    dealt = [
        list(islice(sampler(CyclicOrder(count, seed), size, micro, rank, ranks, consumed), microbatches))
        for rank in range(ranks)
    ]
    assert all(len(microbatch) == micro for rank in dealt for microbatch in rank)
    assert Counter(position for rank in dealt for microbatch in rank for position in microbatch) == Counter(expected)
    alone = list(islice(sampler(CyclicOrder(count, seed), size, micro, 0, 1, consumed), ranks * microbatches))
    assert [dealt[rank][turn] for turn in range(microbatches) for rank in range(ranks)] == alone


@settings(deadline=None)
@given(share=shares(), count=st.integers(1, 60), seed=SEEDS, step=st.integers(0, 5))
def test_a_resumed_rank_continues_its_uninterrupted_stream(share, count, seed, step):
    ranks, micro, microbatches, size = share
    for rank in range(ranks):
        whole = islice(sampler(CyclicOrder(count, seed), size, micro, rank, ranks, 0), (step + 2) * microbatches)
        resumed = islice(sampler(CyclicOrder(count, seed), size, micro, rank, ranks, step * size), 2 * microbatches)
        assert list(whole)[step * microbatches :] == list(resumed)


@st.composite
def files(draw):
    has_image = draw(st.lists(st.booleans(), min_size=1, max_size=60))
    lengths = draw(st.lists(st.integers(0, 30), min_size=len(has_image), max_size=len(has_image)))
    return np.array(has_image), np.array(lengths, dtype=np.int32)


@settings(deadline=None)
@given(file=files(), seed=SEEDS, size=st.integers(1, 9))
def test_grouped_batches_are_of_one_kind_and_sorted(file, seed, size):
    has_image, lengths = file
    order = GroupedOrder(has_image, lengths, seed)
    for step in range(20):
        batch = order.global_batch(step * size, size)
        assert len(batch) == size
        assert len(set(has_image[batch])) == 1
        assert (np.diff(lengths[batch]) <= 0).all()


@settings(deadline=None)
@given(file=files(), seed=SEEDS, size=st.integers(1, 9))
def test_grouped_batches_take_every_sample_in_turn(file, seed, size):
    has_image, lengths = file
    order = GroupedOrder(has_image, lengths, seed)
    batches = [order.global_batch(step * size, size).tolist() for step in range(4 * len(has_image))]
    taken = Counter(position for batch in batches for position in batch)
    for kind in (True, False):
        counts = [taken[position] for position in np.flatnonzero(has_image == kind)]
        # Within one kind no sample is a whole epoch ahead of another.
        assert not counts or max(counts) - min(counts) <= 1
    texts = sum(not has_image[batch[0]] for batch in batches)
    assert texts == len(batches) * int((~has_image).sum()) // len(has_image)
    resumed = GroupedOrder(has_image, lengths, seed)
    assert [resumed.global_batch(step * size, size).tolist() for step in (5, 2)] == [
        GroupedOrder(has_image, lengths, seed).global_batch(step * size, size).tolist() for step in (5, 2)
    ]


def test_grouped_batches_need_whole_batches():
    order = GroupedOrder(np.array([True] * 8), np.arange(8, dtype=np.int32), 1)
    with pytest.raises(DataError, match=r"6 samples consumed are not a whole number of batches of 4"):
        order.global_batch(6, 4)
