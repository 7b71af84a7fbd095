"""Creating the topics of the table, with their partitions, retention and compaction."""

import asyncio
import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, LeaderNotAvailableError, TopicAlreadyExistsError, for_code

from topology.connection import client_options, full_name, refusal, start_client
from topology.errors import Unavailable, UserError
from topology.retry import describe, retrying
from topology.settings import Settings
from topology.topics import TOPICS

_log = logging.getLogger(__name__)

# For interactive commands: a broker that restarts is back within seconds; if it is not, the address is probably wrong.
PATIENCE_S = 15.0

_LEADER_POLL_S = 0.1
_LEADER_POLLS = 100  # a healthy cluster elects leaders within a second; after 10 s something is wrong


async def create_topics(settings: Settings, give_up_s: float | None = None) -> list[str]:
    """Creates the topics that the broker does not have yet and returns their names, without the prefix.

    Waits with back-off while the broker is down, no longer than `give_up_s` if that is given.

    Raises:
        UserError: The broker refuses, has a topic with another number of partitions than the settings, or has not
            answered for `give_up_s`.
    """

    async def attempt() -> list[str]:
        try:
            return await _create(settings)
        except (KafkaError, OSError) as error:
            if (refused := await refusal(settings)) is not None:
                raise UserError(refused) from error
            raise Unavailable(f"the broker at {settings.broker} does not answer: {describe(error)}") from error

    try:
        async with asyncio.timeout(give_up_s):
            return await retrying(attempt, f"create topics at {settings.broker}")
    except TimeoutError:
        raise UserError(
            f"the broker at {settings.broker} does not answer: start it, or set COPE_BROKER to where it is"
        ) from None


async def require_topics(settings: Settings) -> None:
    """Creates missing topics, for interactive commands: it gives up after `PATIENCE_S`.

    Raises:
        UserError: As `create_topics`.
    """
    await create_topics(settings, PATIENCE_S)


async def other_settings(settings: Settings) -> list[str]:
    """Returns a line for each existing topic whose settings do not work for the flow, with the command that mends it.

    Raises:
        Unavailable: The broker does not answer.
    """
    client = AIOKafkaAdminClient(**client_options(settings))
    try:
        await start_client(client)
        ours = {full_name(settings, name): spec for name, spec in TOPICS.items()}
        present = [name for name in ours if name in set(await client.list_topics())]
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in present])
        lines = []
        for code, _, _, name, entries in (resource for answer in answers for resource in answer.resources):
            held = {entry[0]: entry[1] for entry in entries or ()} if not code else {}
            lines += [
                f"topic {name} has {key}={held[key]}, the flow needs {wanted}: kafka-configs.sh --bootstrap-server "
                f"{settings.broker} --alter --topic {name} --add-config {key}={wanted}"
                for key, wanted in ours[name].config().items()
                if held.get(key) and not _serves(key, held[key], wanted)
            ]
        return lines
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker does not tell the settings of topics: {describe(error)}") from error
    finally:
        await client.close()


def _serves(key: str, held: str, wanted: str) -> bool:
    if key in ("max.message.bytes", "retention.ms"):  # -1: for ever
        return held == "-1" or (held.isdecimal() and int(held) >= int(wanted))
    return key == "segment.ms" or held == wanted


async def _create(settings: Settings) -> list[str]:
    client = AIOKafkaAdminClient(**client_options(settings))
    try:
        await start_client(client)
        existing = set(await client.list_topics())
        missing = {full_name(settings, name): spec for name, spec in TOPICS.items()}
        missing = {name: spec for name, spec in missing.items() if name not in existing}
        await _check_partitions(client, settings, existing)
        if not missing:
            return []
        response = await client.create_topics(
            [
                NewTopic(name, spec.partitions(settings), settings.replication_factor, topic_configs=spec.config())
                for name, spec in missing.items()
            ]
        )
        created = [missing[name].name for name, code, *reason in response.topic_errors if _is_new(name, code, reason)]
        await _wait_for_leaders(client, list(missing))
        _log.info("created topics", extra={"count": len(created)})
        return created
    finally:
        await client.close()


def _is_new(name: str, code: int, reason: list[str]) -> bool:
    # Another worker that starts now may be faster.
    if code == TopicAlreadyExistsError.errno:
        return False
    if code == 0:
        return True
    error = for_code(code)
    if getattr(error, "retriable", False):
        raise error(f"{name}: {reason}")
    raise UserError(f"the broker refuses topic {name}: {error.__name__} {reason}: check its settings")


async def _wait_for_leaders(client: AIOKafkaAdminClient, names: list[str]) -> None:
    """Waits until the topics can be written to: a Kafka cluster needs a moment to spread what was created."""
    for _ in range(_LEADER_POLLS):
        topics = await client.describe_topics(names)
        partitions = [partition for topic in topics if not topic["error_code"] for partition in topic["partitions"]]
        known = sum(not topic["error_code"] for topic in topics)
        if known == len(names) and all(partition["leader"] >= 0 for partition in partitions):
            return
        await asyncio.sleep(_LEADER_POLL_S)
    raise LeaderNotAvailableError(f"topics without a leader after {_LEADER_POLLS * _LEADER_POLL_S:.0f} s")


async def _check_partitions(client: AIOKafkaAdminClient, settings: Settings, existing: set[str]) -> None:
    ours = {full_name(settings, name): spec for name, spec in TOPICS.items()}
    present = [name for name in ours if name in existing]
    if not present:
        return
    for topic in await client.describe_topics(present):
        if topic["error_code"]:  # just created, by somebody else
            continue
        spec = ours[topic["topic"]]
        found, wanted = len(topic["partitions"]), spec.partitions(settings)
        if found != wanted:
            setting = "COPE_STREAM_PARTITIONS" if spec.keyed_by == "stream" else "COPE_PRODUCT_PARTITIONS"
            raise UserError(
                f"topic {topic['topic']} has {found} partitions, setting {setting} says {wanted}: "
                "set it to what the topic has, for keys must keep their partitions"
            )
