"""Authenticates requests by a token, by the cookie that a token was exchanged for, or by a trusted proxy's header.

Sessions are stateless: a cookie carries role, name and expiry, signed with a key derived from the tokens. So every
process behind a balancer accepts it, and it is void once the tokens are changed.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from topology.errors import UserError
from topology.settings import Settings

COOKIE = "cope_session"
CSRF_HEADER = "X-COPE-CSRF"
SESSION_S = 12 * 3600  # a working shift; a stolen cookie is valid as long
LONGEST_NAME = 80

Role = Literal["viewer", "reviewer", "open"]


@dataclass(frozen=True)
class User:
    """The sender of a request.

    Attributes:
        role: "viewer" may look, "reviewer" may write too; "open": nobody is asked who they are, and all may write.
        by: How they are known. A browser sends "cookie" and "proxy" by itself, so these need the CSRF header to write.
        name: None if it is not known.
    """

    role: Role
    by: Literal["token", "cookie", "proxy", "nothing"]
    name: str | None = None

    @property
    def may_write(self) -> bool:
        """Whether the role writes."""
        return self.role != "viewer"


class Users:
    """Recognises users as the settings say.

    Raises:
        UserError: An entry of `http_trusted_proxies` is not a network.
    """

    def __init__(self, settings: Settings) -> None:
        self._reviewer = settings.http_token.get_secret_value().encode()
        self._viewer = settings.http_viewer_token.get_secret_value().encode()
        self._header = settings.http_user_header
        self._reviewers = {name.strip() for name in settings.http_reviewers.split(",") if name.strip()}
        try:
            self._proxies = [
                ipaddress.ip_network(one.strip(), strict=False)
                for one in settings.http_trusted_proxies.split(",")
                if one.strip()
            ]
        except ValueError as error:
            raise UserError(f"COPE_HTTP_TRUSTED_PROXIES: {error}: write networks as in 10.0.0.0/8") from None
        self._key = hashlib.sha256(b"cope session\0" + self._reviewer + b"\0" + self._viewer).digest()

    @property
    def protects(self) -> bool:
        """Whether requests must be authenticated."""
        return bool(self._reviewer or self._viewer or self._header)

    def of(self, request: web.Request) -> User | None:
        """Returns who sent a request; None if it must be authenticated and is not."""
        if not self.protects:
            return User("open", "nothing")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # A browser's EventSource sends no headers of its own.
        role = self.role_of(given.strip() if scheme.lower() == "bearer" else request.query.get("token", ""))
        if role is not None:
            return User(role, "token")
        return self._by_proxy(request) or self._by_cookie(request.cookies.get(COOKIE, ""))

    def role_of(self, token: str) -> Role | None:
        """Returns the role that a token gives; None for an unknown token."""
        given = token.encode("utf-8", "surrogateescape")
        # Both are always compared, so that the time taken reveals nothing.
        reviewer = hmac.compare_digest(given, self._reviewer) and bool(self._reviewer)
        viewer = hmac.compare_digest(given, self._viewer) and bool(self._viewer)
        return "reviewer" if reviewer else "viewer" if viewer else None

    def cookie(self, role: Role, name: str | None) -> str:
        """Returns the value of a new cookie."""
        content = json.dumps([role, (name or "")[:LONGEST_NAME], int(time.time()) + SESSION_S])
        payload = base64.urlsafe_b64encode(content.encode()).decode()
        return f"{payload}.{self._sign(payload)}"

    def _by_proxy(self, request: web.Request) -> User | None:
        name = request.headers.get(self._header, "").strip()[:LONGEST_NAME] if self._header else ""
        if not name:
            return None
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        address = ipaddress.ip_address(str(peer[0]).split("%")[0]) if peer else None
        address = getattr(address, "ipv4_mapped", None) or address
        if address is None or not any(address in network for network in self._proxies):
            return None
        # A header may hold any bytes; the name is shown as text.
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        may_write = "*" in self._reviewers or name in self._reviewers
        return User("reviewer" if may_write else "viewer", "proxy", name)

    def _by_cookie(self, value: str) -> User | None:
        payload, _, signature = value.partition(".")
        if not (self._reviewer or self._viewer) or not hmac.compare_digest(
            signature.encode("utf-8", "surrogateescape"), self._sign(payload).encode()
        ):
            return None
        role, name, end = json.loads(base64.urlsafe_b64decode(payload))
        return User(role, "cookie", name or None) if end > time.time() else None

    def _sign(self, payload: str) -> str:
        return hmac.new(self._key, payload.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def is_foreign(request: web.Request) -> bool:
    """Returns whether a browser says that the page of another site sent the request."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("cross-site", "same-site")
    origin = request.headers.get("Origin")  # sent by browsers before 2023
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
