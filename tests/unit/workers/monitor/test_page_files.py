"""The page's files: where they are served, and with what headers."""

import re
from importlib.resources import files

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from workers.monitor.page_files import VIEWS, add_page

FOLDER = files("workers.monitor") / "page"


@pytest.fixture
async def client():
    application = web.Application()
    add_page(application)
    async with TestClient(TestServer(application)) as one:
        yield one


@pytest.mark.parametrize("path", ["/", "/room/shop%2F7?t=12", "/detection/d-1", "/queue", "/catalogue", "/product/a/b"])
async def test_each_view_has_an_address(client, path):
    response = await client.get(path)
    assert response.status == 200
    assert await response.text() == (FOLDER / "index.html").read_text()


def test_the_page_knows_the_views_that_are_served():
    known = set(re.findall(r"^  \"?(\w*)\"?: [A-Z]\w+,$", (FOLDER / "app.js").read_text(), re.MULTILINE))
    assert known == {view.split("/")[1] for view in VIEWS}


async def test_whatever_a_file_names_is_served(client):
    seen, wanted = set(), {"/"}
    while wanted:
        path = wanted.pop()
        seen.add(path)
        response = await client.get(path)
        assert response.status == 200, path
        text = await response.text()
        wanted |= {found for found in re.findall(r'"(/page/[^"]+)"', text)} - seen
        folder = path.rpartition("/")[0]
        if path.endswith(".js"):
            relative = re.findall(r'from ?"\./([^"]+)"', text)
            wanted |= {f"{folder}/{name}" for name in relative} - seen
            assert not set(re.findall(r'from ?"([^"]+)"', text)) - {f"./{name}" for name in relative}
    assert {path for path in seen if path.endswith(".js")} > {"/page/app.js", "/page/vendor/hooks.js"}


async def test_nothing_but_what_is_ours_may_run(client):
    for path in ("/", "/page/app.js"):
        response = await client.get(path)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", (FOLDER / "index.html").read_text())
    for file in FOLDER.iterdir():
        if file.name.endswith(".js"):
            text = file.read_text()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text), file.name


async def test_a_file_that_has_not_changed_is_not_sent_again(client):
    first = await client.get("/page/style.css")
    assert (first.headers["Cache-Control"], first.content_type) == ("no-cache", "text/css")
    again = await client.get("/page/style.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    assert "Content-Security-Policy" in again.headers
    other = await client.get("/page/style.css", headers={"If-None-Match": '"other"'})
    assert other.status == 200


async def test_there_is_nothing_else_below_the_page(client):
    for path in ("/page/vendor/README.md", "/page/../agent.py", "/page/%2e%2e/agent.py", "/page/vendor/"):
        assert (await client.get(path)).status == 404


def test_all_words_are_there_in_both_languages():
    words = (FOLDER / "words.js").read_text()
    entries = re.findall(r'^  "?([\w ]+)"?: \["(.*)", "(.*)"\],$', words, re.MULTILINE)
    assert len(entries) > 100
    for name, english, chinese in entries:
        assert english and chinese and set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), (
            name
        )
    known = {name for name, *_ in entries}
    code = "".join(file.read_text() for file in FOLDER.iterdir() if file.name.endswith(".js"))
    assert {name for name in re.findall(r'\bt\("([\w ]+)"', code)} <= known
