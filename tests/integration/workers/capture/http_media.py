"""A web server for media, in this process: files with and without a length, live streams, playlists that move."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Body = bytes | Callable[[], Iterator[bytes]]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing of clients that leave."""


class MediaServer:
    """Serves what `files` holds by path: bytes with their length; an iterator's pieces without one.

    Attributes:
        asked: Paths, in the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, Body] = {}
        self.asked: list[str] = []
        serving = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.lstrip("/")
                serving.asked.append(path)
                body = serving.files.get(path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if path.endswith(".html") else "application/octet-stream")
                if isinstance(body, bytes):
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for piece in body():
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    pass  # the client has heard enough
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def media_server() -> Iterator[MediaServer]:
    server = MediaServer()
    try:
        yield server
    finally:
        server.close()


def whole(data: bytes) -> Body:
    """Returns the data as a server sends it that does not know its length."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), 1 << 14):
            yield data[start : start + (1 << 14)]

    return pieces


def playlist(*segments: str, seconds: float = 3.0, first: int = 0, closed: bool = True) -> str:
    """Returns an HLS media playlist."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{seconds:.0f}", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    for segment in segments:
        lines += [f"#EXTINF:{seconds},", segment]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if closed else [])]) + "\n"
