import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.workers.capture.media_files import write_video
from tests.integration.workers.capture.played import SETTINGS
from topology.errors import CopeError
from workers.capture.media import BadSource
from workers.capture.source import open_source, probe

# The server's name is allowed; its address, to which redirects and playlists lead, is not.
NAMED = SETTINGS.model_copy(update={"allowed_networks": "localhost", "open_timeout_s": 5.0})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    write_video(tmp_path / "a.mp4", 2, sound=False)
    write_video(tmp_path / "a.ts", 2, sound=False)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            port = self.server.server_address[1]  # type: ignore[index]
            asked.append(self.headers["Host"])
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{port}/a.mp4")
                self.end_headers()
            elif self.path.endswith(".m3u8"):
                segment = f"http://127.0.0.1:{port}/a.ts" if self.path == "/bad.m3u8" else "a.ts"
                text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{segment}\n#EXT-X-ENDLIST\n"
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.apple.mpegurl")
                self.end_headers()
                self.wfile.write(text.encode())
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()
        thread.join()
    assert not any(host.startswith("127.") for host in asked)


@pytest.mark.parametrize("name", ["a.mp4", "good.m3u8"])
def test_what_is_allowed_is_played_through_the_guard(server: str, name: str) -> None:
    assert probe(f"{server}/{name}", NAMED).width


@pytest.mark.parametrize("name", ["elsewhere", "bad.m3u8"])
def test_redirects_and_playlists_lead_no_further_than_what_is_allowed(server: str, name: str) -> None:
    with pytest.raises(CopeError):
        probe(f"{server}/{name}", NAMED)


@pytest.mark.parametrize("name", ["elsewhere", "bad.m3u8"])
@pytest.mark.parametrize(
    ("variable", "value"), [("no_proxy", "localhost,127.0.0.1"), ("https_proxy", "http://h:1"), ("http_proxy", "h:1")]
)
def test_no_variable_that_ffmpeg_reads_another_way_leads_past_the_check(
    server: str, name: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CopeError):
        probe(f"{server}/{name}", NAMED)


def test_a_private_address_and_a_local_file_are_refused(tmp_path: Path) -> None:
    closed = SETTINGS.model_copy(update={"allowed_networks": "", "allowed_folders": ""})
    write_video(tmp_path / "a.mp4", 1, sound=False)
    for url in ("http://127.0.0.1:9/a.mp4", "rtmp://10.0.0.1/a", "srt://[::ffff:127.0.0.1]:9", "udp://@:9000"):
        with pytest.raises(BadSource, match="COPE_ALLOWED_NETWORKS"):
            open_source(url, closed)
    with pytest.raises(BadSource, match="COPE_ALLOWED_FOLDERS") as caught:
        open_source(str(tmp_path / "a.mp4"), closed)
    assert str(caught.value).count("a.mp4") == 1


def test_a_playlist_on_disk_leads_only_where_one_may_go(tmp_path: Path, server: str) -> None:
    shop, others = tmp_path / "shop", tmp_path / "others"
    shop.mkdir()
    others.mkdir()
    write_video(others / "a.ts", 2, sound=False)
    (shop / "a.ts").symlink_to(others / "a.ts")
    (shop / "b.ts").write_bytes((others / "a.ts").read_bytes())
    allowed = NAMED.model_copy(update={"allowed_folders": str(shop)})
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
    refused = [
        f"{head}#EXTINF:2,\n{others}/a.ts\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:2,\nfile://{others}/a.ts\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:2,\n  ../others/a.ts\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n",
        f'{head}#EXT-X-KEY:METHOD=AES-128,URI="{others}/a.ts"\n#EXTINF:2,\nb.ts\n#EXT-X-ENDLIST\n',
        f"{head}#EXTINF:2,\nfile:{others}/a.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0.m3u8\n",
        f"{head}#EXTINF:2,\nsubfile,,start,0,end,0,,:{others}/a.ts\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:2,\ncrypto:{others}/a.ts\n#EXT-X-ENDLIST\n",
        f"{head}#EXTINF:2,\n{server}/a.ts\n#EXT-X-ENDLIST\n",
    ]
    for number, text in enumerate(refused):
        (shop / f"{number}.m3u8").write_text(text)
        with pytest.raises(BadSource, match=r"COPE_ALLOWED_FOLDERS|name that address, or"):
            open_source(str(shop / f"{number}.m3u8"), allowed)
    (shop / "good.m3u").write_text(f"{head}#EXTINF:2,\nb.ts\n#EXT-X-ENDLIST\n")
    assert probe(str(shop / "good.m3u"), allowed).width
