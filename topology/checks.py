"""What must be true of a record that others write, beyond the types of its fields."""

import re

from topology.errors import BadInput
from topology.language import LANGUAGES, primary_tag
from topology.records import ProductPage, Record, StreamAnnounced

NETWORK_SCHEMES = ("rtmp", "rtmps", "rtsp", "rtsps", "srt", "http", "https", "udp", "rtp")

# Frames and windows repeat both. Windows also hold the regions of their frames, and have 1 MB in all.
MOST_BAG_BYTES = 262_144
LONGEST_URL = 8_192

# Control characters would break lines and move the cursor of a terminal that shows the name.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_SHOWN = 60  # characters of a value in an error message


def check(record: Record) -> None:
    """Looks at an announcement or a page as it is read, and before it is sent.

    Raises:
        BadInput: It cannot be used; the line says what was expected.
    """
    if isinstance(record, StreamAnnounced):
        _check_announced(record)
    elif isinstance(record, ProductPage):
        _check_name("a page", "product_id", record.product_id)


def shown(value: str) -> str:
    """Returns a value as error messages quote it: long ones are cut."""
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")


def _check_announced(announced: StreamAnnounced) -> None:
    _check_name("a stream", "stream_id", announced.stream_id)
    what = f"stream {shown(announced.stream_id)}"
    if announced.state == "live":
        _check_url(what, announced.url)
    if announced.language is not None and primary_tag(announced.language) not in LANGUAGES:
        raise BadInput(f"{what}: unknown language {shown(announced.language)}: name it as in en or zh, or leave it out")
    bag = announced.product_ids or ()
    if not all(one.strip() for one in bag):
        raise BadInput(f"{what}: its shopping bag has an empty product id")
    size = sum(len(one.encode()) + 3 for one in bag)
    if size > MOST_BAG_BYTES:
        raise BadInput(
            f"{what}: its shopping bag of {len(bag)} products takes {size} bytes, more than {MOST_BAG_BYTES}: "
            "leave it out, and the whole catalogue is searched"
        )


def _check_name(what: str, field: str, name: str) -> None:
    if not name.strip():
        raise BadInput(f"{what} with an empty {field}: name it")
    if _CONTROL.search(name):
        raise BadInput(f"{what} with a control character in its {field} {shown(name)}: leave it out")


def _check_url(what: str, url: str) -> None:
    if not url.strip():
        raise BadInput(f"{what}: no url: name what is to be opened")
    if url != url.strip():
        raise BadInput(f"{what}: its url begins or ends with a space: leave it out")
    if len(url) > LONGEST_URL:
        raise BadInput(f"{what}: a url of {len(url)} characters, more than {LONGEST_URL}")
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", url)
    if scheme is not None and scheme[1].lower() not in (*NETWORK_SCHEMES, "file"):
        raise BadInput(
            f"{what}: unknown scheme {shown(scheme[1])}: expected one of {', '.join(NETWORK_SCHEMES)}, or a file's path"
        )
    if _CONTROL.search(url):
        raise BadInput(f"{what}: its url has a control character, such as a line's end: leave it out")
