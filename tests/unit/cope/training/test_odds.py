from itertools import product

import numpy as np
import pytest

from cope.calibrate import figures
from cope.evaluation.trust import probabilities
from cope.model.scoring import FEATURES, MatchFeatures
from cope.training.odds import PRODUCTS_FOR_UNITS, Sample, fit

pytestmark = pytest.mark.slow


def test_a_product_that_is_refused_loses_and_nothing_is_said_of_the_others():
    refused, other = MatchFeatures(visual_recent=0.9), MatchFeatures(visual_recent=0.6, margin_recent=0.2)
    found = [Sample([other, refused], -1, 1) for _ in range(10)]
    found += [Sample([other], 0) for _ in range(10)]
    fitted = fit(found)
    free, lost = probabilities(fitted, [other, refused])
    assert lost < 0.1 and free > 0.9, "of the two, it is not said that the other one is wrong too"
    assert figures(fitted, found)["windows"] == 20 and figures(fitted, found[:10])["ece"] == 0.0


def agreeing(products: int) -> list[Sample]:
    """Windows in which the product is shown if looks and words that are read are both strong, or both weak."""
    rng, found = np.random.default_rng(0), []
    for number, looks, words in product(range(products), (0.1, 0.8), (0.1, 0.8)):
        for _ in range(10):
            noise = 0.02 * rng.standard_normal(2)
            seen = MatchFeatures(visual_recent=looks + noise[0], read=words + noise[1])
            found.append(Sample([seen], 0 if looks == words else -1, products=(f"p{number}",)))
    return found


def test_windows_of_many_products_show_what_features_mean_together():
    found = agreeing(PRODUCTS_FOR_UNITS)
    fitted = fit(found)
    right = [probabilities(fitted, one.candidates)[0] > 0.5 for one in found] == [one.shown == 0 for one in found]
    assert right and fitted.units
    assert fit(found) == fitted, "the same windows give the same numbers"
    assert all(part.weights["speech"] == 0.0 for part in (fitted, *fitted.units)), "nobody speaks"
    assert fitted.prior == 0.5


def test_windows_of_few_products_give_a_logistic_regression_that_better_evidence_never_lowers():
    fitted = fit(agreeing(PRODUCTS_FOR_UNITS - 1))
    assert not fitted.units
    assert all(fitted.weights[name] >= 0 for name in FEATURES)
    assert fitted.weights["read"] == 0.0, "words on look-alikes say too little by themselves"
