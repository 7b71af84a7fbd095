"""Opens the index that the settings ask for."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from topology.errors import Unavailable, UserError
from topology.index.base import Index
from topology.settings import Settings

if TYPE_CHECKING:
    from topology.index.server import ServerIndex


async def open_index(settings: Settings, model_version: str) -> Index:
    """Returns the index of the settings: a Qdrant server's if they name one, else the embedded engine's.

    Args:
        settings: Reads `qdrant_url`, `qdrant_api_key`, `index_dir`, `index_alias`.
        model_version: The model whose vectors the caller has.

    Raises:
        UserError: The server's address is not a URL, the folder cannot be used, or the index holds vectors of another
            model.
        Unavailable: The server does not answer.
    """
    # Imported here: each takes a while to load, and a process needs one of them.
    if settings.qdrant_url:
        from topology.index.server import ServerIndex, connect

        _check_url(settings)
        server = ServerIndex(connect(settings), settings.index_alias, model_version)
        try:
            await server.open()
        except Unavailable as error:
            raise Unavailable(f"{settings.qdrant_url}: {error}") from error
        return server
    from topology.index.edge import EdgeIndex

    return EdgeIndex(settings.index_dir, model_version, f"{settings.index_alias}_v1")


async def open_server_to_fill(settings: Settings, model_version: str) -> "ServerIndex":
    """Returns the Qdrant server's collection that pages of this model belong into: see `server.open_to_fill`."""
    from topology.index.server import connect, open_to_fill

    _check_url(settings)
    try:
        return await open_to_fill(connect(settings), settings.index_alias, model_version)
    except Unavailable as error:
        raise Unavailable(f"{settings.qdrant_url}: {error}") from error


def _check_url(settings: Settings) -> None:
    address = urlsplit(settings.qdrant_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"setting COPE_QDRANT_URL names `{settings.qdrant_url}`: write it as http://host:6333")
