"""`cope-live dlq`: lists, shows, redrives and purges dead letters."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from topology.admin import require_topics
from topology.dead_letters import DeadLetter, delete_letters, read_letters, redrive
from topology.errors import UserError
from topology.redact import redacted
from topology.settings import Settings
from topology.topic_log import Producer
from topology.topics import CONSUMED, DEAD_LETTER_SUFFIX
from workers.cli.main import tool_settings

_SHOWN_BYTES = 2_000


@click.group("dlq")
def dlq_command() -> None:
    """Look at dead-letter queues, send their records again, or empty them.

    TOPIC is the topic that the records came from. A letter is named by its place in the queue, PARTITION/OFFSET.
    """


@dlq_command.command("list", short_help="List what could not be used, and why.")
@click.argument("topic", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_command(topic: str | None, as_json: bool) -> None:
    """List the records of TOPIC, or of all topics, that could not be used, and why."""
    names = _topics(topic)
    asyncio.run(_list(tool_settings(), names, as_json=as_json))


@dlq_command.command("show", short_help="Show one letter, or write its bytes to a file.")
@click.argument("topic")
@click.argument("letter", metavar="PARTITION/OFFSET")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record's original bytes to this file.")
def show_command(topic: str, letter: str, out: Path | None) -> None:
    """Show the cause and the content of one letter."""
    (name,) = _topics(topic)
    asyncio.run(_show(tool_settings(), name, letter, out))


@dlq_command.command("redrive", short_help="Send records to their topic again, once their cause is mended.")
@click.argument("topic")
@click.argument("letters", nargs=-1, metavar="[PARTITION/OFFSET]...")
@click.option("--all", "everything", is_flag=True, help="All letters of the topic.")
def redrive_command(topic: str, letters: tuple[str, ...], everything: bool) -> None:
    """Send the original bytes of letters to TOPIC again. They are not listed any more."""
    if bool(letters) == everything:
        raise UserError("dlq redrive: name letters as `cope-live dlq list` does, or say --all")
    (name,) = _topics(topic)
    asyncio.run(_redrive(tool_settings(), name, letters))


@dlq_command.command("purge", short_help="Delete all letters of a topic.")
@click.argument("topic")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge_command(topic: str, yes: bool) -> None:
    """Delete all letters of TOPIC for good."""
    (name,) = _topics(topic)
    if not yes:
        click.confirm(f"Delete all letters of {name}?", abort=True)
    click.echo(f"{name}: {asyncio.run(_purge(tool_settings(), name))} letters deleted")


def _topics(topic: str | None) -> Sequence[str]:
    if topic is None:
        return CONSUMED
    name = topic.removesuffix(DEAD_LETTER_SUFFIX)
    if name not in CONSUMED:
        raise UserError(f"{topic}: no topic with a dead-letter queue: name one of {', '.join(CONSUMED)}")
    return (name,)


async def _list(settings: Settings, topics: Sequence[str], *, as_json: bool) -> None:
    await require_topics(settings)
    empty = True
    for topic in topics:
        async for one in read_letters(settings, topic):
            click.echo(msgspec.json.encode(_row(one)).decode() if as_json else _line(one))
            empty = False
    if empty:
        click.echo("no letters", err=True)


def _row(one: DeadLetter) -> dict[str, Any]:
    size = None if one.value is None else len(one.value)
    return {
        "topic": one.topic,
        "letter": one.name,
        "at": datetime.fromtimestamp(one.log_ms / 1000, UTC).isoformat(timespec="seconds"),
        "key": redacted("".join(map(_printable, (one.key or b"").decode(errors="replace")))),
        "partition": one.partition,
        "offset": one.offset,
        "error": one.error,
        "message": one.message,
        "attempts": one.attempts,
        "bytes": size,
    }


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else "�"


def _line(one: DeadLetter) -> str:
    row = _row(one)
    return f"{one.topic:<14} {one.name:<8} {row['at']}  {row['key'][:24]:<24} {one.error}: {one.message}"


async def _wanted(settings: Settings, topic: str, names: Sequence[str]) -> AsyncIterator[DeadLetter]:
    await require_topics(settings)
    left = set(names)
    async for one in read_letters(settings, topic):
        if not names or one.name in left:
            left.discard(one.name)
            yield one
    if left:
        raise UserError(f"{topic}: no letter {', '.join(sorted(left))}: `cope-live dlq list {topic}` names them")


async def _show(settings: Settings, topic: str, letter: str, out: Path | None) -> None:
    async for one in _wanted(settings, topic, [letter]):
        for name, value in _row(one).items():
            click.echo(f"{name}: {value}")
        if one.left_out:
            click.echo(f"the queue did not take its bytes: they were at {topic} {one.partition}/{one.offset}")
        elif out is not None:
            _write(out, one.value or b"")
        elif one.value is not None:
            click.echo(_readable(one.value))


def _write(path: Path, value: bytes) -> None:
    try:
        path.write_bytes(value)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _readable(value: bytes) -> str:
    try:
        text = repr(msgspec.msgpack.decode(value)) if value[:1] > b"\x7f" else value.decode()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        text = repr(value[:_SHOWN_BYTES])
    bare = redacted(text)
    return bare if bare == text else f"{bare}\n({len(value)} bytes, less what URLs hide; --out writes all)"


async def _redrive(settings: Settings, topic: str, names: Sequence[str]) -> None:
    sent = 0
    async with Producer(settings) as producer:
        async for one in _wanted(settings, topic, names):
            if one.left_out:
                click.echo(f"{one.name}: its bytes are not in the queue: publish the record again")
                continue
            await redrive(producer, one)
            sent += 1
    click.echo(f"{topic}: {sent} records sent again")


async def _purge(settings: Settings, topic: str) -> int:
    await require_topics(settings)
    return await delete_letters(settings, topic)
