"""Records as the bytes, headers and keys of Kafka messages.

Records are MessagePack, or JSON where others write them (`topology.records`). `ProductDetected` is JSON with the
attributes of a CloudEvent in `ce_` headers: the binary content mode of the CloudEvents Kafka protocol binding 1.0.
"""

from typing import Any, cast
from urllib.parse import quote

import msgspec

from topology.checks import check
from topology.errors import BadInput
from topology.records import JSON_KINDS, ProductDetected, Record, decode, encode, refusing

Headers = list[tuple[str, bytes]]
Value = Record | ProductDetected

CLOUD_EVENT_TYPE = "cope.product_detected.v1"
"""The `v1` rises with any change that an old consumer of `product_detected` would not understand."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks that some editors and shells write

_json_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder(ProductDetected)


def encode_value(record: Value) -> tuple[bytes, Headers]:
    """Returns the message's value and headers."""
    if isinstance(record, ProductDetected):
        return _json_encoder.encode(record), cloud_event_headers(record)
    return encode(record), []


def decode_value(value: bytes, kind: type[Any]) -> Any:
    """Returns the record of the given kind that `value` holds.

    Raises:
        NewerSchema: The writer's schema is newer than ours.
        BadInput: The bytes are not such a record.
    """
    if kind is ProductDetected:
        with refusing(f"a {kind.__name__}"):
            return _json_decoder.decode(value)
    _check_format(value, kind)
    record = decode(value, cast(type[Record], kind))
    check(record)
    return record


def _check_format(value: bytes, kind: type[Any]) -> None:
    """Recognises text and a schema registry's prefix, for which a MessagePack decoder would only report a number."""
    text = value.removeprefix(b"\xef\xbb\xbf").lstrip()
    if (value[:1] <= b"\x7f" or value[:2] in _UTF16) and not (kind in JSON_KINDS and text[:1] == b"{"):
        expected = "neither MessagePack nor a JSON object" if kind in JSON_KINDS else "not MessagePack"
        begins = f"begins with the bytes {value[:6].hex(' ')}" if value else "is empty"
        raise BadInput(f"not a {kind.__name__}: it is {expected}, it {begins}")


def cloud_event_headers(event: ProductDetected) -> Headers:
    """Returns the CloudEvents attributes of an event.

    The id is the same each time the same event is sent, so a consumer may drop the copies that a crash leaves.
    """
    attributes = {
        "specversion": "1.0",
        "id": f"{event.detection_id}.{event.status}.{event.emitted_media_ms}",
        "type": CLOUD_EVENT_TYPE,
        "source": f"/streams/{quote(event.stream_id, safe='')}",
        "subject": event.product_id,
        "time": event.detected_at,
    }
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    return [*headers, ("content-type", b"application/json")]


def encode_key(key: str) -> bytes:
    """Returns the message's key."""
    return key.encode()


def decode_key(key: bytes | None) -> str:
    """Returns the key as text; what is not UTF-8 in it is replaced."""
    return (key or b"").decode(errors="replace")
