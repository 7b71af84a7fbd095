"""The sampled additive-margin softmax against plain loops in float64, and what a sample must hold."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cope.errors import UserError
from cope.model.views import NOBODY
from cope.training.product_softmax import SampledProductSoftmax, cosface


def unit(rng, n, dim):
    x = rng.normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(vectors, classes, labels, margin, scale):
    """(N,) losses: -log of e^(s (cos - m)) over itself and the e^(s cos) of all other classes."""
    losses = []
    for vector, label in zip(vectors, labels, strict=True):
        cosines = [float(vector @ c) / math.sqrt(float(c @ c)) for c in classes]
        others = sum(math.exp(scale * cosine) for j, cosine in enumerate(cosines) if j != label)
        right = math.exp(scale * (cosines[label] - margin))
        losses.append(-math.log(right / (right + others)))
    return np.array(losses)


def batch(classes, count, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(unit(rng, count, dim)).requires_grad_()
    return vectors, torch.from_numpy(rng.integers(0, classes, count))


def test_cosface_equals_the_loop():
    rng = np.random.default_rng(0)
    vectors, classes, labels = unit(rng, 6, 5), rng.normal(size=(9, 5)), rng.integers(0, 9, 6)
    found = cosface(*map(torch.from_numpy, (vectors, classes, labels)), 0.4, 20.0)
    assert found.numpy() == pytest.approx(reference(vectors, classes, labels, 0.4, 20.0), rel=1e-12)


def test_cosface_has_the_right_gradients():
    rng = np.random.default_rng(1)
    vectors, classes = (torch.from_numpy(x).requires_grad_() for x in (unit(rng, 4, 3), rng.normal(size=(5, 3))))
    assert torch.autograd.gradcheck(
        lambda v, c: cosface(v, c, torch.tensor([0, 4, 4, 2]), 0.4, 6.0).sum(), (vectors, classes)
    )


def test_cosface_keeps_its_precision_under_autocast():
    vectors, labels = batch(6, 4)
    classes = torch.randn(6, 5)
    plain = cosface(vectors.float(), classes, labels, 0.4, 64.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosface(vectors.float(), classes, labels, 0.4, 64.0), plain)


def test_with_all_classes_sampled_it_is_the_full_cosface():
    softmax = SampledProductSoftmax(12, 5, sampled=12, margin=0.3, scale=10.0)
    vectors, product = batch(12, 8)
    expected = reference(vectors.detach().numpy(), softmax.weight.double().numpy(), product.numpy(), 0.3, 10.0)
    assert softmax(vectors, product).item() == pytest.approx(expected.mean(), rel=1e-12)


def test_sampled_it_is_the_cosface_over_the_classes_that_were_drawn():
    softmax = SampledProductSoftmax(50, 5, sampled=12, margin=0.3, scale=10.0)
    vectors, product = batch(50, 8)
    rows = softmax._sample(product).tolist()
    labels = [rows.index(p) for p in product.tolist()]
    expected = reference(vectors.detach().numpy(), softmax.weight[rows].double().numpy(), labels, 0.3, 10.0)
    assert softmax(vectors, product).item() == pytest.approx(expected.mean(), rel=1e-12)


@given(
    classes=st.integers(2, 40),
    sampled=st.integers(2, 50),
    product=st.lists(st.integers(NOBODY, 39), max_size=30),
    step=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_a_sample_holds_all_positives_and_as_many_others_as_there_is_room_for(classes, sampled, product, step):
    softmax = SampledProductSoftmax(classes, 2, sampled)
    softmax.step = step
    positives = {p for p in product if 0 <= p < classes}
    rows = softmax._sample(torch.tensor([p for p in product if p < classes], dtype=torch.int64)).tolist()
    assert rows == sorted(set(rows))
    assert positives <= set(rows) <= set(range(classes))
    assert len(rows) == max(len(positives), min(sampled, classes))


def test_every_class_is_drawn_equally_often():
    softmax = SampledProductSoftmax(20, 2, sampled=7)
    counts = np.zeros(20)
    for softmax.step in range(4000):
        counts[softmax._sample(torch.tensor([0, 5, 6])).numpy()] += 1
    assert counts[[0, 5, 6]].tolist() == [4000] * 3
    others = np.delete(counts, [0, 5, 6])
    assert others == pytest.approx(np.full(17, 4000 * 4 / 17), rel=0.12)  # 4 standard deviations


def test_rows_of_nobody_are_left_out():
    vectors, product = batch(30, 6)
    product[2] = product[5] = NOBODY
    there = product >= 0
    whole, part = (SampledProductSoftmax(30, 5, 8) for _ in range(2))
    loss = whole(vectors, product)
    assert loss == part(vectors[there], product[there])
    loss.backward()
    assert vectors.grad[~there].abs().sum() == 0
    assert vectors.grad[there].abs().sum(dim=1).min() > 0


def test_a_batch_of_nobody_costs_nothing_and_moves_nothing():
    softmax = SampledProductSoftmax(30, 5, 8)
    before = softmax.weight.clone()
    vectors, product = batch(30, 3)
    loss = softmax(vectors, torch.full_like(product, NOBODY))
    loss.backward()
    softmax.update(1.0)
    assert loss.item() == 0.0
    assert vectors.grad.abs().sum() == 0
    assert softmax.weight.numpy() == pytest.approx(before.numpy(), abs=1e-6)


def test_weights_count_relative_to_each_other():
    softmax = SampledProductSoftmax(12, 5, sampled=12, margin=0.3, scale=10.0)
    vectors, product = batch(12, 4)
    weight = torch.tensor([1.0, 2.0, 0.0, 5.0], dtype=torch.float64)
    losses = reference(vectors.detach().numpy(), softmax.weight.double().numpy(), product.numpy(), 0.3, 10.0)
    expected = float((losses * weight.numpy()).sum() / 8)
    assert softmax(vectors, product, weight).item() == pytest.approx(expected)
    assert softmax(vectors, product, weight / 1000).item() == pytest.approx(expected)


def test_the_loss_does_not_depend_on_the_order_of_rows():
    vectors, product = batch(30, 6)
    order = torch.randperm(6)
    one, other = (SampledProductSoftmax(30, 5, 8) for _ in range(2))
    assert one(vectors, product).item() == pytest.approx(other(vectors[order], product[order]).item(), rel=1e-12)


def test_only_rows_that_were_drawn_move_and_they_keep_their_length():
    softmax = SampledProductSoftmax(100, 5, sampled=10)
    before = softmax.weight.clone()
    vectors, product = batch(100, 4)
    rows = softmax._sample(product)
    softmax(vectors, product).backward()
    softmax.update(0.1)
    moved = (softmax.weight != before).any(dim=1)
    assert set(moved.nonzero().flatten().tolist()) <= set(rows.tolist())
    assert bool(moved[product].all())
    assert (softmax.squares > 0).nonzero().flatten().tolist() == moved.nonzero().flatten().tolist()
    assert softmax.weight.norm(dim=1).numpy() == pytest.approx(np.ones(100), abs=1e-6)


def test_an_update_is_row_wise_adagrad_on_the_sphere():
    softmax = SampledProductSoftmax(6, 5, sampled=6, margin=0.2, scale=5.0, rate=0.3)
    vectors, product = batch(6, 4)
    row, squares = softmax.weight.double().numpy().copy(), np.zeros(6)
    for share in (1.0, 0.5):
        leaf = torch.from_numpy(row).requires_grad_()
        cosface(vectors.detach(), leaf, product, 0.2, 5.0).mean().backward()
        gradient = leaf.grad.numpy()
        for c in range(6):
            squares[c] += sum(g * g for g in gradient[c])
            moved = row[c] - share * 0.3 * gradient[c] / math.sqrt(squares[c])
            row[c] = moved / math.sqrt(sum(x * x for x in moved))
        softmax(vectors, product).backward()
        softmax.update(share)
    assert softmax.weight.numpy() == pytest.approx(row, abs=1e-5)


def test_accumulated_gradients_are_those_of_the_batches_together():
    vectors, product = batch(6, 8)
    whole, parts = (SampledProductSoftmax(6, 5, sampled=6, scale=5.0) for _ in range(2))
    whole(vectors, product).backward()
    for half in (slice(0, 4), slice(4, 8)):
        (parts(vectors[half], product[half]) / 2).backward()
    whole.update(1.0)
    parts.update(1.0)
    assert parts.weight.numpy() == pytest.approx(whole.weight.numpy(), abs=1e-5)


def test_training_brings_vectors_of_a_product_together():
    torch.manual_seed(0)
    softmax = SampledProductSoftmax(200, 8, sampled=32)
    vectors = torch.nn.Parameter(torch.randn(200, 2, 8))  # two per product
    optimiser = torch.optim.Adam([vectors], lr=0.02)

    def nearest_is_the_sibling():
        x = torch.nn.functional.normalize(vectors.detach(), dim=2)
        cosines = x[:, 0] @ x[:, 1].T
        return float((cosines.argmax(dim=1) == torch.arange(200)).float().mean())

    assert nearest_is_the_sibling() < 0.1
    for step in range(300):
        product = torch.randint(0, 200, (24,), generator=torch.Generator().manual_seed(step)).repeat(2)
        rows = vectors[product, torch.arange(48) // 24]
        optimiser.zero_grad()
        softmax(torch.nn.functional.normalize(rows, dim=1), product).backward()
        optimiser.step()
        softmax.update(1 - step / 300)
    assert nearest_is_the_sibling() > 0.9


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    def steps(softmax, numbers):
        losses = []
        for number in numbers:
            vectors, product = batch(60, 6, seed=number)
            loss = softmax(vectors, product)
            loss.backward()
            softmax.update(0.5)
            losses.append(loss.item())
        return losses

    straight = SampledProductSoftmax(60, 5, sampled=10)
    expected = steps(straight, range(6))
    first, second = (SampledProductSoftmax(60, 5, sampled=10) for _ in range(2))
    found = steps(first, range(3))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert found + steps(second, range(3, 6)) == expected
    assert torch.equal(second.weight, straight.weight)


def test_evaluation_changes_nothing():
    softmax = SampledProductSoftmax(60, 5, sampled=10)
    vectors, product = batch(60, 6)
    before = copy.deepcopy(softmax.state_dict())
    with torch.no_grad():
        softmax(vectors, product)
    softmax.eval()(vectors, product).backward()
    softmax.update(1.0)
    after = softmax.state_dict()
    assert after["_extra_state"]["step"] == before["_extra_state"]["step"] == 0
    assert torch.equal(after["_extra_state"]["weight"], before["_extra_state"]["weight"])


def test_ddp_and_optimisers_see_no_class_matrix():
    softmax = SampledProductSoftmax(60, 5, sampled=10)
    assert list(softmax.parameters()) == []
    assert list(softmax.buffers()) == []


def test_classes_follow_to_a_device_and_keep_their_precision():
    outer = torch.nn.Sequential(SampledProductSoftmax(6, 5, sampled=4))
    assert outer.half()[0].weight.dtype == torch.float32
    moved = outer.to("meta")[0]
    assert moved.weight.device.type == moved.squares.device.type == "meta"


def test_a_state_of_other_products_is_refused():
    state = SampledProductSoftmax(6, 5, sampled=4).state_dict()
    with pytest.raises(UserError, match=r"the checkpoint classifies 6 x 5 .* this run 7 x 5"):
        SampledProductSoftmax(7, 5, sampled=4).load_state_dict(state)


def test_a_product_that_is_no_class_is_refused():
    vectors, _ = batch(6, 2)
    with pytest.raises(IndexError, match="product 6 of 6 classes"):
        SampledProductSoftmax(6, 5, sampled=4)(vectors, torch.tensor([1, 6]))


@pytest.mark.parametrize(("classes", "sampled", "named"), [(1, 4, "classification"), (9, 1, "classes_sampled")])
def test_nothing_to_choose_from_is_refused(classes, sampled, named):
    with pytest.raises(UserError, match=named):
        SampledProductSoftmax(classes, 5, sampled)
