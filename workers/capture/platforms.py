"""Web pages of streaming platforms: the stream that a page shows, found by streamlink where it is installed."""

import re
from typing import Any

from workers.capture.media import BadSource, SourceDown


def stream_of_page(url: str, height: int, proxy: str | None = None, session: Any = None) -> str | None:
    """Returns the address of the stream that a web page shows; None if the page is of no known platform.

    Of several sizes it takes the smallest that is high enough, else the best.

    Args:
        url: Address of the page.
        height: Wanted height in pixels.
        proxy: The proxy that checks addresses, through which the page is fetched.
        session: A session of streamlink; a new one by default.

    Raises:
        BadSource: streamlink is not installed, or the stream has no address of its own.
        SourceDown: The page shows no stream now.
    """
    try:
        from streamlink import NoPluginError, Streamlink, StreamlinkError
    except ImportError:
        raise BadSource(
            f"{url}: answers, but not with a video: check the address; if it is a page of a platform, install "
            "`cope-live[platforms]`, which finds the stream in it, or name the stream itself"
        ) from None
    session = session or Streamlink()
    if proxy:
        session.set_option("http-proxy", proxy)
    try:
        streams = session.streams(url)
    except NoPluginError:
        return None
    except StreamlinkError as error:
        raise SourceDown(f"{url}: streamlink finds no stream in it ({error})") from error
    if not streams:
        raise SourceDown(f"{url}: shows no stream now: check that it is live")
    sizes = {int(found[1]): name for name in streams if (found := re.match(r"(\d+)p", name))}
    enough = [size for size in sizes if size >= height]
    chosen = streams[sizes[min(enough)] if enough else "best"]
    try:
        return str(chosen.to_url())
    except TypeError as error:
        raise BadSource(f"{url}: its stream has no address that can be opened: name the stream itself") from error
