"""Serves the files of the page, which lie below `page/`, from memory; each view's address gives the same index.

Files of two releases must not mix, also behind a balancer. So each file has an ETag and is revalidated at each load,
which costs a 304 if it has not changed.
"""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web
from aiohttp.typedefs import Handler

from topology.http_guard import PUBLIC

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

# Addresses that people open and share. What comes after the name is read by the page.
VIEWS = ("/", "/room/{id:.+}", "/detection/{id:.+}", "/queue", "/catalogue", "/product/{id:.+}")

# Scripts, styles and pictures come from here only, and no text becomes markup or script.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_page(application: web.Application) -> None:
    """Adds the page to an application: its views and, below /page/, its files."""
    folder = files("workers.monitor") / "page"
    for path, file in _walk(folder, ""):
        suffix = path[path.rfind(".") :]
        if suffix in _TYPES:
            application.router.add_get(f"/page/{path}", _sender(file.read_bytes(), _TYPES[suffix]))
    index = _sender((folder / "index.html").read_bytes(), _TYPES[".html"])
    for view in VIEWS:
        application.router.add_get(view, index)


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        path = prefix + entry.name
        found += _walk(entry, f"{path}/") if entry.is_dir() else [(path, entry)]
    return found


def _sender(body: bytes, content_type: str) -> Handler:
    etag = hashlib.sha256(body).hexdigest()[:32]

    async def send(request: web.Request) -> web.Response:
        known = any(tag.value in (etag, "*") for tag in request.if_none_match or ())
        response = web.Response(status=304 if known else 200, headers=HEADERS)
        if not known:
            response.body, response.content_type, response.charset = body, content_type, "utf-8"
        response.etag = etag
        return response

    setattr(send, PUBLIC, True)  # the page asks for the token itself
    return send
