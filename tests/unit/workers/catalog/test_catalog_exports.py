import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from topology.errors import UserError
from topology.records import ProductPage
from workers.catalog.files import read_all, read_catalog

RSS = """<?xml version="1.0" encoding="{encoding}"?>
<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title><link>https://s</link>
<item><title>plain</title><link>https://s/1</link><description>d</description>
<g:id>A-1</g:id><g:title>Rote Tasche &amp;amp; Gürtel</g:title>
<g:description><![CDATA[<p>Soft &nbsp; <b>le</b>ather</p>]]></g:description>
<g:image_link>https://s/1.jpg</g:image_link><g:additional_image_link>https://s/1b.jpg</g:additional_image_link>
<g:additional_image_link>https://s/1,c.jpg</g:additional_image_link>
<g:price>59.00 EUR</g:price><g:brand>Acme</g:brand><g:product_type>Bags &gt; Leather</g:product_type>
<g:color>red</g:color><g:shipping><g:country>DE</g:country><g:price>4 EUR</g:price></g:shipping></item>
<item><g:id>A-2</g:id><g:title>Box</g:title><g:image_link>https://s/2.jpg</g:image_link></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>
<entry><g:id>A-1</g:id><title>Bag</title><summary>Soft</summary><link href="https://s/1"/>
<g:image_link>https://s/1.jpg</g:image_link></entry></feed>"""

TSV = (
    "id\ttitle\tdescription\timage link\tadditional image link\tprice\tcolor\n"
    'A-1\tBag\t5" wide, "soft"\thttps://s/1.jpg\thttps://s/2.jpg,https://s/3.jpg\t9 EUR\tred\n'
    'A-2\t"5" box\tx\thttps://s/4.jpg\t\t\t\n'
)

SHOPIFY = """Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,\
Variant SKU,Variant Price,Image Src,Image Position,Variant Image,Status
red-bag,Red bag,"<p>Soft,
warm</p>",Acme,Bags,Handbags,"a, b",true,Size,S,1,59.00,https://s/1.jpg,1,,active
red-bag,,,,,,,,,M,2,59.00,https://s/2.jpg,2,https://s/m.jpg,
red-bag,,,,,,,,,,,,https://s/3.jpg,3,,
cup,Cup,,Acme,,,,true,Title,Default Title,3,5,https://s/c.jpg,1,,active
old,Old cup,,Acme,,,,true,Title,Default Title,3,5,https://s/o.jpg,1,,archived
"""

SHOPIFY_NEW = """Title,URL handle,Description,Vendor,Product category,Type,Tags,Status,SKU,Option1 name,Option1 value,\
Price,Product image URL,Image position,Variant image URL
Red bag,red-bag,<p>Soft</p>,Acme,Bags,Handbags,,Active,1,Color,Red,59,https://s/1.jpg,1,
,red-bag,,,,,,,2,,Blue,59,https://s/2.jpg,2,
"""

WOO = """ID,Type,SKU,Name,Published,"Short description",Description,"Regular price",Categories,Tags,Images,Parent,\
"Attribute 1 name","Attribute 1 value(s)"
44,variable,hoodie,Hoodie,1,Short,"Warm\\n<b>soft</b>",,"Clothing > Hoodies",x,"https://s/1.jpg, https://s/2.jpg",,\
Color,"Blue, Red"
45,variation,hoodie-b,"Hoodie - Blue",1,,,45,,,https://s/3.jpg,hoodie,Color,Blue
46,simple,cap,Cap,1,,,16,Accessories,,https://s/4.jpg,,,
47,simple,draft,Draft,-1,,,16,,,https://s/5.jpg,,,
"""

SHOPIFY_JSON = """{"products": [{"id": 1, "title": "Bag", "handle": "bag", "body_html": "<p>Soft</p>", "vendor": "Acme",
"product_type": "Bags", "tags": ["a"], "variants": [{"price": "5.00"}], "images": [{"id": 3, "src": "https://s/1.jpg"}],
"options": [{"name": "Size", "values": ["S", "M"]}]}]}"""


def read(folder: Path, name: str, text: str, encoding: str = "utf-8") -> list[ProductPage]:
    (folder / name).write_bytes(text.encode(encoding))
    return read_catalog(folder / name)


def uris(page: ProductPage) -> list[str]:
    return [image.uri for image in page.images]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16", "ISO-8859-1", "windows-1252"])
def test_a_google_feed_in_rss(tmp_path: Path, encoding: str) -> None:
    first, second = read(tmp_path, "feed.xml", RSS.format(encoding=encoding), encoding)
    assert (first.product_id, first.title, first.description) == ("A-1", "Rote Tasche & Gürtel", "Soft leather")
    assert (first.price, first.brand, first.category) == ("59.00 EUR", "Acme", "Bags > Leather")
    assert uris(first) == ["https://s/1.jpg", "https://s/1b.jpg", "https://s/1,c.jpg"]
    assert first.attributes == {"color": "red"}
    assert second.product_id == "A-2"


def test_a_google_feed_in_atom(tmp_path: Path) -> None:
    [page] = read(tmp_path, "feed.xml", ATOM)
    assert (page.product_id, page.title, page.description, uris(page)) == ("A-1", "Bag", "Soft", ["https://s/1.jpg"])


@pytest.mark.parametrize("name", ["feed.tsv", "feed.txt"])
def test_a_google_feed_in_tsv(tmp_path: Path, name: str) -> None:
    first, second = read(tmp_path, name, TSV)
    assert uris(first) == ["https://s/1.jpg", "https://s/2.jpg", "https://s/3.jpg"]
    assert first.description == '5" wide, "soft"'
    assert (first.attributes, second.title) == ({"color": "red"}, '"5" box')


def test_shopifys_products_have_several_rows(tmp_path: Path) -> None:
    bag, cup = read(tmp_path, "products_export.csv", SHOPIFY)
    assert (bag.product_id, bag.title, bag.description, bag.price) == ("red-bag", "Red bag", "Soft, warm", "59.00")
    assert uris(bag) == ["https://s/1.jpg", "https://s/2.jpg", "https://s/m.jpg", "https://s/3.jpg"]
    assert bag.attributes == {"tags": "a, b", "Size": "S, M"}
    assert cup.attributes == {}


def test_shopifys_newer_columns(tmp_path: Path) -> None:
    [bag] = read(tmp_path, "products_export.csv", SHOPIFY_NEW)
    assert (bag.product_id, bag.title, bag.description, bag.price) == ("red-bag", "Red bag", "Soft", "59")
    assert uris(bag) == ["https://s/1.jpg", "https://s/2.jpg"]
    assert bag.attributes == {"Color": "Red, Blue"}


def test_shopifys_json(tmp_path: Path) -> None:
    [bag] = read(tmp_path, "products.json", SHOPIFY_JSON)
    assert (bag.product_id, bag.title, bag.description, uris(bag)) == ("bag", "Bag", "Soft", ["https://s/1.jpg"])
    assert (bag.price, bag.attributes) == ("5.00", {"tags": "a", "Size": "S, M"})


def test_woocommerce_with_variations_and_drafts(tmp_path: Path) -> None:
    hoodie, cap = read(tmp_path, "wc-product-export.csv", WOO)
    assert (hoodie.product_id, hoodie.title, hoodie.description) == ("44", "Hoodie", "Warm soft")
    assert uris(hoodie) == ["https://s/1.jpg", "https://s/2.jpg", "https://s/3.jpg"]
    assert hoodie.attributes == {"tags": "x", "Color": "Blue, Red"}
    assert (cap.product_id, cap.category, cap.price) == ("46", "Accessories", "16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!DOCTYPE html>\n<html><body>Log in", "a web page, not a feed"),
        ("<rss><channel></channel></rss>", "without <item>"),
        ("<rss><channel><item>", "broken XML"),
        ('[{"product_id": 1, "title": {"en": "Mug"}, "images": ["a.jpg"]}]', "column 'title' holds an object"),
        ("<html><body>Log in</body></html>", "a web page, not a feed"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><rss><item><id>&b;</id></item></rss>', "document type"),
        ("<rss><channel><item><id>1</id></item></channel></rss>", "'images' is missing"),
    ],
)
def test_what_is_no_feed_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, "feed.xml", text)


def test_an_item_without_a_picture_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    text = RSS.format(encoding="UTF-8").replace("<g:image_link>https://s/2.jpg</g:image_link>", "")
    (tmp_path / "feed.xml").write_text(text)
    found = read_all(tmp_path / "feed.xml")
    assert [page.product_id for page in found.pages] == ["A-1"]
    assert "item 2" in found.problems[0] and "'A-2'" in found.problems[0]


@pytest.fixture
def shop() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"product_id,title,images\np-1,Bag,pictures/bag.png\n"
            self.send_response(200 if self.path.startswith("/feed") else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_catalogue_is_read_from_an_address(shop: str) -> None:
    [page] = read_catalog(f"{shop}/feed?token=secret")
    assert uris(page) == [f"{shop}/pictures/bag.png"]
    with pytest.raises(UserError, match="404") as caught:
        read_catalog(f"{shop.replace('//', '//ann:secret@')}/none?token=secret")
    assert "secret" not in str(caught.value)


def test_a_feed_as_templates_write_it(tmp_path: Path) -> None:
    plain = RSS.format(encoding="UTF-8")
    text = plain.replace("<channel>", "<channel>\x0b<title>A&nbsp;shop&hellip;</title>")
    assert len(read(tmp_path, "feed.xml", f"\n \n{text}")) == len(
        read(tmp_path, "plain.xml", RSS.format(encoding="UTF-8"))
    )
    with pytest.raises(UserError, match="broken XML"):
        read(tmp_path, "feed.xml", text.replace("&nbsp;", "&nonsense;"))
