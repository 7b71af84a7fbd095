"""The command line: `cope-live COMMAND`.

Commands import what they need when they run, so that `--help` does not wait for torch.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from topology.errors import Unavailable, UserError
from topology.redact import redacted
from topology.settings import ROLES, Role, load_settings, unknown_settings

if TYPE_CHECKING:
    from topology.settings import Settings

# Commands that live with their work: name -> (module, attribute).
_ELSEWHERE: Mapping[str, tuple[str, str, str]] = {
    "calibrate": ("cope.calibrate", "calibrate_command", "Fit a model's calibration; as python -m cope.calibrate."),
    "evaluate": ("cope.evaluate", "evaluate_command", "Measure a model; as python -m cope.evaluate."),
    "export": ("cope.export", "export_command", "Make the folder that workers load; as python -m cope.export."),
    "dlq": ("workers.cli.dlq", "dlq_command", "Look at dead-letter queues, send their records again, or empty them."),
    "events": (
        "workers.cli.events",
        "events_command",
        "Print the events of `product_detected` as JSON lines.",
    ),
    "score": ("workers.cli.score", "score_command", "Score detected events against the truth of the streams."),
    "simulate": ("workers.cli.simulate.command", "simulate_command", "Render a live-commerce stream from a catalogue."),
    "timeline": ("workers.cli.timeline", "timeline_command", "Write the chapters of the recording of a room."),
    "train": ("cope.train", "train_command", "Train a model; as python -m cope.train."),
    "verdicts": (
        "workers.cli.verdicts",
        "verdicts_command",
        "Make data to learn from of people's verdicts.",
    ),
    "watch": ("workers.cli.watch.command", "watch_command", "Recognise the products that streams show."),
}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is used, not when `cope-live --help` lists it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns all command names, sorted."""
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of that name, imported now."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = _ELSEWHERE[cmd_name]
        command: click.Command = getattr(__import__(module, fromlist=[attribute]), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands with their first lines."""
        rows = []
        for name in self.list_commands(ctx):
            if name in _ELSEWHERE:
                rows.append((name, _ELSEWHERE[name][2]))
            elif (command := super().get_command(ctx, name)) is not None:
                rows.append((name, command.get_short_help_str(limit=90)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="cope-live")
def cli() -> None:
    """Says which catalogue product a live stream is showing, as events on Kafka.

    Settings come from the environment (COPE_…) or a .env file; `cope-live config` prints them.
    """
    for line in unknown_settings():
        click.echo(f"cope-live: {line}", err=True)


def _servers() -> "Settings":
    """Returns the settings, for a command that has nothing to do without a broker of the user's own."""
    settings = load_settings()
    if settings.broker == "embedded":
        raise UserError(
            "this command needs a broker: set COPE_BROKER to host:port (the embedded broker lives only inside `watch`)"
        )
    return settings


def tool_settings() -> "Settings":
    """Returns the settings, for commands that end by themselves: errors on the way are reported once, at the end."""
    settings = _servers()
    from topology.log_format import setup_logging

    setup_logging(settings.model_copy(update={"log_level": "error"}))
    # It logs at each attempt that the broker is not there.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return settings


@cli.command()
@click.argument("role", type=click.Choice(ROLES))
def worker(role: Role) -> int:
    """Run one role of the flow next to a platform's Kafka, until it is told to stop.

    \b
    capture     opens the streams that `live_streams` announces; sends frames and speech
    transcribe  speech to text to keywords
    embed       frames and keywords to window embeddings
    catalog     product pages to page vectors
    recognize   windows and page vectors to `product_detected`
    monitor     what is on now and each stream's health, over HTTP
    evidence    keeps the pictures that detections rest on
    webhook     posts events to COPE_WEBHOOK_URL
    """
    settings = _servers()
    from topology.log_format import setup_logging
    from workers.cli.roles import create_worker

    setup_logging(settings)
    return create_worker(role, settings).run()


def _columns(_ctx: click.Context, _option: click.Parameter, maps: tuple[str, ...]) -> dict[str, str]:
    columns = {}
    for text in maps:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not (ours and equals and theirs):
            raise UserError(f"--map {text[:80]}: write it as OURS=THEIRS, for example title=Name")
        columns[ours] = theirs
    return columns


columns_option = click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    callback=_columns,
    help="The catalogue's name of a column; repeatable.",
)


@cli.command()
@click.argument("catalog")
@columns_option
@click.option(
    "--inline/--by-path",
    default=True,
    show_default=True,
    help="Send the pictures of this machine along, or their paths for workers that see the same files.",
)
@click.option("--prune", is_flag=True, help="Withdraw the products that the catalogue does not have: it is complete.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until the catalog worker has encoded all."
)
def index(catalog: str, columns: dict[str, str], inline: bool, prune: bool, wait: bool) -> int:
    """Publish a catalogue, a file or an http(s) URL, to `product_pages`.

    It is a Google Merchant feed (XML, TSV), an export of Shopify or WooCommerce (CSV), or a table (CSV, TSV, JSON,
    JSON lines, Parquet) with the columns product_id, title and images, which --map may call otherwise. Products that
    cannot be used are named and left out. Those that the catalogue does not name stay as they are without --prune.
    """
    from workers.cli.products import publish_catalog

    return asyncio.run(
        publish_catalog(tool_settings(), catalog, inline=inline, wait=wait, columns=columns, prune=prune)
    )


@cli.command()
@click.argument("product_ids", nargs=-1, required=True, metavar="ID...")
def withdraw(product_ids: tuple[str, ...]) -> None:
    """Withdraw products: they are found in no stream any more."""
    from workers.cli.products import withdraw as withdraw_products

    asyncio.run(withdraw_products(tool_settings(), product_ids))
    click.echo(f"{len(product_ids)} products withdrawn")


@cli.group()
def streams() -> None:
    """Announce, end and list live streams."""


@streams.command("add", short_help="Announce that a stream is live.")
@click.argument("stream_id")
@click.argument("url")
@click.option("--language", help="The host's language, e.g. en or zh; detected if not given.")
@click.option("--products", help="The room's shopping bag: product ids separated by commas.")
@click.option("--realtime", is_flag=True, help="Play a file at the speed of its clock.")
def streams_add(stream_id: str, url: str, language: str | None, products: str | None, realtime: bool) -> None:
    """Announce that STREAM_ID is live at URL (rtmp, rtsp, srt, http, or a file that the capture worker can open)."""
    from workers.cli.publish import announce

    bag = tuple(part.strip() for part in products.split(",") if part.strip()) if products else None
    asyncio.run(announce(tool_settings(), stream_id, url, language=language, product_ids=bag, realtime=realtime))
    click.echo(f"{stream_id}: announced")


@streams.command("end", short_help="Announce that a stream is over.")
@click.argument("stream_id")
def streams_end(stream_id: str) -> None:
    """Announce that STREAM_ID is over: its capture stops, its sightings end."""
    from workers.cli.publish import announce_end

    asyncio.run(announce_end(tool_settings(), stream_id))
    click.echo(f"{stream_id}: ended")


@streams.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def streams_list(as_json: bool) -> None:
    """List announced streams with the state of their capture."""
    from workers.cli.publish import list_streams

    for line in asyncio.run(list_streams(tool_settings(), as_json=as_json)):
        click.echo(line)


@cli.group()
def topics() -> None:
    """Manage the topics of the flow."""


@topics.command("create", short_help="Create the topics that are missing.")
def topics_create() -> int:
    """Create the topics that are missing, with the partitions and retention of the design.

    Topics that are there with other settings are named, with the mend: status 1.
    """
    from topology.admin import other_settings, require_topics
    from topology.topics import TOPICS

    async def create(settings: "Settings") -> list[str]:
        await require_topics(settings)
        with suppress(Unavailable):
            return await other_settings(settings)
        return []

    lines = asyncio.run(create(tool_settings()))
    click.echo("\n".join([f"{len(TOPICS)} topics are there", *lines]))
    return 1 if lines else 0


@cli.command()
def config() -> None:
    """Print the effective settings, one a line, secrets hidden."""
    settings = load_settings()
    values: dict[str, Any] = settings.model_dump(mode="json")
    width = max(map(len, values)) + len("COPE_=")
    for name, field in type(settings).model_fields.items():
        origin = "set" if name in settings.model_fields_set else "default"
        shown = f"COPE_{name.upper()}={'' if values[name] is None else redacted(str(values[name]))}"
        click.echo(f"{shown:<{width + 12}}  # {origin}{'. ' + field.description if field.description else ''}")
