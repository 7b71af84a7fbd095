import pytest
import torch
from torch.nn import functional

from cope.domains import DOMAINS
from cope.evaluation.calibration import curve_error, expected_calibration_error, reliability
from cope.evaluation.few_shot import few_shot
from cope.evaluation.measures import difference, interval
from cope.evaluation.ranking import Ranks
from cope.evaluation.tail import category_parts
from cope.evaluation.trust import probabilities
from cope.model.scoring import Calibration, MatchFeatures
from cope.training.validation import directions


def clusters(seed, products, each, spread, dim=16):
    """`each` items of each product around a centre that both domains share."""
    centres = functional.normalize(torch.randn(products, dim, generator=torch.Generator().manual_seed(0)), dim=1)
    noise = torch.randn(products * each, dim, generator=torch.Generator().manual_seed(seed))
    known = torch.arange(products).repeat_interleave(each)
    return functional.normalize(centres[known] + spread * noise, dim=1), known


def test_few_shots_suffice_where_products_lie_apart():
    shots, queries = clusters(1, 12, 8, 0.02), clusters(2, 12, 6, 0.02)
    found = few_shot(*shots, *queries, k=1, ways=10, episodes=20)
    assert (found.mean, found.interval, found.ways, found.products) == (1.0, 0.0, 10, 12)


def test_more_shots_help_where_items_scatter():
    shots, queries = clusters(1, 12, 8, 0.5), clusters(2, 12, 6, 0.2)
    one, eight = (few_shot(*shots, *queries, k=k, ways=12, episodes=50) for k in (1, 8))
    assert eight.mean - eight.interval > one.mean + one.interval


def test_eight_items_of_a_product_make_eight_shots():
    found = few_shot(*clusters(1, 4, 8, 0.1), *clusters(2, 4, 8, 0.1), k=8, ways=4, episodes=5)
    assert (found.ways, found.products) == (4, 4)


def test_few_shot_episodes_are_those_of_the_seed():
    shots, queries = clusters(1, 12, 8, 0.5), clusters(2, 12, 6, 0.5)
    a, b, c = (few_shot(*shots, *queries, k=2, ways=5, episodes=10, seed=seed) for seed in (3, 3, 4))
    assert a == b != c


def test_few_shot_asks_only_products_with_enough_shots_and_a_query():
    shots, shot_ids = clusters(1, 5, 2, 0.1)
    queries, query_ids = clusters(2, 5, 2, 0.1)
    shot_ids[shot_ids == 4] = -1
    few = few_shot(shots, shot_ids, queries[query_ids > 0], query_ids[query_ids > 0], k=2, ways=50, episodes=5)
    assert (few.ways, few.products) == (3, 3)
    assert few_shot(shots, shot_ids, queries, query_ids, k=3, ways=50) is None


def test_a_domain_without_items_has_no_few_shot_figures():
    items, nothing = clusters(1, 5, 2, 0.1), (torch.zeros(0, 16), torch.zeros(0, dtype=torch.int64))
    assert few_shot(*items, *nothing, k=1, ways=5) is None
    assert few_shot(*nothing, *items, k=1, ways=5) is None


def test_a_collapsed_model_classifies_nothing():
    shots, known = clusters(1, 6, 3, 0.1)
    same = functional.normalize(torch.ones_like(shots), dim=1)
    assert few_shot(same, known, same, known, k=1, ways=6, episodes=5).mean == 0.0


def test_what_lies_within_a_rounding_of_another_product_is_a_tie():
    same = functional.normalize(torch.ones(6, 16), dim=1)
    shots = functional.normalize(same + 2e-4 * torch.eye(6, 16), dim=1).double()  # each 4e-8 nearer to its own
    known = torch.arange(6)
    assert few_shot(shots, known, shots, known, k=1, ways=6, episodes=5).mean == 0.0


def test_head_body_and_tail_hold_a_third_of_the_products_each():
    categories = ["toys"] * 30 + ["shoes"] * 12 + ["hats"] * 12 + ["cups"] * 6 + [f"rare-{i}" for i in range(30)] + [""]
    parts = dict(zip(categories, category_parts(categories), strict=True))
    assert {c: parts[c] for c in ("toys", "shoes", "hats", "cups", "rare-0", "")} == {
        "toys": "head",
        "shoes": "body",
        "hats": "body",
        "cups": "body",
        "rare-0": "tail",
        "": "",
    }
    assert category_parts(["", ""]) == ["", ""]


def test_equal_categories_are_parted_by_name_whatever_their_order():
    assert category_parts(["c", "a", "b"]) == ["tail", "head", "body"]


def test_queries_of_one_product_count_as_one_observation():
    hits = torch.tensor([1.0, 1.0, 0.0, 0.0])
    alone = interval(hits, torch.arange(4))
    assert alone == pytest.approx(1.96 * hits.std().item() / 2)
    assert interval(hits, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.98)
    assert interval(torch.ones(4), torch.arange(4)) == 0.0
    assert interval(torch.zeros(0), torch.zeros(0, dtype=torch.int64)) == 0.0


def test_difference_compares_query_by_query():
    precision = torch.zeros(3, dtype=torch.float64)
    a = Ranks(torch.tensor([0, 1, 3]), torch.tensor([1, 1, 5]), precision)
    b = Ranks(torch.tensor([0, 1, 3]), torch.tensor([1, 2, 9]), precision)
    products = torch.tensor([0, 1, 2, 3])
    found = difference(a, b, products, torch.tensor([True, True, True, True]))
    assert (found.mean, found.queries) == (pytest.approx(1 / 3), 3)
    assert difference(a, b, products, products == 2).queries == 0


def test_training_figures_leave_out_directions_without_queries():
    items, nothing = clusters(1, 4, 1, 0.1), (torch.zeros(0, 16), torch.zeros(0, dtype=torch.int64))
    figures = directions({"page": items, "video": nothing, "live": items})
    assert figures == {"mean R@1": 1.0, "P->L R@1": 1.0, "L->P R@1": 1.0}
    assert directions(dict.fromkeys(DOMAINS, nothing)) == {}


def test_reliability_curve_says_what_was_stated_and_what_held():
    curve = reliability([0.05, 0.15, 0.95, 0.95, 1.0], [False, True, True, False, True])
    assert [(b.low, b.count) for b in curve] == [(0.0, 1), (0.1, 1), (0.9, 3)]
    assert curve[-1].stated == pytest.approx(2.9 / 3)
    assert curve[-1].observed == pytest.approx(2 / 3)
    error = (0.05 + 0.85 + 3 * abs(2.9 / 3 - 2 / 3)) / 5
    assert curve_error(curve) == pytest.approx(error)
    assert expected_calibration_error([0.05, 0.15, 0.95, 0.95, 1.0], [False, True, True, False, True]) == pytest.approx(
        error
    )


def test_candidates_compete_with_each_other_and_with_none_of_them():
    names = MatchFeatures().__dataclass_fields__
    calibration = Calibration({name: float(name == "text_share") for name in names}, 0.0, 0.5)
    equal = probabilities(calibration, [MatchFeatures(), MatchFeatures()])
    assert equal == pytest.approx([1 / 3, 1 / 3])
    first, second = probabilities(calibration, [MatchFeatures(text_share=1000.0), MatchFeatures()])
    assert (first, second) == (pytest.approx(1.0), pytest.approx(0.0))
    assert probabilities(calibration, []) == []
