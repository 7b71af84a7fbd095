import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cope.data.sampling import Sampler, long_tail, spread
from cope.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_a_step_has_different_products_on_all_ranks_and_does_not_remember(products, batch, world, step, weighted):
    if products < world:
        return
    weights = np.linspace(0.1, 3, products) if weighted else None
    old = Sampler(products, batch, 5, world, weights)
    for earlier in range(3):
        old.products(earlier)
    drawn = [old.products(step, rank) for rank in range(world)]
    fresh = [Sampler(products, batch, 5, world, weights).products(step, rank) for rank in range(world)]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, fresh, strict=True))
    assert {len(one) for one in drawn} == {min(batch, products // world)}
    together = np.concatenate(drawn)
    assert len(set(together.tolist())) == len(together)
    assert together.min() >= 0
    assert together.max() < products


def test_an_epoch_shows_every_product_once_in_an_order_of_its_own():
    sampler = Sampler(20, 5, seed=1)
    epochs = [np.concatenate([sampler.products(4 * epoch + step) for step in range(4)]) for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert list(epochs[0]) != list(epochs[1])
    assert list(Sampler(20, 20, seed=2).products(0)) != list(epochs[0])


def test_fewer_products_than_ranks_are_named():
    with pytest.raises(UserError, match="3 products cannot be shared among 4"):
        Sampler(3, 8, 0, world=4)


@pytest.mark.parametrize(("power", "share"), [(0.0, 0.8), (1.0, 0.5)])
def test_balance_lifts_the_tail_from_its_share_of_products_to_its_share_of_categories(power, share):
    sizes = np.array([80.0] * 80 + [20.0] * 20)  # two categories
    weights = long_tail(sizes, power)
    assert weights.mean() == pytest.approx(1)
    sampler = Sampler(100, 2, 3, weights=weights)
    drawn = np.concatenate([sampler.products(step) for step in range(2000)])
    assert (drawn < 80).mean() == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("wanted", [1, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 30])
def test_frames_are_spread_over_the_whole_clip_in_time_order(count, wanted):
    for rng in (None, np.random.default_rng(0)):
        chosen = list(spread(rng, count, wanted))
        assert chosen == sorted(set(chosen))
        assert len(chosen) == min(count, wanted)
        stretch = count / wanted
        if count > wanted:
            assert all(int(at * stretch) <= frame < (at + 1) * stretch for at, frame in enumerate(chosen))


def test_the_middles_are_taken_where_nothing_is_random():
    assert list(spread(None, 8, 4)) == [1, 3, 5, 7]
    assert len({tuple(spread(np.random.default_rng(seed), 80, 4)) for seed in range(9)}) > 5
