"""The command `cope-live watch`."""

import asyncio
from pathlib import Path

import click

from topology.settings import load_settings
from workers.cli.main import columns_option


@click.command("watch")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--catalog", required=True, help="The products: a file or an http(s) URL, as `index` takes it.")
@columns_option
@click.option(
    "--events", type=click.Path(path_type=Path), help="Write each product_detected event to this file, one JSON a line."
)
@click.option("--realtime", is_flag=True, help="Play files at the speed of their clock instead of as fast as possible.")
@click.option(
    "--page", is_flag=True, help="Serve a page of what is recognised and why; after the sources, until Ctrl-C."
)
@click.option("--language", help="The hosts' language, e.g. en or zh; detected if not given.")
@click.option("--model", help="A COPE artefact: a folder, or `cope-mini` (default: COPE_MODEL).")
def watch_command(
    sources: tuple[str, ...],
    catalog: str,
    columns: dict[str, str],
    events: Path | None,
    realtime: bool,
    page: bool,
    language: str | None,
    model: str | None,
) -> int:
    """Recognise the products of a catalogue in streams, with all roles in this process.

    SOURCE is a video file or a URL (rtmp, rtsp, srt, HLS, HTTP-FLV). A stream is called by its file's stem or the
    last part of its URL; NAME=SOURCE calls it otherwise.

    Without COPE_BROKER and COPE_QDRANT_URL, a broker and an index are embedded and leave nothing behind. The command
    ends when its sources end: status 0 if all was processed, 1 if a stream failed on the way, 2 if there was
    nothing that it could play.
    """
    from workers.cli.watch.session import watch

    settings = load_settings(**({"model": model} if model else {}))
    result = asyncio.run(
        watch(
            settings,
            sources,
            catalog,
            columns=columns,
            events_path=events,
            realtime=realtime,
            page=page,
            language=language,
        )
    )
    return result.status
