"""How to reach the broker: the settings as arguments of the Kafka client."""

import asyncio
import ssl
from typing import Any, Protocol

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from topology.errors import UserError
from topology.settings import Settings

EMBEDDED = "embedded"

_PROBE_MS = 5_000
# How long a start that is cancelled may go on. It takes milliseconds, unless the broker is down.
_START_ENDS_S = 1.0


def bootstrap_servers(settings: Settings) -> list[str]:
    """Returns the broker's addresses.

    Raises:
        UserError: The embedded broker has not been started, or an address is malformed.
    """
    if settings.broker == EMBEDDED:
        raise UserError(
            "setting COPE_BROKER is `embedded`, which only `watch` and `demo` start: "
            "set it to host:port of a running Kafka broker"
        )
    servers = [server.strip() for server in settings.broker.split(",") if server.strip()]
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or "/" in host or not port.isdecimal() or int(port) > 65_535:
            raise UserError(f"setting COPE_BROKER names `{server}`: write it as host:port")
    if not servers:
        raise UserError("setting COPE_BROKER is empty: set it to host:port of a Kafka broker")
    return servers


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Returns the TLS context, or None without TLS.

    Raises:
        UserError: The certificate file cannot be read.
    """
    if not settings.broker_tls:
        return None
    try:
        return ssl.create_default_context(cafile=settings.broker_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"setting COPE_BROKER_CA_FILE: cannot load {settings.broker_ca_file}: {error}") from error


def client_options(settings: Settings) -> dict[str, Any]:
    """Returns the connection arguments that all aiokafka clients share."""
    options: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(settings),
        "client_id": "cope-live",
    }
    context = ssl_context(settings)
    if context is not None:
        options["ssl_context"] = context
    if settings.broker_username:
        options |= {
            "security_protocol": "SASL_SSL" if context else "SASL_PLAINTEXT",
            "sasl_mechanism": settings.broker_sasl_mechanism,
            "sasl_plain_username": settings.broker_username,
            "sasl_plain_password": settings.broker_password.get_secret_value(),
        }
    else:
        options["security_protocol"] = "SSL" if context else "PLAINTEXT"
    return options


class Client(Protocol):
    """A consumer, producer or admin client of aiokafka."""

    async def start(self) -> None:
        """Connects."""


async def start_client(client: Client) -> None:
    """Starts a client; a cancellation takes effect after it: aiokafka forgets the connection of a cancelled start."""
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await let_end(starting, _START_ENDS_S)
        raise


async def let_end(task: asyncio.Future[None], timeout_s: float) -> None:
    """Waits until a task has ended, whatever it raises; after the time, or a second cancellation, it is cancelled."""
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def refusal(settings: Settings) -> str | None:
    """Returns in one line why the broker refuses us; None if it accepts us or does not answer at all.

    For a wrong password aiokafka only reports that it could not connect.
    """
    options = client_options(settings)
    servers = options.pop("bootstrap_servers")
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            connection = await create_conn(host, int(port), request_timeout_ms=_PROBE_MS, **options)
        except (AuthenticationFailedError, SaslAuthenticationFailed, IllegalSaslStateError) as error:
            return (
                f"the broker at {server} refuses user {settings.broker_username!r} ({type(error).__name__}): check "
                "COPE_BROKER_USERNAME, COPE_BROKER_PASSWORD and COPE_BROKER_SASL_MECHANISM"
            )
        except UnsupportedSaslMechanismError:
            mechanism = settings.broker_sasl_mechanism
            return f"the broker at {server} does not take {mechanism}: set COPE_BROKER_SASL_MECHANISM to what it takes"
        except (KafkaError, OSError) as error:
            certificate = _certificate_error(error)
            if certificate is not None:
                return (
                    f"the certificate of the broker at {server} is not trusted ({certificate.verify_message}): set "
                    "COPE_BROKER_CA_FILE to the CA that signed it"
                )
        else:
            connection.close()
    return None


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def full_name(settings: Settings, topic: str) -> str:
    """Returns the topic's name at the broker."""
    return settings.topic_prefix + topic
