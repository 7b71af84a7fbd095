"""`cope-live events`: prints the events of `product_detected`, one JSON object a line."""

import asyncio

import click

from topology.admin import require_topics
from topology.codec import encode_value
from topology.records import ProductDetected
from topology.settings import Settings
from topology.topic_log import Follower, end_offsets, read_partition
from topology.topics import PRODUCT_DETECTED
from workers.cli.main import tool_settings


@click.command("events")
@click.option("--follow", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option("--new", is_flag=True, help="With --follow: new events only, not those that the topic holds.")
@click.option("--stream", "stream_id", help="Events of this stream only.")
def events_command(follow: bool, new: bool, stream_id: str | None) -> None:
    """Print the events of `product_detected`, one JSON object a line."""
    asyncio.run(_events(tool_settings(), stream_id, follow=follow or new, new=new))


async def _events(settings: Settings, stream_id: str | None, *, follow: bool, new: bool) -> None:
    def tell(event: ProductDetected | None) -> None:
        if event is not None and stream_id in (None, event.stream_id):
            click.echo(encode_value(event)[0].decode())

    await require_topics(settings)
    if follow:
        async for record in Follower(settings, PRODUCT_DETECTED, ProductDetected, from_beginning=not new):
            tell(record.value)
        return
    for partition in sorted(await end_offsets(settings, PRODUCT_DETECTED)):
        async for held in read_partition(settings, PRODUCT_DETECTED, partition, ProductDetected):
            tell(held.value)
