"""The visual projection in closed form."""

import numpy as np
import pytest
import torch

from cope.errors import UserError
from cope.model.modeling import VisualProjection
from cope.model.views import NOBODY
from cope.towers.colours import COLOURS
from cope.training.features import Features
from cope.training.whitening import Rows, rows_of, whiten

WIDTH = 12


def shop(seed: int, products: int, noisy: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of products that differ in all directions but vary most in the first `noisy` ones."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 1, (products, WIDTH))
    spread = np.where(np.arange(WIDTH) < noisy, 6.0, 0.2)
    rows = np.repeat(means, 6, axis=0) + rng.normal(0, 1, (6 * products, WIDTH)) * spread
    return rows.astype(np.float32), np.repeat(np.arange(products), 6)


def right(projection: VisualProjection | None, rows: np.ndarray, product: np.ndarray) -> float:
    """Share of pictures whose nearest other picture is of the same product."""
    x = torch.from_numpy(rows)
    unit = torch.nn.functional.normalize(x, dim=1) if projection is None else projection(x, "live")
    alike = unit @ unit.T
    alike.fill_diagonal_(-2)
    return float(np.mean(product[alike.argmax(dim=1).numpy()] == product))


def test_products_that_were_never_seen_are_told_apart_better():
    projection = VisualProjection(WIDTH, WIDTH, whitened=True)
    whiten(projection, [Rows(*shop(0, 200, 4), 1.0)], shrinkage=0.01)
    unseen = shop(1, 60, 4)
    assert right(None, *unseen) < 0.3
    assert right(projection, *unseen) > 0.9


def test_pictures_of_a_product_differ_alike_in_all_directions_afterwards():
    rows, product = shop(0, 200, 4)
    projection = VisualProjection(WIDTH, WIDTH, whitened=True)
    whiten(projection, [Rows(rows, product, 1.0)], shrinkage=1e-6)
    seen = projection.axes(torch.from_numpy(rows)).detach().numpy().astype(np.float64)
    off = seen - np.stack([seen[product == p].mean(axis=0) for p in range(200)])[product]
    scatter = off.T @ off / (len(off) - 200)
    assert np.allclose(scatter / np.trace(scatter) * WIDTH, np.eye(WIDTH), atol=0.02)


def test_colours_stand_beside_what_was_whitened():
    rows, product = shop(0, 200, 4)
    colours = np.random.default_rng(3).random((2, COLOURS)).astype(np.float32)
    rows = np.concatenate([rows, colours[product % 2]], axis=1)
    projection = VisualProjection(WIDTH + COLOURS, 8 + COLOURS, whitened=True, colour=0.25)
    whiten(projection, [Rows(rows, product, 1.0)], shrinkage=0.01)
    found = projection(torch.from_numpy(rows), "page")
    assert found.shape == (len(rows), 8 + COLOURS)
    assert torch.allclose(found.norm(dim=1), torch.ones(len(rows)), atol=1e-5)
    what, dye = found[:, :8], found[:, 8:]
    assert torch.allclose(what.norm(dim=1), torch.full((len(rows),), 0.75**0.5), atol=1e-5)
    alike = dye @ dye.T / 0.25
    assert float(alike[0, 6]) == pytest.approx(-1, abs=1e-3)  # two dyes lie on both sides of their mean
    assert float(alike[0, 12]) == pytest.approx(1, abs=1e-3)


def test_colours_need_room():
    with pytest.raises(UserError, match=r"model\.dim above"):
        VisualProjection(WIDTH + COLOURS, COLOURS, whitened=True, colour=0.25)


def test_fewer_dimensions_keep_the_directions_in_which_pictures_lie():
    rows, product = shop(0, 40, 4)  # eight directions tell
    projection = VisualProjection(WIDTH, 8, whitened=True)
    whiten(projection, [Rows(rows, product, 1.0)], shrinkage=0.01)
    assert right(projection, rows, product) > 0.9


def test_going_on_keeps_the_space_and_learns_what_new_data_show():
    projection = VisualProjection(WIDTH, WIDTH, whitened=True)
    whiten(projection, [Rows(*shop(0, 200, 4), 1.0)], shrinkage=0.01)
    rows, product = shop(2, 2_000, 0)  # many, and so believed
    rows[:, 8] += 20 * np.random.default_rng(3).normal(0, 1, len(rows)).astype(np.float32)  # varies here alone
    before = right(projection, rows[:600], product[:600])
    whiten(projection, [Rows(rows, product, 1.0)], shrinkage=0.2, go_on=True)
    assert right(projection, rows[:600], product[:600]) > before + 0.1
    old = shop(1, 60, 4)
    assert right(projection, *old) > 0.7  # what it knew, it knows


def test_going_on_turns_nothing_and_believes_few_pictures_little():
    projection = VisualProjection(WIDTH, WIDTH, whitened=True)
    whiten(projection, [Rows(*shop(0, 200, 4), 1.0)], shrinkage=0.2)
    rows, product = shop(3, 10, 6)
    before = projection(torch.from_numpy(rows), "live")
    whiten(projection, [Rows(rows, product, 1.0)], shrinkage=0.2, go_on=True)
    after = projection(torch.from_numpy(rows), "live")
    assert (before * after).sum(dim=1).min() > 0.99  # what texts have learned to lie near is where it was


def test_two_data_sets_count_by_their_weights():
    one, other = shop(0, 100, 4), shop(0, 100, 0)
    projections = []
    for weight in (1.0, 1000.0):
        projection = VisualProjection(WIDTH, WIDTH, whitened=True)
        whiten(projection, [Rows(*one, weight), Rows(*other, 1.0)], shrinkage=0.01)
        projections.append(right(projection, *shop(1, 60, 4)))
    assert projections[1] > projections[0]


def test_rows_that_show_no_product_do_not_count():
    def many(count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((count, 2), np.float16), np.array([NOBODY] + [0] * (count - 1), np.int64)

    page, live, video = many(3), many(4), many(2)
    features = Features(*live, np.ones(4, np.float32), *video, *page, maps=[], boxes=[])
    assert len(rows_of(features, 1.0).rows) == 2 + 3 + 1
