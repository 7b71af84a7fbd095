"""A proxy on this machine through which FFmpeg fetches over HTTP, so that each address is checked before it is used.

FFmpeg follows redirects and opens what an HLS playlist names by itself, so checking the first address is not enough.
The proxy resolves each host once, checks the resulting address, and connects to exactly that one.
"""

import logging
import re
import selectors
import socket
import socketserver
import threading
from functools import lru_cache

from topology.addresses import Allowed
from topology.errors import BadInput, Unavailable

_log = logging.getLogger(__name__)

_CONNECT_S = 10.0
# Longer than any stall that a source survives: FFmpeg's own time-outs are shorter, and close the connection.
_SILENT_S = 120.0
_MOST_HEAD_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024


@lru_cache(maxsize=8)
def proxy_of(allowed: Allowed) -> str:
    """Returns the address of the proxy for what is allowed; it lives as long as the process."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.allowed = allowed
    threading.Thread(target=server.serve_forever, name="address-guard", daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allowed: Allowed

    def handle_error(self, _request: object, _address: object) -> None:
        """Does nothing: one side has closed its connection, as at the end of each stream."""
        _log.debug("a connection ended", exc_info=True)


class _Handler(socketserver.BaseRequestHandler):
    """One request a connection: the next may go to another host."""

    def handle(self) -> None:
        head, rest = self._head()
        match = re.match(rb"(\S+) (?:http://)?((?:\[[^\]\s/]*\]|[^\s:/?#]*)(?::(\d+))?)(\S*) (HTTP/1\.[01])\r\n", head)
        if match is None:
            return
        method, netloc, port, path, version = match.groups()
        is_tunnel = method == b"CONNECT"
        host = netloc.decode("latin-1")
        if port:
            host = host[: -len(port) - 1]
        try:
            assert isinstance(self.server, _Server)  # noqa: S101 - made above
            number = int(port or 80)
            address = self.server.allowed.addresses_of(host.strip("[]"), number)[0]
            there = socket.create_connection((address, number), timeout=_CONNECT_S)
        except BadInput as error:
            _log.warning("an address is not opened", extra={"error": str(error)})
            self._answer(b"403 Forbidden")
            return
        except (Unavailable, OSError):
            self._answer(b"502 Bad Gateway")
            return
        with there:
            if is_tunnel:
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                there.sendall(rest)
            else:
                lines = re.sub(rb"(?im)^(proxy-)?connection:.*\r\n", b"", head[match.end() :])
                there.sendall(b"%s %s %s\r\nConnection: close\r\n%s%s" % (method, path or b"/", version, lines, rest))
            _join(self.request, there)

    def _head(self) -> tuple[bytes, bytes]:
        self.request.settimeout(_CONNECT_S)
        data = b""
        try:
            while b"\r\n\r\n" not in data and len(data) < _MOST_HEAD_BYTES:
                piece = self.request.recv(_PIECE_BYTES)
                if not piece:
                    return b"", b""
                data += piece
        except OSError:
            return b"", b""
        head, blank, rest = data.partition(b"\r\n\r\n")
        return head + blank, rest

    def _answer(self, status: bytes) -> None:
        self.request.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)


def _join(here: socket.socket, there: socket.socket) -> None:
    """Carries bytes both ways until one side ends or both are silent."""
    for end in (here, there):
        end.settimeout(_SILENT_S)
    with selectors.DefaultSelector() as waiting:
        waiting.register(here, selectors.EVENT_READ, (here, there))
        waiting.register(there, selectors.EVENT_READ, (there, here))
        while ready := waiting.select(_SILENT_S):
            for key, _ in ready:
                source, sink = key.data
                piece = source.recv(_PIECE_BYTES)
                if not piece:
                    return
                sink.sendall(piece)
