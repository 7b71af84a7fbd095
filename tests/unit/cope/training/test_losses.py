"""Each loss against a plain loop in float64."""

import math

import numpy as np
import pytest
import torch

from cope.errors import UserError
from cope.model.views import NOBODY
from cope.training.losses import Temperature, finder_loss, info_nce, region_loss
from cope.vision.cropping import pair_iou
from cope.vision.regions import best_regions, overlap


def tensors(*arrays):
    return [torch.from_numpy(x) for x in arrays]


def vectors(rng, n, dim=6):
    x = rng.normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def one_way(a, a_ids, b, b_ids, scale, smoothing, weights=None):
    total, weighed = 0.0, 0.0
    for i in range(len(a)):
        positives = [j for j in range(len(b)) if a_ids[i] >= 0 and a_ids[i] == b_ids[j]]
        if not positives:
            continue
        logits = [scale * float(a[i] @ b[j]) for j in range(len(b))]
        top = max(logits)
        log_sum = top + math.log(sum(math.exp(v - top) for v in logits))
        loss = 0.0
        for j in range(len(b)):
            target = (1 - smoothing) * (1 / len(positives) if j in positives else 0.0) + smoothing / len(b)
            loss -= target * (logits[j] - log_sum)
        weight = 1.0 if weights is None else float(weights[i])
        total += weight * loss
        weighed += weight
    return total / weighed if weighed else 0.0


def both_ways(a, a_ids, b, b_ids, scale, smoothing, a_weights=None, b_weights=None):
    forth = one_way(a, a_ids, b, b_ids, scale, smoothing, a_weights)
    return (forth + one_way(b, b_ids, a, a_ids, scale, smoothing, b_weights)) / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_info_nce_equals_the_loop(smoothing, weighted):
    rng = np.random.default_rng(0)
    a, b = vectors(rng, 7), vectors(rng, 5)
    a_ids, b_ids = np.array([0, 0, 1, 2, -1, 3, 9]), np.array([0, 1, 1, 2, 8])
    weights = (rng.uniform(0.1, 9, 7), rng.uniform(0.1, 9, 5)) if weighted else ()
    found = info_nce(*tensors(a, a_ids, b, b_ids), 7.0, smoothing, *tensors(*weights)).item()
    expected = both_ways(a, a_ids, b, b_ids, 7.0, smoothing, *weights)
    assert found == pytest.approx(expected, rel=1e-12)


def test_weights_count_relative_to_each_other():
    rng = np.random.default_rng(1)
    a, b = tensors(vectors(rng, 6), vectors(rng, 6))
    ids = torch.arange(6)
    weight = torch.tensor([1.0, 2, 3, 4, 5, 0], dtype=torch.float64)
    plain = info_nce(a, ids, b, ids, 9.0)
    assert info_nce(a, ids, b, ids, 9.0, 0.0, weight, weight) == pytest.approx(
        info_nce(a, ids, b, ids, 9.0, 0.0, weight / 1e5, weight / 1e5).item()
    )
    even = torch.full((6,), 3.0)
    assert info_nce(a, ids, b, ids, 9.0, 0.0, even, even) == pytest.approx(plain.item())


def test_weights_of_nothing_give_zero():
    a = torch.eye(3, requires_grad=True)
    loss = info_nce(a, torch.arange(3), a, torch.arange(3), 5.0, 0.1, torch.zeros(3), torch.zeros(3))
    loss.backward()
    assert loss.item() == 0.0
    assert a.grad.abs().sum() == 0.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_info_nce_has_the_right_gradients(smoothing):
    rng = np.random.default_rng(2)
    a, b = (x.requires_grad_() for x in tensors(vectors(rng, 4, 3), vectors(rng, 5, 3)))
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    weights = tensors(rng.uniform(0.5, 2, 4), rng.uniform(0.5, 2, 5))
    a_ids, b_ids = torch.tensor([0, 1, 1, -1]), torch.tensor([1, 0, 0, 4, -1])
    assert torch.autograd.gradcheck(
        lambda a, b, scale: info_nce(a, a_ids, b, b_ids, scale, smoothing, *weights), (a, b, scale)
    )


def test_info_nce_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(3)
    a, b = tensors(vectors(rng, 8), vectors(rng, 8))
    a_ids, b_ids = torch.tensor([0, 1, 2, 3, 4, 4, -1, -1]), torch.tensor([4, 3, 3, 1, 0, -1, 7, -1])
    weight = torch.rand(8, dtype=torch.float64)
    p, q = torch.randperm(8), torch.randperm(8)
    assert info_nce(a[p], a_ids[p], b[q], b_ids[q], 6.0, 0.1, weight[p], weight[q]) == pytest.approx(
        info_nce(a, a_ids, b, b_ids, 6.0, 0.1, weight, weight).item(), rel=1e-12
    )


def test_a_row_of_nobody_only_repels():
    rng = np.random.default_rng(4)
    a, b = tensors(vectors(rng, 3), vectors(rng, 4))
    b.requires_grad_()
    without = info_nce(a, torch.arange(3), b[:3], torch.arange(3), 5.0)
    loss = info_nce(a, torch.arange(3), b, torch.tensor([0, 1, 2, NOBODY]), 5.0)
    loss.backward()
    assert loss > without
    # The descent step moves it away from each row of the other side that it was close to.
    assert (a @ b.grad[3]).max() > 0
    assert info_nce(b[3:], torch.tensor([NOBODY]), b[3:], torch.tensor([NOBODY]), 5.0) == 0.0


def test_logits_keep_their_precision_under_autocast():
    rng = np.random.default_rng(5)
    a, b = (x.float() for x in tensors(vectors(rng, 16, 64), vectors(rng, 16, 64)))
    ids = torch.arange(16)
    plain = info_nce(a, ids, b, ids, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert info_nce(a, ids, b, ids, 100.0) == plain
        assert info_nce(a.bfloat16(), ids, b, ids, 100.0).dtype == torch.float32


def test_a_fixed_temperature_is_no_parameter():
    scale = Temperature(0.05, learned=False)
    assert scale() == pytest.approx(20.0)
    assert list(scale.parameters()) == []
    assert "log_scale" in scale.state_dict()


def test_a_learned_temperature_stops_at_its_bound_and_comes_back():
    scale = Temperature(0.07, learned=True)
    assert scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        scale.log_scale += 10
    grown = scale()
    assert grown.item() == pytest.approx(100.0)
    grown.backward()
    with torch.no_grad():
        scale.log_scale -= 0.001 * scale.log_scale.grad
    assert scale() < 100.0


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(UserError, match="temperature must be above 0"):
        Temperature(temperature, learned=True)


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


def regions_one_by_one(regions, frame, right, product, page, page_product, weights):
    """The rows of the region loss: vector, product and weight of each region that takes part."""
    rows = []
    for clip in range(len(regions)):
        real = [r for r in range(regions.shape[1]) if frame[clip, r] >= 0]
        own = [j for j in range(len(page)) if product[clip] >= 0 and page_product[j] == product[clip]]
        known = [r for r in real if product[clip] >= 0 and right[clip, r]]
        if known:
            chosen, others = known, [r for r in real if r not in known]
        elif product[clip] < 0:
            chosen, others = [], real
        else:
            best = (
                max(real, key=lambda r: max(float(regions[clip, r] @ page[j]) for j in own)) if real and own else None
            )
            chosen, others = [] if best is None else [best], []
        rows += [(regions[clip, r], product[clip], weights[clip] / len(chosen)) for r in chosen]
        rows += [(regions[clip, r], NOBODY, 0.0) for r in others]
    return tuple(map(np.array, zip(*rows, strict=True)))


def clips(rng):
    """Clips of known and of unknown regions, of no product, without pictures, and without a page."""
    regions = vectors(rng, 7 * 4).reshape(7, 4, 6)
    frame = np.array([[0, 0, 1, 1], [0, 0, 1, -1], [0, 1, 2, 3], [0, 0, -1, -1], [-1] * 4, [0, 0, 1, 1], [0, 0, 0, 0]])
    right = np.zeros((7, 4), bool)
    right[0, [0, 2]] = right[1, 3] = right[3, 1] = right[5, 0] = True  # of clip 1 it is padding, of 3 nobody's
    product = np.array([3, 1, 5, NOBODY, 1, 8, 3])
    return regions, frame, right, product, vectors(rng, 5), np.array([1, 3, 5, 5, NOBODY])


@pytest.mark.parametrize("seed", range(4))
def test_the_region_loss_equals_the_loop(seed):
    rng = np.random.default_rng(seed)
    parts = clips(rng)
    weights, page_weights = rng.uniform(0.5, 2, 7), rng.uniform(0.5, 2, 5)
    rows, ids, shares = regions_one_by_one(*parts, weights)
    expected = both_ways(rows, ids, parts[4], parts[5], 5.0, 0.1, shares, page_weights)
    assert region_loss(*tensors(*parts), 5.0, 0.1, *tensors(weights, page_weights)) == pytest.approx(
        expected, rel=1e-12
    )
    rows, ids, shares = regions_one_by_one(*parts, np.ones(7))
    expected = both_ways(rows, ids, parts[4], parts[5], 5.0, 0.0, shares)
    assert region_loss(*tensors(*parts), 5.0, 0.0) == pytest.approx(expected, rel=1e-12)


def test_the_region_loss_does_not_see_padding():
    regions, frame, right, product, page, ids = tensors(*clips(np.random.default_rng(0)))
    loss = region_loss(regions, frame, right, product, page, ids, 5.0)
    regions[frame < 0] = float("nan")
    wide = torch.cat([regions, torch.randn(7, 2, 6, dtype=torch.float64)], dim=1)
    frame, right = torch.nn.functional.pad(frame, (0, 2), value=-1), torch.nn.functional.pad(right, (0, 2), value=True)
    assert region_loss(wide, frame, right, product, page, ids, 5.0) == pytest.approx(loss.item(), rel=1e-12)


def test_the_region_loss_does_not_depend_on_the_order_of_regions():
    regions, frame, right, product, page, ids = tensors(*clips(np.random.default_rng(1)))
    loss = region_loss(regions, frame, right, product, page, ids, 5.0)
    p, q = torch.randperm(4), torch.randperm(7)
    moved = [x[:, p][q] for x in (regions, frame, right)]
    assert region_loss(*moved, product[q], page, ids, 5.0) == pytest.approx(loss.item(), rel=1e-12)


def test_of_unknown_regions_only_the_nearest_to_the_page_learns():
    regions = torch.eye(4, dtype=torch.float64)[None, :3].clone().requires_grad_()
    page = torch.nn.functional.normalize(torch.tensor([[0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]), dim=1).double()
    frame, unknown = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.bool)
    region_loss(regions, frame, unknown, torch.tensor([4]), page, torch.tensor([4, 6]), 5.0).backward()
    assert regions.grad[0].abs().sum(dim=1).gt(0).tolist() == [False, True, False]


def test_a_known_region_counts_though_another_is_nearer_to_the_page():
    regions = torch.eye(4, dtype=torch.float64)[None, :3].clone().requires_grad_()
    page = torch.nn.functional.normalize(torch.tensor([[0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]), dim=1).double()
    right = torch.tensor([[True, False, False]])
    frame = torch.zeros(1, 3, dtype=torch.int64)
    region_loss(regions, frame, right, torch.tensor([4]), page, torch.tensor([4, 6]), 5.0).backward()
    assert page[0] @ regions.grad[0, 0] < 0  # pulled to its page by a descent step
    assert page[0] @ regions.grad[0, 1] > 0  # pushed away


def test_overlap_of_boxes():
    a = np.array([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert overlap(a, a).tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert pair_iou(torch.from_numpy(a[0]), torch.from_numpy(a[1])).item() == pytest.approx(0.5)


def area(box):
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def iou(a, b):
    inner = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return inner / (area(a) + area(b) - inner)


def owner(x, y, w, h, truth, core):
    """The smallest box in whose core the centre of a cell lies, or None."""
    owners = []
    for box in truth:
        reach_x = max((box[2] - box[0]) * core / 2, 0.75 / w)
        reach_y = max((box[3] - box[1]) * core / 2, 0.75 / h)
        if abs(x - (box[0] + box[2]) / 2) <= reach_x and abs(y - (box[1] + box[3]) / 2) <= reach_y:
            owners.append(box)
    return min(owners, key=area) if owners else None


def finder_one_by_one(logits, boxes, truths, core):
    salience, fit, count = 0.0, 0.0, 0
    for picture, truth in enumerate(truths):
        h, w = logits[picture].shape
        for row in range(h):
            for column in range(w):
                box = owner((column + 0.5) / w, (row + 0.5) / h, w, h, truth, core)
                quality = 0.0 if box is None else iou(boxes[picture, row, column], box)
                if box is not None:
                    count += 1
                    fit -= math.log(max(quality, 0.01))
                p = 1 / (1 + math.exp(-logits[picture, row, column]))
                entropy = -quality * math.log(p) - (1 - quality) * math.log(1 - p)
                salience += (quality - p) ** 2 * entropy
    return salience / max(count, 1), fit / max(count, 1), count


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("core", [0.4, 0.9])
def test_the_finder_loss_equals_the_loop(seed, core):
    rng = np.random.default_rng(seed)
    h, w = 6, 9
    low = rng.uniform(0, 0.5, (3, h, w, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, (3, h, w, 2))], axis=3)
    logits = rng.normal(size=(3, h, w)) * 2
    truths = [  # one within another, one smaller than a cell beside one at the edge, and nothing
        np.array([[0.1, 0.1, 0.9, 0.9], [0.35, 0.4, 0.65, 0.7]]),
        np.array([[0.52, 0.31, 0.55, 0.34], [0.7, 0.0, 1.0, 0.2]]),
        np.zeros((0, 4)),
    ]
    salience, fit, count = finder_one_by_one(logits, boxes, truths, core)
    assert count > 8
    found = finder_loss(*tensors(logits, boxes), tensors(*truths), core)
    # The grid is float32.
    assert [loss.item() for loss in found] == pytest.approx([salience, fit], rel=1e-6)


def test_the_finder_loss_teaches_salience_without_moving_boxes():
    rng = np.random.default_rng(0)
    boxes = torch.tensor([0.2, 0.2, 0.8, 0.7]).expand(1, 4, 4, 4).double().requires_grad_()
    logits = torch.from_numpy(rng.normal(size=(1, 4, 4))).requires_grad_()
    salience, fit = finder_loss(logits, boxes, [torch.tensor([[0.25, 0.25, 0.75, 0.75]], dtype=torch.float64)])
    on_boxes, on_logits = torch.autograd.grad(salience, (boxes, logits), allow_unused=True)
    assert on_boxes is None
    assert on_logits.abs().min() > 0
    assert torch.autograd.grad(fit, boxes)[0].abs().sum() > 0


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
