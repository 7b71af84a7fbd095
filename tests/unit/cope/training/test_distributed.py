"""Two ranks come to the losses and gradients of one process that has the joined batch."""

import os

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from cope.model.views import NOBODY
from cope.runtime.distributed import average, gather, joined_mean, rank, world
from cope.training.losses import Temperature, info_nce, region_loss
from cope.training.masked_language import masked_language_loss
from cope.training.product_softmax import SampledProductSoftmax
from tests.unit.cope.training.tiny_views import batch as views
from tests.unit.cope.training.tiny_views import objective

pytestmark = pytest.mark.slow

RANKS, ROWS, REGIONS, STEPS = 2, 6, 3, 3
VIEWS = 4  # products of a rank in a step of the whole objective


class Net(nn.Module):
    """An encoder with every loss of `cope` on top; what differs between ranks is left to `gather` and `joined_mean`."""

    mask_token, vocabulary, special_tokens = 0, 9, frozenset({0})

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(7, 5).double()
        self.unused = nn.Linear(2, 2)  # as a tower is, where nothing is said
        self.token_embedding = nn.Parameter(torch.randn(9, 4, dtype=torch.float64))
        self.scale = Temperature(0.2, learned=True)
        self.products = SampledProductSoftmax(40, 5, sampled=12, scale=8.0)
        self.classes_of_gathered = SampledProductSoftmax(40, 5, sampled=12, scale=8.0)

    def token_states(self, tokens, mask):
        return self.token_embedding[tokens] * mask.unsqueeze(2)

    def forward(self, batch, seed):
        page, clip = (functional.normalize(self.encoder(batch[name]), dim=-1) for name in ("page", "clip"))
        product = gather(batch["product"])
        pages, clips, weight = gather(page), gather(clip), gather(batch["weight"])
        shown = clips[:, 0], product
        return {
            "info_nce": info_nce(pages, product, *shown, self.scale(), 0.1, weight, weight),
            "regions": region_loss(
                clips, gather(batch["frame"]), gather(batch["right"]), product, pages, product, self.scale()
            ),
            "classes": self.products(torch.cat([page, clip[:, 0]]), batch["product"].repeat(2)),
            "classes of gathered": self.classes_of_gathered(pages, product, weight),
            "words": masked_language_loss(
                self, batch["tokens"], batch["tokens"] >= 0, torch.Generator().manual_seed(seed)
            ),
        }

    def update(self):
        self.products.update(0.5)
        self.classes_of_gathered.update(0.5)


def batch(step):
    """The joined batch. The second rank has fewer rows of products and other weights than the first."""
    random = torch.Generator().manual_seed(step)
    product = torch.randint(0, 8, (RANKS * ROWS,), generator=random)
    product[ROWS + 1 : ROWS + 4] = NOBODY
    product[0] = product[-1]  # positives of each other on different ranks
    frame = torch.arange(REGIONS).repeat(RANKS * ROWS, 1)
    frame[3, 2] = -1
    right = torch.zeros(RANKS * ROWS, REGIONS, dtype=torch.bool)
    right[::2, 1] = True
    return {
        "page": torch.randn(RANKS * ROWS, 7, generator=random, dtype=torch.float64),
        "clip": torch.randn(RANKS * ROWS, REGIONS, 7, generator=random, dtype=torch.float64),
        "product": product,
        "weight": torch.rand(RANKS * ROWS, generator=random, dtype=torch.float64),
        "frame": frame,
        "right": right,
        "tokens": torch.randint(1, 9, (RANKS * ROWS, 4), generator=random),
    }


def train(net, module, own, seeds):
    """A few steps of plain descent; returns the losses of each and the final weights."""
    parameters = [p for name, p in net.named_parameters() if "unused" not in name]
    history = []
    for step in range(STEPS):
        losses = module({name: own(rows) for name, rows in batch(step).items()}, seeds[step])
        net.zero_grad()
        sum(losses.values()).backward()
        with torch.no_grad():
            for parameter in parameters:
                parameter -= 0.05 * parameter.grad
        net.update()
        history.append({name: loss.item() for name, loss in losses.items()})
    return {
        "losses": history,
        "weights": {name: x for name, x in net.named_parameters() if "unused" not in name},
        "classes": [net.products.weight, net.classes_of_gathered.weight],
    }


OBJECTIVES = {  # one of all losses, where classes are all compared with, and those of baselines and of the paper
    "all": {},
    "text": {"modalities": "text", "classification": 0.0},
    "vision": {"modalities": "vision"},
    "the paper's": {"region_contrast": 0.0, "live_text": "none"},
}


def learn(own, wrap=lambda module: module):
    """One step of the whole objective, by its name in `OBJECTIVES`: losses, gradients and classes."""
    weight = torch.linspace(0.5, 2.0, RANKS * VIEWS, dtype=torch.float64)
    results = {}
    for name, changes in OBJECTIVES.items():
        made = objective(**changes)
        module = wrap(made)
        losses = module(*(one.rows(own) for one in views(RANKS * VIEWS)), weight[own])
        sum(losses.values()).backward()
        made.after_step(0.5)
        results[name] = {
            "losses": {name: loss.item() for name, loss in losses.items()},
            "gradients": {name: p.grad for name, p in made.named_parameters() if p.grad is not None},
            "classes": None if made.products is None else made.products.weight,
        }
    return results


def run_rank(number, port, folder):
    """What rank `number` comes to, saved in `folder`. The process ends here.

    Once the result is saved nothing is left to test, and taking down gloo's threads, DDP and the interpreter in the
    right order is PyTorch's affair, so the process just stops. (CI once saw a rank that took them down abort.)
    """
    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", port, is_master=False)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=RANKS)
    own = slice(number * ROWS, (number + 1) * ROWS)
    net = Net()
    module = DistributedDataParallel(net, find_unused_parameters=True)
    result = train(net, module, lambda rows: rows[own], [0] * STEPS)
    mine = torch.arange(number * VIEWS, (number + 1) * VIEWS)
    result |= {
        "objective": learn(mine, lambda module: DistributedDataParallel(module, find_unused_parameters=True)),
        "place": (rank(), world()),
        "bools": gather(torch.tensor([number == 0, True])),
        "average": average(torch.tensor([float(number), 3.0])),
        "nothing": joined_mean(torch.zeros(()), torch.tensor(0)),
        "mean": joined_mean(torch.tensor([5.0, 1.0][number]), torch.tensor([1, 3][number])),
    }
    torch.save(result, f"{folder}/{number}.pt")
    distributed.barrier()  # no rank stops while the other still waits for its last sums
    os._exit(0)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    meeting = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    multiprocessing.spawn(run_rank, (meeting.port, str(folder)), nprocs=RANKS)
    return [torch.load(folder / f"{number}.pt") for number in range(RANKS)]


@pytest.fixture(scope="module")
def alone():
    """The same in one process. Which words are hidden is drawn by each rank, so it is drawn so here."""
    net = Net()
    halves = masked_language_of_halves(net)
    net.forward = lambda batch, seed: {**Net.forward(net, batch, seed), "words": halves(batch)}
    return train(net, net, lambda rows: rows, [0] * STEPS)


@pytest.fixture(scope="module")
def whole():
    return learn(torch.arange(RANKS * VIEWS))


def masked_language_of_halves(net):
    def loss(batch):
        total, count = 0.0, 0
        for half in batch["tokens"].split(ROWS):
            chosen = (torch.rand(2, *half.shape, generator=torch.Generator().manual_seed(0))[0] < 0.15).sum()
            mean = masked_language_loss(net, half, half >= 0, torch.Generator().manual_seed(0))
            total, count = total + mean * chosen, count + chosen
        return total / count

    return loss


@pytest.mark.parametrize("name", ["info_nce", "regions", "classes", "classes of gathered", "words"])
def test_every_rank_has_the_loss_of_the_joined_batch(ranks, alone, name):
    # Over several steps, so the gradients of the steps before were right too.
    expected = [losses[name] for losses in alone["losses"]]
    assert len(set(expected)) == STEPS
    for result in ranks:
        assert [losses[name] for losses in result["losses"]] == pytest.approx(expected, rel=1e-6)


def test_every_rank_has_the_weights_of_one_process(ranks, alone):
    for result in ranks:
        for name, expected in alone["weights"].items():
            torch.testing.assert_close(result["weights"][name], expected, rtol=1e-6, atol=1e-7)


def test_all_ranks_hold_the_classes_of_one_process(ranks, alone):
    for first, second, expected in zip(ranks[0]["classes"], ranks[1]["classes"], alone["classes"], strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_ranks_learn_from_two_halves_what_one_process_learns_from_the_whole(ranks, whole, name):
    expected = whole[name]
    for result in (one["objective"][name] for one in ranks):
        assert result["losses"] == pytest.approx(expected["losses"], rel=1e-9)
        for parameter, gradient in expected["gradients"].items():
            torch.testing.assert_close(result["gradients"][parameter], gradient, rtol=1e-6, atol=1e-9, msg=parameter)
        if expected["classes"] is not None:
            torch.testing.assert_close(result["classes"], expected["classes"])


def test_the_halves_differ_in_what_is_said(whole):
    # Else the test above would not see a loss that keeps to its own rows.
    assert whole["all"]["losses"].keys() >= {"regions page-live", "classification"}
    page, _, live = views(RANKS * VIEWS)
    assert torch.equal(page.words[-1], page.words[1])  # one name on both ranks
    assert [(live.told[own] > 0).sum() for own in (slice(VIEWS), slice(VIEWS, None))] == [VIEWS, VIEWS - 1]


def test_ranks_know_their_place_and_each_other(ranks):
    assert [result["place"] for result in ranks] == [(0, 2), (1, 2)]
    for result in ranks:
        assert result["bools"].tolist() == [True, True, False, True]
        assert result["average"].tolist() == [0.5, 3.0]
        assert result["nothing"] == 0.0
        assert result["mean"] == 6.0 / 4


def test_one_process_needs_no_group():
    rows = torch.rand(3, requires_grad=True)
    assert (rank(), world()) == (0, 1)
    assert gather(rows) is rows
    assert average(rows) is rows
    assert joined_mean(torch.tensor(6.0), torch.tensor(4)) == 1.5
    assert joined_mean(torch.tensor(0.0), torch.tensor(0)) == 0.0
