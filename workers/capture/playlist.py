"""What FFmpeg does not report of HLS playlists: how long segments are, and why a playlist cannot be opened."""

import re
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

from topology.addresses import Allowed
from topology.errors import BadInput
from workers.capture.address import local_path, scheme_of
from workers.capture.media import BadSource, SourceDown

_MOST_BYTES = 1 << 20  # playlists of day-long recordings stay below it
_KEY_BYTES = 16  # AES-128
_HEAD_BYTES = 10


def is_playlist(path: Path) -> bool:
    """Says whether a file is an HLS playlist."""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").startswith(b"#EXTM3U")


def check_named_files(playlist: Path, allowed: Allowed) -> None:
    """Checks the files that a playlist on disk names, and those that they name in turn.

    Raises:
        BadInput: One of them may not be read, or lies elsewhere.
    """
    seen: set[Path] = set()
    waiting = [playlist]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file() or not is_playlist(path):
            continue
        seen.add(path)
        for line, address in re.findall(r'^\s*([^#\s].*)$|\bURI="([^"]*)"', _text(str(path), 0.0, None), re.MULTILINE):
            named = re.sub(r"^file:(//)?", "", (line or address).strip(), flags=re.IGNORECASE)
            protocol = re.match(r"[a-z][a-z0-9+.-]*[:,]", named, re.IGNORECASE)
            if protocol is None:
                waiting.append(path.parent / named)
                allowed.check_file(waiting[-1])
            elif protocol[0].lower() != "data:":  # FFmpeg would ask for it past the proxy that checks addresses
                raise BadInput(
                    f"a playlist on disk that names {protocol[0][:20]}…: name that address, or the playlist's own"
                )


def target_duration_s(url: str, timeout_s: float, proxy: str | None = None) -> float:
    """Returns the longest segment of an HLS playlist, or of the first that it names; 0 if it cannot be read."""
    _, text = _media_playlist(url, timeout_s, proxy)
    found = re.search(r"^#EXT-X-TARGETDURATION:\s*(\d+)", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def check_playlist(url: str, timeout_s: float, proxy: str | None = None) -> None:
    """Finds out why a playlist cannot be opened; returns if it is not a playlist, or the reason is not known.

    Raises:
        BadSource: It lists channels, or is protected in a way that FFmpeg does not know.
        SourceDown: Its key cannot be fetched, or is wrong.
    """
    playlist, text = _media_playlist(url, timeout_s, proxy)
    if text.startswith("#EXTM3U") and "#EXTINF" in text and "#EXT-X-TARGETDURATION" not in text:
        raise BadSource(f"{url}: a list of channels or recordings, not a stream: name one that it lists")
    keys = re.findall(r"^#EXT-X-KEY:(.*)$", text, re.MULTILINE)
    attributes = dict(re.findall(r'([A-Z-]+)=("[^"]*"|[^,]*)', keys[0])) if keys else {}
    method, address = attributes.get("METHOD", "NONE"), attributes.get("URI", "").strip('"')
    if method == "NONE":
        return
    if method not in ("AES-128", "SAMPLE-AES") or attributes.get("KEYFORMAT", '"identity"') != '"identity"':
        raise BadSource(f"{url}: protected ({method[:40]}), which is not decrypted here: name a stream that is not")
    try:
        address = _joined(playlist, address)
        size = len(_get(address, timeout_s, proxy))
        wrong = "is not that of its segments" if size == _KEY_BYTES else f"has {size} bytes instead of {_KEY_BYTES}"
    except OSError as error:
        wrong = f"cannot be had ({getattr(error, 'reason', error)})"
    except ValueError:
        wrong = "is at no address that can be opened"
    raise SourceDown(f"{url}: encrypted, and its key {address[:200]} {wrong}: check what the server gives as the key")


def is_dash(url: str, timeout_s: float, proxy: str | None) -> bool:
    """Whether it is a manifest of MPEG-DASH."""
    return re.search(r"<(\w+:)?MPD\b", _text(url, timeout_s, proxy)[:10_000]) is not None


def _media_playlist(url: str, timeout_s: float, proxy: str | None) -> tuple[str, str]:
    """Returns an HLS playlist, or of several variants the first, with its address; empty if it cannot be read."""
    text = _text(url, timeout_s, proxy)
    if "#EXT-X-STREAM-INF" in text:
        named = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        try:
            url = _joined(url, named[0])
            text = _text(url, timeout_s, proxy)
        except (ValueError, IndexError):
            text = ""
    return url, text


def _joined(playlist: str, named: str) -> str:
    """Returns the address of what a playlist names. What comes from a web server leads to no file of ours."""
    address = urljoin(playlist, named)
    if scheme_of(playlist) and scheme_of(address) not in ("http", "https"):
        raise ValueError(f"{address}: a playlist on a web server names no other place")
    return address


def _text(url: str, timeout_s: float, proxy: str | None) -> str:
    try:
        return _get(url, timeout_s, proxy).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _get(url: str, timeout_s: float, proxy: str | None) -> bytes:
    if not scheme_of(url):
        with local_path(url).open("rb") as file:
            return file.read(_MOST_BYTES)
    if scheme_of(url) not in ("http", "https"):
        raise ValueError(f"{url}: at no web address")
    request = urllib.request.Request(url, headers={"User-Agent": "Lavf"})  # noqa: S310 - FFmpeg has opened it
    handlers = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
        return bytes(answer.read(_MOST_BYTES))
