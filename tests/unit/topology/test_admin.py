"""Making the topics while the broker is not there."""

import socket

import pytest

from topology.admin import create_topics
from topology.errors import UserError
from topology.settings import Settings


async def test_a_broker_that_stays_away_is_named_with_the_mend() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings(_env_file=None, broker=address)
        with pytest.raises(UserError, match=rf"{address} does not answer.*COPE_BROKER"):
            await create_topics(settings, give_up_s=0.5)
