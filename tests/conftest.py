"""Brokers for tests (Tansu, embedded, and Apache Kafka where KAFKA_HOME names a distribution), and clips of streams."""

import asyncio
import itertools
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import av
import hypothesis
import pytest

from topology.embedded import EmbeddedBroker
from topology.settings import Settings

# No test is timed: on a machine that has other work, an example may take a second.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that starts the tests in the background (`make test &`) has SIGINT ignored in them and in all that they start:
# what is to end by Ctrl-C would then go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

KAFKA_READY_TIMEOUT_S = 60.0
_prefixes = itertools.count()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Gives the root logger back as it was: commands that run within a test configure it for themselves."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {name: logging.getLogger(name).level for name in ("aiokafka", "faust", "mode", "aiohttp")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in others.items():
        logging.getLogger(name).setLevel(before)


def _fresh(settings: Settings) -> Settings:
    """Returns settings whose topics and groups no other test uses, with few partitions (groups join faster)."""
    # What tests serve and read lies on this machine.
    update: dict[str, object] = {"allowed_networks": "127.0.0.0/8", "allowed_folders": "/"}
    update |= {"topic_prefix": f"t{os.getpid()}-{next(_prefixes)}-", "stream_partitions": 3, "product_partitions": 2}
    return settings.model_copy(update=update)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def broker(embedded_broker: EmbeddedBroker) -> Settings:
    """Settings of the embedded broker (Tansu), with a topic prefix of this test's own."""
    settings = embedded_broker.configure(Settings(_env_file=None))
    # A join of a group takes half as long as this, and tests join some hundred times.
    return _fresh(settings.model_copy(update={"broker_session_timeout_s": 2.0}))


class KafkaServer:
    """An Apache Kafka broker of KAFKA_HOME, which can be killed and started again with its data."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port_pair()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(self._home / "bin" / "kafka-dev-server"), str(self.port), str(self._folder / "data")],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + KAFKA_READY_TIMEOUT_S
        while b"Kafka Server started" not in log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kafka does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends the broker as `kill -9` does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME names no Kafka distribution")
    server = KafkaServer(Path(home), tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> Settings:
    """Settings of an Apache Kafka broker, with a topic prefix of this test's own. Mark the test `kafka`."""
    settings = Settings(_env_file=None, broker=kafka_server.address)
    return _fresh(settings.model_copy(update={"broker_session_timeout_s": 6.0, "idempotent_producer": True}))


@pytest.fixture(params=["broker", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_broker(request: pytest.FixtureRequest) -> Settings:
    """The test runs on the embedded broker, and again on Apache Kafka where that is present."""
    settings: Settings = request.getfixturevalue(request.param)
    return settings


@pytest.fixture(scope="session")
def free_port_pair() -> Callable[[], int]:
    """Finds a free port whose successor is free too."""
    return _free_port_pair


def _free_port_pair() -> int:
    """Returns a free port whose successor is free too (Kafka's controller takes that).

    It lies below those that the system gives to connections: of these, another test's may take one before Kafka does.
    """
    for _ in range(100):
        port = secrets.choice(range(10_000, 30_000))
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports in a row")


Condition = Callable[[], bool | Awaitable[bool]]


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """`await until(condition)` waits for a plain or async condition and fails the test when it does not come true."""

    async def wait(condition: Condition, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            result = condition()
            if await result if isinstance(result, Awaitable) else result:
                return
            assert time.monotonic() < deadline, f"not within {timeout_s} s"
            await asyncio.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def first_seconds() -> Callable[[Path, Path, float], Path]:
    """Copies the first seconds of a stream, packets as they are: (source, target, seconds) -> target."""

    def copy(source: Path, target: Path, seconds: float) -> Path:
        with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
            copies = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
            for packet in reader.demux():
                if packet.dts is not None and packet.pts * packet.time_base < seconds:
                    packet.stream = copies[packet.stream.index]
                    writer.mux(packet)
        return target

    return copy
