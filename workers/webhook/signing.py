"""An event as an HTTP request: CloudEvents' binary mode, signed as Standard Webhooks says.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from urllib.parse import quote

from topology.codec import cloud_event_headers
from topology.errors import UserError
from topology.records import ProductDetected

_PREFIX = "whsec_"
# Characters that a header's value may hold unescaped: printable ASCII without space, quotation mark and percent.
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def key_of(secret: str) -> bytes:
    """Returns the key of a secret: `whsec_` and base64, or any text.

    Raises:
        UserError: What follows `whsec_` is no base64.
    """
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise UserError("COPE_WEBHOOK_SECRET: what follows whsec_ is not base64") from None


def signature(key: bytes, event_id: str, at_s: int, body: bytes) -> str:
    """Returns the value of `webhook-signature`."""
    content = f"{event_id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def headers_of(event: ProductDetected, body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    """Returns the headers of a request.

    Args:
        event: The event that is posted.
        body: The body as it is posted.
        key: Key of the signature; empty: unsigned.
        at_s: Now, Unix seconds: receivers refuse old requests.
    """
    attributes = {name: value.decode() for name, value in cloud_event_headers(event)}
    headers = {name.replace("ce_", "ce-"): quote(value, safe=_SAFE) for name, value in attributes.items()}
    event_id = headers["ce-id"]  # as it is sent: what is signed must be what is read
    headers |= {"webhook-id": event_id, "webhook-timestamp": str(at_s), "User-Agent": "cope-live"}
    if key:
        headers["webhook-signature"] = signature(key, event_id, at_s, body)
    return headers
