"""Web pages of platforms, resolved by streamlink: a plugin of this test's own, against a web server in this process."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.workers.capture.http_media import media_server, playlist
from tests.integration.workers.capture.media_files import write_video
from topology.addresses import Allowed
from workers.capture.guard import proxy_of
from workers.capture.media import BadSource, SourceDown
from workers.capture.platforms import stream_of_page

streamlink = pytest.importorskip("streamlink", reason="the extra `platforms` is not installed")

PLUGIN = """
import re
from streamlink.plugin import Plugin, pluginmatcher
from streamlink.stream.hls import HLSStream

@pluginmatcher(re.compile(r"http://127\\.0\\.0\\.1:\\d+/shop/(?P<name>\\w+)"))
class Shop(Plugin):
    def _get_streams(self):
        page = self.session.http.get(self.url).text
        found = re.search(r'data-stream="([^"]+)"', page)
        return HLSStream.parse_variant_playlist(self.session, found[1]) if found else None

__plugin__ = Shop
"""


@pytest.fixture
def session(tmp_path: Path) -> Any:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(PLUGIN)
    made = streamlink.Streamlink()
    made.plugins.load_path(tmp_path / "plugins")
    return made


def test_the_smallest_sufficient_stream_of_a_page_is_taken(tmp_path: Path, session: Any) -> None:
    with media_server() as server:
        for size in (180, 360, 720):
            server.files[f"{size}.m3u8"] = playlist("a.ts").encode()
        variants = [
            f"#EXT-X-STREAM-INF:BANDWIDTH={size}000,RESOLUTION={size * 16 // 9}x{size}\n{size}.m3u8\n"
            for size in (720, 180, 360)
        ]
        server.files["master.m3u8"] = ("#EXTM3U\n" + "".join(variants)).encode()
        server.files["a.ts"] = write_video(tmp_path / "a.ts", 3).read_bytes()
        server.files["shop/live"] = f'<p data-stream="{server.url("master.m3u8")}">'.encode()
        server.files["shop/closed"] = b"<p>We are closed.</p>"
        assert stream_of_page(server.url("shop/live"), 240, session=session) == server.url("360.m3u8")
        assert stream_of_page(server.url("shop/live"), 1080, session=session) == server.url("720.m3u8")
        with pytest.raises(SourceDown, match="shows no stream now"):
            stream_of_page(server.url("shop/closed"), 240, session=session)
        assert stream_of_page(server.url("other/page"), 240, session=session) is None


def test_pages_are_fetched_through_the_proxy_that_checks_addresses(session: Any) -> None:
    with media_server() as server:
        server.files["shop/live"] = b'<p data-stream="http://127.0.0.1:9/a.m3u8">'
        with pytest.raises(SourceDown, match="streamlink finds no stream in it"):
            stream_of_page(server.url("shop/live"), 240, proxy_of(Allowed()), session)


def test_without_streamlink_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "streamlink", None)
    with pytest.raises(BadSource, match=r"install `cope-live\[platforms\]`"):
        stream_of_page("http://127.0.0.1/x", 240)
