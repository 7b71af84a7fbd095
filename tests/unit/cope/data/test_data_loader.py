import pickle
import threading
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from cope.data.items import Counts
from cope.data.live_text import LiveText
from cope.data.loader import WITHOUT_PICTURE, Loader, batches, item_batch
from cope.data.opening import open_source
from cope.data.rope import CATEGORIES, IMAGES, TEXTS
from cope.domains import DOMAINS
from cope.errors import UserError
from cope.model.views import NOBODY
from tests.unit.cope.data.data_sets import WORDS, rope_files, tokenize, write_rope

pytestmark = pytest.mark.slow


def take(count, *args, **kwargs):
    stream = batches(*args, tokenize, **kwargs)
    return [next(stream) for _ in range(count)]


def same(one, other):
    return all(
        torch.equal(getattr(getattr(one, domain), field.name), getattr(getattr(other, domain), field.name))
        for domain in DOMAINS
        for field in fields(one.page)
    ) and torch.equal(one.weight, other.weight)


def said(batch):
    return ["".join(map(chr, row[mask].tolist())) for row, mask in zip(batch.tokens, batch.mask, strict=True)]


@pytest.mark.parametrize("regions", [0, 4])
def test_a_batch_holds_an_item_of_each_domain_of_different_products(rope, config, regions):
    config = replace(config, model=replace(config.model, regions=regions))
    source = open_source(str(rope))
    [batch] = take(1, source, config)
    side = 128 if regions else 32
    assert batch.page.pixels.shape == (4, 1, 3, 32, 32)
    assert batch.video.pixels.shape == batch.live.pixels.shape == (4, 2, 3, side, side)
    assert batch.live.pixels.dtype == torch.uint8
    assert batch.live.content.shape == batch.live.boxes.shape == (4, 2, 4)
    assert batch.live.frame_there.all()
    assert batch.page.product.tolist() == batch.video.product.tolist() == batch.live.product.tolist()
    assert len(set(batch.page.product.tolist())) == 4
    assert batch.page.told.all()
    assert all(text.startswith("velvet ") for text in said(batch.page))
    assert torch.equal(batch.page.told, batch.page.mask.any(dim=1).float())
    assert batch.weight.tolist() == [1.0] * 4
    assert not batch.counts


def test_a_run_resumes_exactly_from_any_step(rope, config):
    source = open_source(str(rope))
    run = take(12, source, config)  # more than an epoch of 8 steps
    for start in (1, 7, 10):
        assert all(
            same(a, b) for a, b in zip(run[start:], take(12 - start, source, config, start_step=start), strict=True)
        )
    assert not same(run[0], run[1])
    assert not same(run[0], take(1, source, replace(config, seed=8))[0])


def test_loader_processes_change_nothing(rope, config):
    here = take(3, open_source(str(rope)), config, start_step=2)
    there = take(3, open_source(str(rope)), replace(config, workers=2), start_step=2)
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_loader_processes_leave_the_trainers_random_numbers_alone(rope, config):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    take(1, open_source(str(rope)), replace(config, workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_share_no_product_in_a_step(rope, config):
    source = open_source(str(rope))
    ranks = [take(4, source, config, rank=rank, world=3) for rank in range(3)]
    for step in range(4):
        products = [number for rank in ranks for number in rank[step].page.product.tolist()]
        assert len(set(products)) == len(products) == 12


def test_a_lost_picture_leaves_the_others_and_a_lost_item_is_missing(rope, config):
    for number in range(40):
        (rope / "images" / f"{number}.jpg?9").unlink()  # the first frame of each clip
        (rope / "images" / f"{number}.jpg?10").write_bytes(b"no picture")
        if number % 2:
            (rope / "images" / f"{number}.jpg").unlink()  # the page
    source = open_source(str(rope))
    config = replace(config, clip_frames=3)
    run = take(8, source, config)
    for batch in run:
        odd = [int(source.product_id(i)[1:]) % 2 == 1 for i in batch.live.product.tolist()]
        assert (batch.page.product == NOBODY).tolist() == odd
        assert (batch.page.told == 0).tolist() == odd
        assert batch.live.frame_there.tolist() == [[False, False, True]] * 4
        assert not batch.live.pixels[:, 0].any()
    missing = sum(int((batch.page.product == NOBODY).sum()) for batch in run)
    assert source.counts.as_dict() == {
        "missing pictures": 64 + missing,
        "broken pictures": 64,
        WITHOUT_PICTURE: missing,
    }


def test_a_product_without_a_domain_has_a_missing_item_there(tmp_path, config):
    files = rope_files()
    files[IMAGES["video"]] = files[IMAGES["video"]][: 6 * 10]
    source = open_source(str(write_rope(tmp_path, files)))
    [batch] = take(1, source, replace(config, batch_products=len(source)))
    there = [int(source.product_id(i)[1:]) < 10 for i in batch.page.product.tolist()]
    assert (batch.video.product != NOBODY).tolist() == there
    assert 0 < sum(there) < len(source)
    assert (batch.page.product != NOBODY).all()


def test_nothing_but_lost_pictures_stops_the_run(rope, config):
    for file in (rope / "images").iterdir():
        file.unlink()
    stream = batches(open_source(str(rope)), config, tokenize)
    with pytest.raises(UserError, match="no picture of 3 batches could be read"):
        [next(stream) for _ in range(4)]


def test_keywords_raw_text_or_nothing(tmp_path, config):
    files = rope_files()
    files[TEXTS["live"]] = [f"live{i},hello everybody look at this {WORDS[i // 2]} for you" for i in range(80)]
    source = open_source(str(write_rope(tmp_path, files)))
    texts = {how: said(take(1, source, replace(config, live_text=how))[0].live) for how in ("keywords", "raw", "none")}
    assert texts["none"] == [""] * 4
    assert all(text.startswith("hello everybody look") for text in texts["raw"])
    assert all(text.split(", ")[0] in WORDS and "everybody" not in text for text in texts["keywords"])


def test_a_share_of_clips_is_silent(rope, config):
    told = [take(10, open_source(str(rope)), replace(config, words=words)) for words in (0.0, 0.5, 1.0)]
    shares = [torch.cat([batch.live.told > 0 for batch in run]).float().mean().item() for run in told]
    assert shares[0] == 0
    assert 0.2 < shares[1] < 0.8
    assert shares[2] == 1


def test_the_vocabulary_of_a_large_source_knows_the_products_of_the_batch(rope, config, monkeypatch):
    monkeypatch.setattr("cope.data.live_text.BACKGROUND", 2)
    source = open_source(str(rope))
    text = LiveText(source, config)
    number = next(i for i in range(1, len(source)) if i != len(source) // 2)
    word = source.items(number, "page")[0].text.split()[1].rstrip(",")
    heard = f"look at this velvet{word} today"
    before = text.said(heard)
    with text.among([number, 0]):
        assert f"velvet {word}" in text.said(heard)[0]  # in the catalogue's spelling
    assert f"velvet {word}" not in before[0]
    assert text.said(heard) == before


def test_reweighting_counts_rare_categories_more(rope, config):
    rows = [f"p{i},{'common' if i % 8 else 'rare'}" for i in range(40)]
    (rope / CATEGORIES).write_text("\n".join(rows))
    source = open_source(str(rope))
    [batch] = take(1, source, replace(config, reweight=1.0, batch_products=len(source)))
    weights = dict(zip([source.category(i) for i in batch.page.product.tolist()], batch.weight.tolist(), strict=True))
    assert weights["rare"] > 3 * weights["common"]
    assert batch.weight.mean().item() == pytest.approx(1)


def test_rebalancing_draws_rare_categories_more_often_and_resumes(rope, config):
    rows = [f"p{i},{'common' if i % 8 else 'rare'}" for i in range(40)]
    (rope / CATEGORIES).write_text("\n".join(rows))
    source = open_source(str(rope))
    loader = Loader(source, replace(config, balance=1.0), tokenize)
    drawn = [source.category(i) for step in range(200) for i in loader.sampler.products(step).tolist()]
    even = [source.category(i) for i in range(len(source))]
    assert drawn.count("rare") / len(drawn) > 2 * even.count("rare") / len(even)
    run = take(3, source, replace(config, balance=1.0))
    assert same(run[2], take(1, source, replace(config, balance=1.0), start_step=2)[0])


def test_an_evaluation_sees_the_middle_of_everything(rope, config):
    source = open_source(str(rope))
    items = [source.items(0, "live")[0], None, source.items(2, "live")[1]]
    made = [
        item_batch(source, config, "live", items, [("a", 1.0), ("b", 1.0), ("", 0.0)], tokenize, Counts())
        for _ in range(2)
    ]
    assert torch.equal(made[0].pixels, made[1].pixels)
    assert made[0].product.tolist() == [0, NOBODY, 2]
    assert made[0].told.tolist() == [1, 0, 0]


def test_too_little_shared_memory_is_said_before_it_is_a_bus_error(rope, config, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="lower workers or batch_products"):
        batches(open_source(str(rope)), replace(config, workers=2), tokenize)


def test_slow_pictures_are_read_side_by_side(rope, config, monkeypatch):
    source = open_source(str(rope))
    alone = take(2, source, config)
    source.concurrency = 4
    assert all(same(a, b) for a, b in zip(alone, take(2, source, config), strict=True))


@pytest.fixture
def web(rope):
    """A server of the ROPE folder's pictures; knows nothing of products 0 to 9."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            found = int(name.partition(".")[0]) >= 10
            body = (rope / "images" / name.partition("?")[0]).read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_on_the_web_are_read_side_by_side(rope, web, config, tmp_path, workers):
    files = {name: [row.replace("images/", f"{web}/") for row in rows] for name, rows in rope_files().items()}
    (tmp_path / "web").mkdir()
    for name, rows in files.items():
        (tmp_path / "web" / name).write_text("".join(f"{row}\n" for row in rows))
    source = open_source(str(tmp_path / "web"))
    assert source.concurrency > 1
    config = replace(config, workers=workers, batch_products=len(source))
    [batch] = take(1, source, config)
    there = [int(source.product_id(i)[1:]) >= 10 for i in range(len(source))]
    assert sorted(batch.live.product[batch.live.product != NOBODY].tolist()) == np.flatnonzero(there).tolist()
    lost = len(source) - sum(there)
    assert source.counts.as_dict() == {"missing pictures": 5 * lost, WITHOUT_PICTURE: 3 * lost}


def test_a_batch_moves_between_devices(rope, config):
    [batch] = take(1, open_source(str(rope)), config)
    moved = batch.to(torch.device("meta"))
    assert {moved.live.pixels.device.type, moved.weight.device.type, moved.page.tokens.device.type} == {"meta"}
    assert len(moved) == len(batch.page) == 4


def test_a_page_whose_picture_is_lost_shows_another(rope, config):
    files = rope_files()
    files[IMAGES["page"]] = [f"{row.partition(',')[0]},images/gone.jpg" for row in files[IMAGES["page"]]] + files[
        IMAGES["page"]
    ]
    source = open_source(str(write_rope(rope, files)))
    [batch] = take(1, source, replace(config, batch_products=16))
    assert (batch.page.product != NOBODY).all()
    assert set(source.counts.as_dict()) == {"missing pictures"}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_index_that_is_removed_during_the_run_is_one_line(rope, config, workers):
    source = open_source(str(rope))
    next(rope.glob(".cope-live/*.sqlite")).unlink()
    source = pickle.loads(pickle.dumps(source))  # as a process that opens it anew
    with pytest.raises(UserError, match=r"sqlite was removed; start the same command again to build it anew$"):
        take(1, source, replace(config, workers=workers))


def test_a_long_tail_of_no_categories_is_refused(rope, config):
    with pytest.raises(UserError, match="all products are of one category, or of none"):
        take(1, open_source(str(rope)), replace(config, reweight=0.5))


def test_a_batch_of_one_product_is_refused_where_nothing_else_is_learned(rope, config):
    source = open_source(str(rope))
    with pytest.raises(UserError, match="a batch of one product has nothing to tell it from"):
        take(1, source, replace(config, batch_products=1, classification=0.0))
    assert len(take(1, source, replace(config, batch_products=1, classification=1.0))[0]) == 1
