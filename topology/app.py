"""The Faust app of a role."""

import logging
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from faust.tables import TableManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types.auth import CredentialsT
from mode.threads import WorkerThread

from topology.connection import bootstrap_servers, full_name, ssl_context
from topology.settings import Role, Settings

# Records that wait in a process between Kafka's fetcher and a handler, over all partitions of a topic. Frames
# are about 50 kB, so this is some 10 MB; with fewer, a handler that batches runs dry between two fetches.
BUFFERED_RECORDS = 256
# Records that one fetch may hand over. A full buffer stops the whole app (all topics), and the buffer asks its
# partition to pause at 4/5 of its size: one fetch must fit into the remaining fifth.
FETCHED_RECORDS = 32

# Per partition and fetch; a larger record still comes, alone (KIP-74). More would be held for each of dozens of
# partitions at once.
FETCHED_BYTES = 1_048_576

# How long the broker may hold back the answer to a fetch that finds nothing. Apache Kafka answers as soon as something
# comes; Tansu looks again now and then within that time: with Faust's 1,500 ms a record waits 0.4 s on its way to the
# next role, with 200 ms 0.05 s.
FETCH_WAIT_MS = 200


# Of the parts of Faust that are replaced below: else mode logs what they say as ours, and only libraries are quietened.
_FAUST_LOG = logging.getLogger("faust")


class _EndsWithTheProcess(WorkerThread):  # type: ignore[misc]  # mode is not typed
    """A thread that does not keep a process whose broker has died: its client waits 90 s for the last answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True


class _ConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust is not typed
    """Faust's client of Kafka, with our `FETCH_WAIT_MS` in place of Faust's, for which there is no setting."""

    logger = _FAUST_LOG
    Worker = _EndsWithTheProcess

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class _Consumer(Consumer):  # type: ignore[misc]  # Faust is not typed
    logger = _FAUST_LOG

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _NoTables(TableManager):  # type: ignore[misc]  # Faust is not typed
    """A table manager that starts at once: Faust's waits a second for tables to be declared, and there are none."""

    logger = _FAUST_LOG

    async def sleep(self, n: float | timedelta) -> None:
        """Returns at once."""


def group_id(role: Role, settings: Settings) -> str:
    """Returns the consumer group of a role."""
    return full_name(settings, f"cope-{role}")


def make_app(role: Role, settings: Settings) -> faust.App:
    """Returns the Faust app of a role, without agents.

    Faust consumes and keeps the group; it holds no tables (docs/delivery.md: they lose input), serves no web pages,
    creates no topics, commits no offsets and sends nothing: `topology.delivery` does that.

    Raises:
        UserError: A broker setting is wrong.
    """
    session_timeout_s = settings.broker_session_timeout_s
    app = faust.App(
        group_id(role, settings),
        broker=[f"kafka://{server}" for server in bootstrap_servers(settings)],
        broker_credentials=_credentials(settings),
        broker_client_id=f"cope-{role}",
        broker_session_timeout=session_timeout_s,
        # As Kafka recommends: three heartbeats may be lost before the session expires.
        broker_heartbeat_interval=session_timeout_s / 3,
        # Faust refuses a session longer than a request may take.
        broker_request_timeout=max(90.0, session_timeout_s + 10.0),
        broker_max_poll_records=FETCHED_RECORDS,
        # Handlers may wait long (for a paused dependency); heartbeats say whether a process lives.
        broker_max_poll_interval=24 * 3600.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCHED_BYTES,
        stream_buffer_maxsize=BUFFERED_RECORDS,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        store="memory://",
        TableManager=_NoTables,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
        datadir=Path(tempfile.gettempdir()) / "cope-live-faust",
        # A stream that is idle, or held back on purpose, is not an error; health checks report what is stuck.
        stream_processing_timeout=24 * 3600.0,
        broker_commit_livelock_soft_timeout=24 * 3600.0,
    )
    app.finalize()
    app.transport.Consumer = _Consumer
    return app


def _credentials(settings: Settings) -> CredentialsT | None:
    context = ssl_context(settings)
    if settings.broker_username:
        return faust.SASLCredentials(
            username=settings.broker_username,
            password=settings.broker_password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.broker_sasl_mechanism,
        )
    if context is not None:
        return faust.SSLCredentials(context)
    return None
