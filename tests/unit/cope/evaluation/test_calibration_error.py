import numpy as np
import pytest
import torch

from cope.evaluation.calibration import expected_calibration_error
from cope.evaluation.ranking import ranks


def test_any_positive_among_the_first_k_counts():
    gallery = torch.eye(4, dtype=torch.float64)
    queries = torch.tensor([[0.9, 0.5, 0.1, 0.0], [0.0, 0.1, 0.2, 0.9]], dtype=torch.float64)
    found = ranks(queries, torch.tensor([1, 2]), gallery, torch.tensor([0, 1, 1, 2])).figures()
    assert (found.r1, found.r5, found.queries) == (0.5, 1.0, 2)
    first = (1 / 2 + 2 / 3) / 2  # positives at ranks 2 and 3
    assert found.mean_average_precision == pytest.approx((first + 1) / 2)


def test_queries_without_a_positive_do_not_count():
    gallery = torch.eye(2)
    assert ranks(gallery, torch.tensor([0, 7]), gallery, torch.tensor([0, 1])).figures().queries == 1


def test_calibration_error_of_honest_and_boastful_probabilities():
    honest = expected_calibration_error([0.75] * 4, [True, True, True, False])
    assert honest == pytest.approx(0.0)
    assert expected_calibration_error([0.95] * 4, [False] * 4) == pytest.approx(0.95)
    assert np.isfinite(expected_calibration_error([1.0], [True]))
