import pickle
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from cope.data.files import NOT_UTF8, Folder, PictureFiles
from cope.data.indexing import DUPLICATES, NO_IMAGES, NO_PRODUCT, SECOND_PRODUCT, SECOND_TEXT
from cope.data.opening import open_source
from cope.data.rope import CATEGORIES, FEW_COLUMNS, FILES, IMAGES, NO_NUMBER, PAIRS, TEXTS
from cope.domains import DOMAINS
from cope.errors import UserError
from tests.unit.cope.data.data_sets import picture, rope_files, write_rope


def all_items(folder):
    """Every item of every side of the split, by id."""
    found = {}
    for split in ("train", "val", "test"):
        source = open_source(str(folder), split)
        for number in range(len(source)):
            for domain in DOMAINS:
                found.update({item.id: (source.product_id(number), item) for item in source.items(number, domain)})
    return found


def test_all_products_are_on_one_side_with_all_their_items(rope):
    sides = {split: open_source(str(rope), split) for split in ("train", "val", "test")}
    names = {split: {side.product_id(i) for i in range(len(side))} for split, side in sides.items()}
    assert set.union(*names.values()) == {f"p{i}" for i in range(40)}
    assert sum(map(len, names.values())) == 40
    assert len(names["train"]) > len(names["val"]) > 0
    assert sum(side.sizes["live"] for side in sides.values()) == 80
    found = all_items(rope)
    assert len(found) == 240
    assert {ident: product for ident, (product, _) in found.items()} == {
        f"{domain}{item}": f"p{item // 2}" for domain in DOMAINS for item in range(80)
    }
    assert not sides["train"].counts


def test_frames_are_in_time_order_whatever_the_order_of_the_rows(rope):
    _, clip = all_items(rope)["live3"]
    assert clip.images == ("images/1.jpg?9", "images/1.jpg?10", "images/1.jpg?100")


def test_texts_keep_their_commas_and_quotes(tmp_path):
    files = rope_files()
    files[TEXTS["page"]][5] = 'page5,"Mug, red", 2 x 0,5 l, "the ""best"""'
    write_rope(tmp_path, files)
    assert all_items(tmp_path)["page5"][1].text == '"Mug, red", 2 x 0,5 l, "the ""best"""'


def test_byte_order_marks_line_ends_and_blank_lines_are_no_content(tmp_path):
    write_rope(tmp_path, rope_files())
    for name in FILES:
        data = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n \r\n")
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    found = all_items(tmp_path)
    assert len(found) == 240
    assert found["page0"][0] == "p0"
    assert not open_source(str(tmp_path)).counts


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    write_rope(tmp_path, rope_files())
    titles = tmp_path / TEXTS["page"]
    titles.write_bytes(titles.read_bytes().replace(b"page7,velvet", b"page7,vel\xffvet"))
    assert all_items(tmp_path)["page7"][1].text.startswith("vel\ufffdvet")
    assert open_source(str(tmp_path)).counts.as_dict() == {NOT_UTF8: 1}


def test_what_is_wrong_is_counted_by_kind_and_skipped(tmp_path):
    files = rope_files()
    files[PAIRS["page"]] += ["p3", "p3,", ",page6", "p0,page0", "p9,page0", "p1,page_without_picture"]
    files[TEXTS["video"]] += ["video0", "video0,another text", "video_of_nothing,hello", files[TEXTS["video"]][2]]
    files[IMAGES["live"]] += [
        "live0,soon,images/1.jpg",
        "live0,nan,images/1.jpg",
        "live0,1e300,x.jpg",
        "live0,images/1.jpg",
    ]
    files[IMAGES["page"]] += ["page_of_nobody,images/1.jpg"]
    write_rope(tmp_path, files)
    source = open_source(str(tmp_path))
    assert source.counts.as_dict() == {
        FEW_COLUMNS: 5,
        NO_NUMBER: 3,
        DUPLICATES: 2,
        NO_PRODUCT: 2,
        NO_IMAGES: 1,
        SECOND_PRODUCT: 1,
        SECOND_TEXT: 1,
    }
    assert "5 rows with too few columns" in str(source.counts)
    found = all_items(tmp_path)
    assert len(found) == 240
    assert found["page0"][0] == "p0"


def test_an_item_without_a_text_is_silent(tmp_path):
    files = rope_files()
    files[TEXTS["live"]] = ["live0,", *files[TEXTS["live"]][2:]]
    write_rope(tmp_path, files)
    found = all_items(tmp_path)
    assert found["live0"][1].text == found["live1"][1].text == ""
    assert not open_source(str(tmp_path)).counts


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_of_the_nine_is_named(rope, name):
    (rope / name).unlink()
    with pytest.raises(UserError, match=f"ROPE without {name}; copy it") as caught:
        open_source(str(rope))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "words"), [("page", "product page"), ("video", "short video"), ("live", "live clip")]
)
def test_an_empty_domain_is_named(tmp_path, domain, words):
    files = rope_files()
    files[PAIRS[domain]] = []
    write_rope(tmp_path, files)
    with pytest.raises(UserError, match=f"empty domain: no {words} has"):
        open_source(str(tmp_path))
    assert not list((tmp_path / ".cope-live").glob("*.sqlite"))


def test_ids_that_match_nowhere_leave_no_usable_product(tmp_path):
    files = rope_files()
    for domain in DOMAINS:
        files[PAIRS[domain]] = [f"{row}-other" for row in files[PAIRS[domain]]]
    write_rope(tmp_path, files)
    with pytest.raises(UserError, match="without a usable product"):
        open_source(str(tmp_path))


def test_a_side_without_products_is_named(tmp_path):
    write_rope(tmp_path, rope_files(products=2))
    with pytest.raises(UserError, match=r"no products on the (val|test) side"):
        [open_source(str(tmp_path), split) for split in ("val", "test")]


@pytest.mark.parametrize("files", [[], ["notes.txt"], ["a.txt", "b.csv", "c", "d", "e", "f", "g"]])
def test_a_folder_of_something_else_is_named_with_what_it_holds(tmp_path, files):
    folder = tmp_path / "other"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("hello")
    with pytest.raises(UserError, match="neither ROPE's nine files") as caught:
        open_source(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["{}/nowhere", "memory://nowhere-at-all", "nosuchprotocol://x/y"])
def test_a_folder_that_is_not_there_is_named(tmp_path, url):
    with pytest.raises(UserError, match=r"name a folder or an fsspec URL|neither ROPE"):
        open_source(url.format(tmp_path))


def test_categories_may_stand_beside_the_nine(rope):
    (rope / CATEGORIES).write_text("p1,Shoes, boots\np2\n")
    source = open_source(str(rope))
    categories = {source.product_id(i): source.category(i) for i in range(len(source))}
    assert categories["p1"] == "Shoes, boots"
    assert set(categories.values()) == {"", "Shoes, boots"}


@pytest.mark.parametrize("protocol", ["memory", "file", "zip", "zip in memory", "http"])
def test_urls_read_like_folders(rope, tmp_path, cache, protocol, request):
    url = f"file://{rope}"
    if protocol == "memory":
        url = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").put(f"{rope}/", f"/{tmp_path.name}", recursive=True)
    elif protocol.startswith("zip"):
        packed = shutil.make_archive(str(tmp_path / "rope"), "zip", tmp_path, "rope")
        url = f"zip://rope::{packed}"
        if "memory" in protocol:
            fsspec.filesystem("memory").put(packed, f"/{tmp_path.name}.zip")
            url = f"zip://rope/::memory://{tmp_path.name}.zip"
    elif protocol == "http":
        url = request.getfixturevalue("web") + "/rope/"
    plain, source = open_source(str(rope)), open_source(url)
    assert source.fingerprint == plain.fingerprint
    assert [source.product_id(i) for i in range(len(source))] == [plain.product_id(i) for i in range(len(plain))]
    item = source.items(3, "live")[0]
    assert item == plain.items(3, "live")[0]
    assert [image.shape for image in source.pictures(item)] == [(48, 64, 3)] * 3
    assert bool(list(cache.glob("*.sqlite"))) == (protocol != "file")
    assert (source.concurrency > 1) == (protocol == "http")
    again = pickle.loads(pickle.dumps(source))
    assert [image.shape for image in again.pictures(item)] == [(48, 64, 3)] * 3


@pytest.fixture
def web(tmp_path):
    """A server that lists the folder, as most do."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_archive_that_is_none_is_one_line(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"cannot be read \(File is not a zip file\); name a folder"):
        open_source(f"zip://::{tmp_path}/bad.zip")


def test_pictures_on_the_web_come_from_the_mirror_beside_the_data(tmp_path):
    files = rope_files()
    files[IMAGES["page"]] = [row.replace("images/", "https://img.example/a,b/") for row in files[IMAGES["page"]]]
    write_rope(tmp_path, files)
    mirror = tmp_path / "images" / "img.example" / "a,b"
    mirror.mkdir(parents=True)
    (mirror / "0.jpg").write_bytes(picture(0))
    source = open_source(str(tmp_path))
    problems = {}
    for number in range(len(source)):
        [read] = source.read(source.items(number, "page")[0])
        problems[source.product_id(number)] = read.problem
    assert problems.pop("p0", "") == ""
    assert set(problems.values()) == {"missing pictures"}
    assert source.concurrency == 1


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://img.example/a%20b/x.jpg", "img.example/a b/x.jpg"),
        ("http://img.example/a%20b/x.jpg", "img.example/a%20b/x.jpg"),
        ("http://user@IMG.example/%E4%B8%AD%E6%96%87.jpg", "img.example/中文.jpg"),
        ("http://img.example/中文.jpg", "img.example/中文.jpg"),
        ("http://img.example/gbk%D6%D0.jpg", "img.example/gbk\udcd6\udcd0.jpg"),
        ("http://img.example/x.jpg?a=1", "img.example/x.jpg?a=1"),
        ("http://img.example/x.jpg?a=%20b/c#there", "img.example/x.jpg?a= b%2Fc"),
        ("http://img.example/s%2Ft.jpg", "img.example/s%2Ft.jpg"),
    ],
)
def test_the_mirror_is_read_as_wget_writes_it(tmp_path, address, name):
    place = tmp_path / "images" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"picture")
    files = PictureFiles(Folder(str(tmp_path)))
    assert files.read(address) == b"picture"
    assert files.read(address.replace("example", "example.org")) is None
    assert not files.is_far(address)


@pytest.mark.parametrize("path", ["../../secret", "%2e%2e/%2E%2E/secret", "..%2f..%2fsecret", "x?/../../../secret"])
def test_no_address_leads_out_of_the_mirror(tmp_path, path):
    (tmp_path / "images" / "img.example" / "x?").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    assert PictureFiles(Folder(str(tmp_path))).read(f"http://img.example/{path}") is None


def test_an_address_that_is_none_is_a_missing_picture(tmp_path):
    (tmp_path / "images").mkdir()
    files = PictureFiles(Folder(str(tmp_path)))
    assert files.read("http://[") is None
    assert not files.is_far("http://[")
