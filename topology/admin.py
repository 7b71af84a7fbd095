"""Creating the topics of the table, with their partitions, retention and compaction."""

import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from topology.connection import client_options, full_name
from topology.errors import Unavailable, UserError
from topology.retry import describe, retrying
from topology.settings import Settings
from topology.topics import TOPICS

_log = logging.getLogger(__name__)


async def create_topics(settings: Settings) -> list[str]:
    """Creates the topics that the broker does not have yet and returns their names, without the prefix.

    Waits with back-off while the broker is down.

    Raises:
        UserError: The broker refuses, or has a topic with another number of partitions than the settings.
    """

    async def attempt() -> list[str]:
        try:
            return await _create(settings)
        except (KafkaError, OSError) as error:
            raise Unavailable(f"the broker at {settings.broker} does not answer: {describe(error)}") from error

    return await retrying(attempt, f"create topics at {settings.broker}")


async def _create(settings: Settings) -> list[str]:
    client = AIOKafkaAdminClient(**client_options(settings))
    try:
        await client.start()
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
        for name, code, *reason in response.topic_errors:
            # Another worker that starts now may be faster.
            if code not in (0, TopicAlreadyExistsError.errno):
                error = for_code(code)
                if getattr(error, "retriable", False):
                    raise error(f"{name}: {reason}")
                raise UserError(f"the broker refuses topic {name}: {error.__name__} {reason}: check its settings")
        _log.info("created topics", extra={"count": len(missing)})
        return [spec.name for spec in missing.values()]
    finally:
        await client.close()


async def _check_partitions(client: AIOKafkaAdminClient, settings: Settings, existing: set[str]) -> None:
    ours = {full_name(settings, name): spec for name, spec in TOPICS.items()}
    present = [name for name in ours if name in existing]
    if not present:
        return
    for topic in await client.describe_topics(present):
        spec = ours[topic["topic"]]
        found, wanted = len(topic["partitions"]), spec.partitions(settings)
        if found != wanted:
            setting = "COPE_STREAM_PARTITIONS" if spec.keyed_by == "stream" else "COPE_PRODUCT_PARTITIONS"
            raise UserError(
                f"topic {topic['topic']} has {found} partitions, setting {setting} says {wanted}: "
                "set it to what the topic has, for keys must keep their partitions"
            )
