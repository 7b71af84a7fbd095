import numpy as np
import pytest
import torch
from torch.nn import functional

from cope.evaluation import ranking
from cope.evaluation.ranking import nearest, ranks, room_ranks


def by_sorting(queries, query_ids, gallery, gallery_ids):
    """The definition, query by query: sort, and let wrong items go first where scores are equal."""
    first, precision, rows = [], [], []
    for row, (query, product) in enumerate(zip(queries.double(), query_ids.tolist(), strict=True)):
        right = gallery_ids == product
        if product < 0 or not right.any():
            continue
        scores = gallery.double() @ query + torch.where(right, 0.0, 1e-6)
        order = scores.argsort(descending=True)
        places = [place for place, item in enumerate(order.tolist(), 1) if right[item]]
        rows.append(row)
        first.append(places[0])
        precision.append(np.mean([number / place for number, place in enumerate(places, 1)]))
    return rows, first, precision


def vectors(seed, count, dim=6, coarse=False):
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(x.sign() if coarse else x, dim=1)  # a coarse one has many equal vectors


def ids(seed, count, products=8, least=-1):
    return torch.randint(least, products, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "many ties"])
@pytest.mark.parametrize("blocks", [(1, 1), (4, 7), (64, 1000)], ids=str)
def test_ranks_equal_those_of_sorting_whatever_the_blocks(coarse, blocks):
    arguments = (vectors(1, 30, coarse=coarse), ids(2, 30), vectors(3, 50, coarse=coarse), ids(4, 50, products=7))
    found = ranks(*arguments, *blocks)
    rows, first, precision = by_sorting(*arguments)
    assert found.query.tolist() == rows
    assert found.first.tolist() == first
    assert found.average_precision.tolist() == pytest.approx(precision)


def test_products_with_very_many_positives_rank_the_same(monkeypatch):
    arguments = (vectors(1, 20), ids(2, 20, 2, 0), vectors(3, 90), ids(4, 90, 2, 0))
    compared = ranks(*arguments)
    monkeypatch.setattr(ranking, "_SORT_FROM", 1)
    by_sort = ranks(*arguments)
    assert compared.first.tolist() == by_sort.first.tolist()
    assert compared.average_precision.tolist() == by_sort.average_precision.tolist()


def test_a_model_that_maps_everything_to_one_point_finds_nothing():
    same = functional.normalize(torch.ones(40, 512), dim=1)
    figures = ranks(same[:20], torch.arange(20), same, torch.arange(40)).figures()
    assert (figures.r1, figures.r10) == (0.0, 0.0)
    assert figures.mean_average_precision == pytest.approx(1 / 40)


@pytest.mark.parametrize("sort_from", [1, 64], ids=["sorted", "compared"])
def test_a_model_that_gives_no_numbers_finds_nothing(monkeypatch, sort_from):
    monkeypatch.setattr(ranking, "_SORT_FROM", sort_from)
    none = torch.full((12, 4), float("nan"))
    known = torch.arange(6).repeat_interleave(2)
    for queries, gallery in ((none, none), (vectors(1, 12, 4), none), (none, vectors(1, 12, 4))):
        figures = ranks(queries, known, gallery, known).figures()
        assert (figures.r1, figures.r10) == (0.0, 0.0)
        assert figures.mean_average_precision == pytest.approx((1 / 11 + 2 / 12) / 2)
    rooms = room_ranks(none, known, ["a"] * 12, none, known, {"a": range(6)})
    assert rooms.first.tolist() == [11] * 12


@pytest.mark.parametrize("sort_from", [1, 64], ids=["sorted", "compared"])
def test_a_vector_without_numbers_stands_before_the_right_ones_and_a_right_one_behind_all(monkeypatch, sort_from):
    monkeypatch.setattr(ranking, "_SORT_FROM", sort_from)
    gallery = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    wrong, right = gallery.clone(), gallery.clone()
    wrong[2], right[0] = float("nan"), float("nan")
    query, wanted, known = gallery[:1], torch.tensor([0]), torch.tensor([0, 0, 1])
    assert ranks(query, wanted, wrong, known).first.tolist() == [2]
    found = ranks(query, wanted, right, known)
    assert found.first.tolist() == [1]
    assert found.average_precision.tolist() == [pytest.approx((1 + 2 / 3) / 2)]


def test_the_order_of_the_gallery_does_not_matter():
    queries, gallery, known = vectors(1, 9, coarse=True), vectors(2, 40, coarse=True), ids(3, 40)
    turned = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    one = ranks(queries, torch.arange(9) % 8, gallery, known)
    other = ranks(queries, torch.arange(9) % 8, gallery[turned], known[turned])
    assert one.first.tolist() == other.first.tolist()
    assert one.average_precision.tolist() == other.average_precision.tolist()


def test_no_query_or_no_gallery_gives_no_figures():
    nothing = torch.zeros(0, 6)
    none = torch.zeros(0, dtype=torch.int64)
    assert ranks(nothing, none, vectors(1, 5), ids(1, 5)).figures().queries == 0
    assert ranks(vectors(1, 5), ids(1, 5), nothing, none).figures().queries == 0


def test_figures_of_some_queries_are_those_of_these_alone():
    queries, known, gallery, items = vectors(1, 30), ids(2, 30), vectors(3, 50), ids(4, 50)
    some = torch.arange(30) % 3 == 0
    assert (
        ranks(queries, known, gallery, items).figures(some)
        == ranks(queries[some], known[some], gallery, items).figures()
    )


def test_an_item_is_searched_among_its_own_rooms_products_only():
    gallery = torch.eye(4)
    queries = torch.tensor([[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 0.6, 0.8], [1.0, 0.0, 0.0, 0.0]])
    rooms = {"a": [0, 2], "b": [2, 3]}
    found = room_ranks(queries, torch.tensor([0, 2, 0]), ["a", "b", ""], gallery, torch.arange(4), rooms)
    # Product 1 is nearer to the first query than 0, but in another room; the third query is in none.
    assert dict(zip(found.query.tolist(), found.first.tolist(), strict=True)) == {0: 1, 1: 2}


def test_nearest_keeps_a_running_list_with_the_first_of_equals_first():
    queries, gallery = vectors(1, 5, coarse=True), vectors(2, 40, coarse=True)
    scores, rows = nearest(queries, gallery, 6, gallery_block=7)
    expected = (queries @ gallery.T).sort(dim=1, descending=True, stable=True)
    assert rows.tolist() == expected.indices[:, :6].tolist()
    torch.testing.assert_close(scores, expected.values[:, :6])


def test_vectors_without_numbers_are_nearest_to_nothing():
    gallery = torch.tensor([[float("nan"), 0.0], [-1.0, 0.0], [1.0, 0.0]])
    scores, rows = nearest(torch.tensor([[1.0, 0.0]]), gallery, 3, gallery_block=2)
    assert rows.tolist() == [[2, 1, 0]]
    assert scores.tolist() == [[1.0, -1.0, float("-inf")]]
