"""Which index the settings ask for, and what is said when it is not there."""

import socket
from pathlib import Path
from typing import Any

import pytest

from topology.errors import Unavailable, UserError
from topology.index.edge import EdgeIndex
from topology.index.opening import open_index, open_server_to_fill
from topology.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


async def test_without_a_server_the_index_is_a_folder(tmp_path: Path) -> None:
    index = await open_index(settings(index_dir=tmp_path), "model-1")
    try:
        assert isinstance(index, EdgeIndex)
        assert (index.version, index.model_version) == ("product_pages_v1", "model-1")
    finally:
        await index.close()


@pytest.mark.parametrize("opened", [open_index, open_server_to_fill])
async def test_a_server_that_does_not_answer_is_named(opened: object) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(Unavailable, match=url):
            await opened(settings(qdrant_url=url), "model-1")  # type: ignore[operator]


@pytest.mark.parametrize("url", ["qdrant", "qdrant:6333", "ftp://qdrant:6333", "http://"])
async def test_an_address_that_is_none_is_refused_with_the_mend(url: str) -> None:
    with pytest.raises(UserError, match=f"COPE_QDRANT_URL names `{url}`.*http://host:6333"):
        await open_index(settings(qdrant_url=url), "model-1")
