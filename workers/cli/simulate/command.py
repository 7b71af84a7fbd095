"""`cope-live simulate`."""

import dataclasses
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from workers.cli.simulate.recipe import LANGUAGES, Recipe, parse_size, read_recipe

_FILE = click.Path(path_type=Path)


@click.command("simulate")
@click.argument("catalog", type=_FILE)
@click.option("--out", required=True, metavar="FILE|URL", help="An .mp4, .mkv or .flv file, or an rtmp:// URL.")
@click.option("--truth", type=_FILE, help="Write what is shown when, as JSON lines, for `cope-live score`.")
@click.option("--recipe", "recipe_file", type=_FILE, help="TOML file with these options; those given here win.")
@click.option("--seed", type=int, help="Another seed makes another stream. [0]")
@click.option("--duration", "duration_s", type=float, metavar="SECONDS", help="Length of the stream. [90]")
@click.option("--language", type=click.Choice(LANGUAGES), help="Of the host's speech. [en]")
@click.option("--voice", metavar="NAME", help='A voice of that language, "default", or "none" for a silent stream.')
@click.option("--voices", type=_FILE, metavar="FOLDER", help="Kokoro's voice files, needed for Mandarin.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="In pixels. [640x360]")
@click.option("--titles", type=float, metavar="SHARE", help="Showings with the product's title on the screen. [0]")
@click.option("--distractors", type=_FILE, metavar="FOLDER", help="Photos of things that are not in the catalogue.")
@click.option("--backgrounds", type=_FILE, metavar="FOLDER", help="Photos of rooms; nine come with this package.")
def simulate_command(
    catalog: Path, out: str, truth: Path | None, recipe_file: Path | None, size: str | None, **given: Any
) -> None:
    """Render a live-commerce stream from a catalogue, with its truth.

    The stream shows products of CATALOG one after another: moved, turned, near and far, partly covered, before
    photographed rooms in which other things stand. Between them are stretches of chat without a product; in some of
    these the host shows a thing that is not in the catalogue. The host names most products while showing them, some
    before or after, and some never.

    The picture is H.264 with a keyframe every 2 s, the sound AAC. A file is written as fast as possible, a URL is
    served in real time.

    \b
    cope-live simulate samples/catalog.jsonl --out room.mp4 --truth room.truth.jsonl
    cope-live simulate samples/catalog.jsonl --out rtmp://localhost/live/room --duration 600
    """
    from workers.cli.simulate.stream import simulate

    recipe = read_recipe(recipe_file) if recipe_file else Recipe()
    changes = {name: value for name, value in given.items() if value is not None}
    if size:
        changes["size"] = parse_size(size)
    recipe = dataclasses.replace(recipe, **changes)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"rendering {out}", total=None)
        made = simulate(
            catalog,
            out,
            recipe,
            truth=truth,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    showings = made.truth.showings
    click.echo(f"{out}: {made.truth.duration_ms / 1000:.0f} s, {len(showings)} showings, {len(made.said)} sentences")
    if truth:
        click.echo(f"{truth}: the truth, for `cope-live score EVENTS {truth}`")
