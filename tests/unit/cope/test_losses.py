"""Each loss against a plain loop in float64."""

import math

import numpy as np
import pytest
import torch

from cope.losses import finder_loss, info_nce, pair_iou, pairwise_sigmoid
from cope.regions import best_regions, overlap


def vectors(rng, n, dim=6):
    x = rng.normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def one_way(a, a_ids, b, b_ids, scale, smoothing):
    total, rows = 0.0, 0
    for i in range(len(a)):
        positives = [j for j in range(len(b)) if a_ids[i] >= 0 and a_ids[i] == b_ids[j]]
        if not positives:
            continue
        logits = [scale * float(a[i] @ b[j]) for j in range(len(b))]
        top = max(logits)
        log_sum = top + math.log(sum(math.exp(v - top) for v in logits))
        for j in range(len(b)):
            target = (1 - smoothing) * (1 / len(positives) if j in positives else 0.0) + smoothing / len(b)
            total -= target * (logits[j] - log_sum)
        rows += 1
    return total / rows if rows else 0.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_info_nce_equals_the_loop(smoothing):
    rng = np.random.default_rng(0)
    a, b = vectors(rng, 7), vectors(rng, 5)
    a_ids, b_ids = np.array([0, 0, 1, 2, -1, 3, 9]), np.array([0, 1, 1, 2, 8])
    found = info_nce(*map(torch.from_numpy, (a, a_ids, b, b_ids)), 7.0, smoothing).item()
    expected = (one_way(a, a_ids, b, b_ids, 7.0, smoothing) + one_way(b, b_ids, a, a_ids, 7.0, smoothing)) / 2
    assert found == pytest.approx(expected, rel=1e-12)


def test_info_nce_of_strangers_is_zero_and_has_a_gradient():
    a = torch.nn.functional.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    loss = info_nce(a, torch.tensor([0, 1, -1]), a.detach(), torch.tensor([5, 6, -1]), 10.0)
    loss.backward()
    assert loss.item() == 0.0
    assert a.grad is not None


def test_a_second_picture_of_a_product_is_no_negative():
    a = torch.eye(3, dtype=torch.float64)
    twice = torch.tensor([0, 0, 1])
    apart = info_nce(a, torch.tensor([0, 1, 2]), a, torch.tensor([0, 1, 2]), 20.0)
    together = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]], dtype=torch.float64)
    assert info_nce(together, twice, together, twice, 20.0) == pytest.approx(math.log(2) * 2 / 3, rel=1e-6)
    assert apart < 1e-6


def test_pairwise_sigmoid_equals_the_loop():
    rng = np.random.default_rng(1)
    a, b = vectors(rng, 4), vectors(rng, 3)
    a_ids, b_ids = np.array([0, 1, -1, 2]), np.array([0, 2, 2])
    scale, bias = 6.0, -1.5
    same, other = [], []
    for i in range(4):
        for j in range(3):
            logit = scale * float(a[i] @ b[j]) + bias
            if a_ids[i] >= 0 and a_ids[i] == b_ids[j]:
                same.append(math.log1p(math.exp(-logit)))
            else:
                other.append(math.log1p(math.exp(logit)))
    arguments = [torch.from_numpy(x) for x in (a, a_ids, b, b_ids)]
    found = pairwise_sigmoid(*arguments, torch.tensor(scale, dtype=torch.float64), torch.tensor(bias)).item()
    assert found == pytest.approx((sum(same) / len(same) + sum(other) / len(other)) / 2, rel=1e-9)


def test_overlap_of_boxes():
    a = np.array([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert overlap(a, a).tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert pair_iou(torch.from_numpy(a[0]), torch.from_numpy(a[1])).item() == pytest.approx(0.5)


def test_the_finder_loss_is_smallest_for_the_right_boxes():
    truth = torch.tensor([[0.25, 0.25, 0.75, 0.75]])
    right = truth.expand(1, 8, 8, 4).clone()
    inside = torch.full((1, 8, 8), -9.0)
    inside[0, 3:5, 3:5] = 9.0
    good_salience, good_fit = finder_loss(inside, right, [truth])
    bad_salience, bad_fit = finder_loss(-inside, right * 0.5, [truth])
    assert good_salience < bad_salience
    assert good_fit < 1e-6 < bad_fit


def test_a_frame_that_shows_nothing_still_teaches_the_salience():
    logits = torch.zeros(1, 4, 4, requires_grad=True)
    salience, fit = finder_loss(logits, torch.rand(1, 4, 4, 4), [torch.zeros(0, 4)])
    (salience + fit).backward()
    assert salience.item() > 0
    assert fit.item() == 0.0
    assert float(logits.grad.min()) > 0


def test_regions_do_not_repeat_each_other():
    boxes = np.array([[0.0, 0.0, 0.5, 0.5], [0.01, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    kept, salience = best_regions(boxes, np.array([0.8, 0.9, 0.3]), 8, 0.5)
    assert kept.tolist() == [boxes[1].tolist(), boxes[2].tolist()]
    assert salience.tolist() == pytest.approx([0.9, 0.3])
    assert len(best_regions(boxes, np.array([0.8, 0.9, 0.3]), 1, 0.5)[0]) == 1
