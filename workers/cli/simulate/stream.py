"""Makes one simulated stream: plan, speech, picture, truth."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cope.errors import UserError as DataError
from cope.render.live_scene import LiveScene
from cope.render.lives import make_plan
from cope.render.phrases import Offer
from cope.render.synthetic import backgrounds
from cope.vision.cutouts import Cutout, Pixels, cutout_of
from cope.vision.decoding import SUFFIXES
from topology.errors import BadInput, UserError
from topology.records import PageImage, ProductPage
from workers.catalog.files import read_catalog
from workers.cli.simulate.recipe import Recipe
from workers.cli.simulate.sound import speak
from workers.cli.simulate.voices import voice_of
from workers.cli.simulate.writer import container_format, write_stream
from workers.cli.truth import Showing, StreamTruth, write_truth
from workers.images import is_url, load_image

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Simulated:
    """What was made: the truth, and what the host said when (in seconds)."""

    truth: StreamTruth
    said: tuple[tuple[float, str], ...]


def simulate(
    catalog: str | Path,
    target: str,
    recipe: Recipe | None = None,
    *,
    truth: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulated:
    """Renders a live-commerce stream from a catalogue.

    Args:
        catalog: Catalogue file.
        target: An .mp4, .mkv or .flv file, or an rtmp or rtmps URL, to which it is pushed in real time.
        recipe: What the stream is made from; None for the defaults.
        truth: File for the truth; None to write none.
        progress: Told how many frames are done, of how many.

    Raises:
        UserError: The catalogue, the recipe or the target is wrong.
    """
    recipe = recipe or Recipe()
    container_format(target)
    if truth and not truth.absolute().parent.is_dir():
        raise UserError(f"{truth}: its folder does not exist; create it first")
    pages = _chosen(catalog, read_catalog(catalog), recipe.products)
    voice = voice_of(recipe.language, recipe.voice, recipe.voices)
    try:
        photos = backgrounds(recipe.backgrounds)
    except DataError as error:
        raise UserError(str(error)) from error
    distractors = _things(recipe.distractors) if recipe.distractors else []

    offers = [
        Offer(
            page.product_id, page.attributes.get(f"title_{recipe.language}", page.title), page.price, page.description
        )
        for page in pages
    ]
    pictures = {page.product_id: page.images for page in pages}
    in_order = bool(recipe.products)
    plan = make_plan(np.random.default_rng([recipe.seed, 0]), offers, recipe, recipe.language, in_order=in_order)
    scene = LiveScene(
        plan,
        photos,
        lambda product_id: [
            cutout_of(load_image(image, transparency=True), product_id) for image in pictures[product_id]
        ],
        distractors=distractors,
        size=recipe.size,
        seed=recipe.seed,
        titles=recipe.titles,
    )

    def frame(number: int) -> Pixels:
        return scene.frame(number / recipe.fps, number)

    track, said = speak(plan.lines, voice, recipe.duration_s, recipe.seed)
    frames = round(recipe.duration_s * recipe.fps)
    told = (lambda done: progress(done, frames)) if progress else None
    try:
        write_stream(target, frame, frames, track, size=recipe.size, fps=recipe.fps, progress=told)
    except BadInput as error:
        raise UserError(f"{catalog}: {error}; mend the picture or remove it from the catalogue") from error

    showings = tuple(
        Showing(shown.offer.id, round(shown.showing.seen_from_s * 1000), round(shown.showing.seen_until_s * 1000))
        for shown in plan.shown
        if shown.offer is not None
    )
    made = StreamTruth(_stream_id(target), round(frames / recipe.fps * 1000), showings)
    if truth:
        write_truth(truth, [made])
    return Simulated(made, tuple(said))


def _chosen(catalog: str | Path, pages: Sequence[ProductPage], ids: Sequence[str]) -> Sequence[ProductPage]:
    by_id = {page.product_id: page for page in pages}
    unknown = [product_id for product_id in ids if product_id not in by_id]
    if unknown:
        raise UserError(f"{catalog}: no product {unknown[0]!r}, which the recipe names; mend one of them")
    chosen = [by_id[product_id] for product_id in ids] or list(pages)
    for page in chosen:
        if any(is_url(image.uri) for image in page.images):
            _log.info("product %s: its pictures are fetched", page.product_id)
    return chosen


def _things(folder: Path) -> list[Cutout]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of distractors; name a folder with JPEG, PNG or WebP files")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    try:
        things = [cutout_of(load_image(PageImage(uri=str(file)), transparency=True), file.stem) for file in files]
    except BadInput as error:
        raise UserError(f"{error}; mend or remove it") from error
    if not things:
        raise UserError(f"{folder}: no photo of a distractor; put JPEG, PNG or WebP files into it")
    return things


def _stream_id(target: str) -> str:
    """Returns a file's stem, or the last part of a URL, which is the stream's id in `watch`."""
    return Path(target.partition("://")[2].partition("?")[0] or target).stem if "://" in target else Path(target).stem
