"""Fits a model's calibration on streams of products that it was never trained on.

    python -m cope.calibrate MODEL --data DATA [--split val]

DATA is anything that `cope.train` takes. Of a folder of objects, streams are rendered as in service: a product is held
and moves, is laid down, other products stand about, things are held that are in no catalogue, speech names what is
shown, something else, or nothing. Of ROPE, LPR4M or a manifest they are made of recorded live clips and what was said
in them. The same frames are then read against many catalogues of 10 to 300 products, with the shown product in them
and without, or with a look-alike in its place; what is said goes through the words of that catalogue. What comes out
is written to the model's `calibration.json` (and so changes its version) and how well it holds to its card.

A model's scores flatter what it was trained on. One that has learned from the products that are shown is calibrated on
the windows of a twin, trained by the same recipe without them: `--twin FOLDER`.

`--handicaps` fits nothing. Of clips that people have judged it finds the products that are believed where they are not
shown, and takes from the log-odds of each what it takes to mend that. Other products are recognised as before.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cope.data.showings import AT_A_STREAM, Known, Showings, Stream, open_showings, refused
from cope.data.showings import Line as Said
from cope.domains import Split
from cope.errors import UserError
from cope.evaluation.calibration import expected_calibration_error
from cope.evaluation.trust import probabilities
from cope.keywords import (
    PrintedWords,
    Vocabulary,
    faded,
    freshness,
    of_window,
    page_terms,
    query_terms,
    read_scores,
    text_score,
    title_score,
)
from cope.model.beliefs import THRESHOLD, next_beliefs
from cope.model.scoring import Calibration, closest, match_features, speech_scores
from cope.runtime.command import AT_LEAST_0, Command, run
from cope.runtime.files import full_disk, write_text_whole
from cope.serving import artefact
from cope.serving.card import calibration_section, with_section
from cope.serving.encoder import Encoder, FrameFeatures, PageInput, PageOutput
from cope.towers.reading import PACKAGED, Line, open_reader
from cope.training.odds import Sample, fit

HOP_MS, WINDOW_MS, LOOK_BACK_MS = 2_000, 8_000, 20_000  # the defaults of service
LEAST_PRODUCTS = 12  # a catalogue of 10, and others that are shown and not in it
LEAST_SHOWINGS = AT_A_STREAM
# A mistake is to stay well below `THRESHOLD`: in service its windows end at other moments.
MISTAKEN = 0.25
HANDICAPS = tuple(0.25 * step for step in range(25))
CATALOGUES = 16  # that each stream is read against: what is said differs in each, and is the noisiest of the features


@dataclass(frozen=True)
class Piece:
    """A piece of speech.

    Attributes:
        start_s: Media time at which it begins.
        end_s: And ends.
        keywords: As `cope.keywords` finds them in its transcript, with weights.
        meaning: (D,) float16: of the transcript.
    """

    start_s: int
    end_s: int
    keywords: list[tuple[str, float]]
    meaning: NDArray[np.float16]


@dataclass(frozen=True)
class Shop:
    """The products that may be in a catalogue, and what their pages give.

    Attributes:
        products: By number.
        pages: The encoded page of each.
        lines: What was read on each page's pictures, if the model reads words.
        terms: The weighted terms of each page.
    """

    products: Sequence[Known]
    pages: Sequence[PageOutput]
    lines: Sequence[Sequence[str]]
    terms: Sequence[Mapping[int, float]]


@dataclass(frozen=True)
class Watched:
    """A stream, or a clip of one, as the model sees it: a frame a second.

    Attributes:
        frames: Features of each.
        lines: What was read in each.
        shown: The number of the product in each; see `cope.data.showings.Stream`.
    """

    frames: Sequence[FrameFeatures]
    lines: Sequence[Sequence[Line]]
    shown: Sequence[int]

    def part(self, start_s: int, end_s: int) -> "Watched":
        """Returns the frames from one second to another."""
        return Watched(self.frames[start_s:end_s], self.lines[start_s:end_s], self.shown[start_s:end_s])


def watch(encoder: Encoder, stream: Stream) -> Watched:
    """Describes all frames of a stream, and reads one of each hop."""
    reader = open_reader(encoder.reading) if encoder.reading else None
    frames: list[FrameFeatures] = []
    lines: list[list[Line]] = []
    shown: list[int] = []
    for picture, number in stream.frames:
        frames += encoder.encode_frames([picture])
        shown.append(number)
        is_read = reader is not None and 1000 * (len(frames) - 1) % HOP_MS == 0
        lines.append(reader.read_frame(picture, frames[-1].boxes[:1]) if reader and is_read else [])
    return Watched(frames, lines, shown)


def samples(
    rng: np.random.Generator, encoder: Encoder, stream: Stream, watched: Watched, shop: Shop, catalogues: int
) -> list[Sample]:
    """Reads one stream against random catalogues: the closest candidates of every window, right and wrong.

    Args:
        rng: Draws the catalogues and what is said.
        encoder: Of the model.
        stream: To read.
        watched: The same, as the model sees it.
        shop: Products that may be in a catalogue.
        catalogues: How many.
    """
    on_stream = sorted({i for i in watched.shown if i >= 0})
    denied = sorted({refused(i) for i in watched.shown} - {-1})
    out: list[Sample] = []
    for _ in range(catalogues):
        catalogue = random_catalogue(rng, shop.products, on_stream)
        catalogue += [i for i in denied if i not in catalogue]
        out += read_against(encoder, watched, stream.said(watched.shown, catalogue), shop, catalogue)
    return out


def sightings(encoder: Encoder, stream: Stream, watched: Watched, shop: Shop) -> list[list[Sample]]:
    """Reads each recorded clip of a stream by itself against all products, as in service: its windows, in order."""
    catalogue = range(len(shop.products))
    found = []
    for said, start_s, end_s in zip(
        stream.said(watched.shown, catalogue), stream.clips, [*stream.clips[1:], len(watched.frames)], strict=True
    ):
        own = [replace(said, start_s=0, end_s=end_s - start_s)]
        found.append(read_against(encoder, watched.part(start_s, end_s), own, shop, catalogue))
    return [windows for windows in found if windows]


def read_against(
    encoder: Encoder, watched: Watched, said: Sequence[Said], shop: Shop, catalogue: Sequence[int]
) -> list[Sample]:
    """Reads a stream against one catalogue: the closest candidates of every window.

    Args:
        encoder: Of the model.
        watched: The stream.
        said: What is said in it.
        shop: All products.
        catalogue: The numbers of those that are in the catalogue.
    """
    products, pages, frames, shown = shop.products, shop.pages, watched.frames, watched.shown
    vocabulary = vocabulary_of(products, catalogue)
    meanings = encoder.encode_speech([one.text for one in said])
    pieces = [
        Piece(one.start_s, one.end_s, vocabulary.extract(one.text), meaning)
        for one, meaning in zip(said, meanings, strict=True)
    ]
    printed = PrintedWords()
    for i in catalogue if encoder.reading else ():
        printed.add(products[i].id, [products[i].name], shop.lines[i])
    out: list[Sample] = []
    for end_s in range(HOP_MS // 1000, len(frames) + 1, HOP_MS // 1000):
        newest = shown[end_s - HOP_MS // 1000 : end_s]
        if len(set(newest)) > 1:
            continue  # at the very moment of a change there is no right answer
        start_s = max(0, end_s - WINDOW_MS // 1000)
        window = [(1000 * s, frames[s].regions) for s in range(start_s, end_s)]
        keywords = heard(pieces, end_s)
        query = query_terms(keywords)
        texts = [text_score(shop.terms[i], query) for i in catalogue]
        named = [title_score([products[i].name], query) for i in catalogue]
        speech = speech_scores(meant(pieces, end_s), [pages[i].text for i in catalogue])
        seen = printed.seen(
            [
                (line.text, line.confidence * freshness(1000 * s, 1000 * end_s, WINDOW_MS, HOP_MS))
                for s in range(start_s, end_s)
                for line in watched.lines[s]
            ]
        )
        reads = read_scores(seen, (products[i].id for i in catalogue))
        pictures = [pages[i].vectors for i in catalogue]
        found = match_features(window, 1000 * end_s - HOP_MS, pictures, texts, named, reads, speech)
        chosen = closest(found)
        candidates = [found[c] for c in chosen]
        names = tuple(products[catalogue[c]].id for c in chosen)
        places = {catalogue[c]: position for position, c in enumerate(chosen)}
        wrong = refused(newest[0])
        if wrong < 0:
            out.append(Sample(candidates, places.get(newest[0], -1), products=names))
        elif wrong in places:
            out.append(Sample(candidates, -1, places[wrong], names))
    return out


def random_catalogue(rng: np.random.Generator, products: Sequence[Known], on_stream: Collection[int]) -> list[int]:
    """Ten to 300 products, with about half of those on the stream; the rest of these must be refused.

    Where they have a look-alike, half the time it is there in their place: nothing is harder to refuse.
    """
    size = int(np.exp(rng.uniform(np.log(10), np.log(min(300, len(products))))))
    known = [i for i in sorted(on_stream) if rng.random() < 0.6]
    left_out = {products[i].group for i in on_stream if i not in known}
    others = [int(i) for i in rng.permutation(len(products)) if i not in on_stream]
    alike = [i for i in others if products[i].group in left_out and rng.random() < 0.5]
    rest = [i for i in others if i not in alike][: max(2, size - len(known) - len(alike))]
    return [*known, *alike, *rest]


def vocabulary_of(products: Sequence[Known], catalogue: Sequence[int]) -> Vocabulary:
    """The words of the pages of a catalogue: of others nothing is known, as in service."""
    vocabulary = Vocabulary()
    for index in catalogue:
        vocabulary.add(products[index].id, products[index].name)
    return vocabulary


def heard(pieces: Sequence[Piece], end_s: int) -> list[tuple[str, float]]:
    """Keywords of the window that ends at `end_s` and of its look-back, best first; see `cope.keywords.of_window`."""
    near = [(1000 * one.end_s, one.keywords) for one in _near(pieces, end_s)]
    return of_window(near, 1000 * end_s - WINDOW_MS, LOOK_BACK_MS)


def meant(pieces: Sequence[Piece], end_s: int) -> list[tuple[NDArray[np.float16], float]]:
    """What was said in the same time by its meaning, with weights; see `cope.keywords.faded`."""
    start_ms = 1000 * end_s - WINDOW_MS
    near = [one for one in _near(pieces, end_s) if one.meaning.size]
    return [(one.meaning, faded(1000 * one.end_s, start_ms, LOOK_BACK_MS)) for one in near]


def _near(pieces: Sequence[Piece], end_s: int) -> list[Piece]:
    """Those of the window that ends at `end_s`, and of its look-back."""
    forgotten_s = end_s - (WINDOW_MS + LOOK_BACK_MS) // 1000
    return [one for one in pieces if one.end_s > forgotten_s and one.start_s < end_s]


def handicaps(calibration: Calibration, told: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """Returns what it takes, product by product, that none is believed where it is not shown.

    The most believed mistake comes first. Its product gets the handicap with which the fewest sightings are judged
    wrongly, and the least of these: one that would lose more right sightings than it mends is not given.

    Args:
        calibration: Whose handicaps other products keep.
        told: The windows of each sighting, in order, against all products.
    """
    given = dict(calibration.handicaps)
    settled: set[str] = set()
    while True:
        now = replace(calibration, handicaps=given)
        mistakes = {
            product: belief
            for windows in told
            for product, belief in peaks(now, windows).items()
            if belief >= MISTAKEN and product not in settled and _denies(windows[0], product)
        }
        if not mistakes:
            return {product: handicap for product, handicap in given.items() if handicap}
        product = max(mistakes, key=lambda one: mistakes[one])
        settled.add(product)
        errors = [_errors(replace(now, handicaps={**given, product: one}), told, product) for one in HANDICAPS]
        given[product] = HANDICAPS[errors.index(min(errors))]


def _errors(calibration: Calibration, told: Sequence[Sequence[Sample]], product: str) -> int:
    """The number of sightings in which a product is believed though it is not shown, or not believed though it is."""
    count = 0
    for windows in told:
        belief = peaks(calibration, windows).get(product, 0.0)
        first = windows[0]
        if first.shown >= 0 and first.products[first.shown] == product:
            count += belief < THRESHOLD
        elif _denies(first, product):
            count += belief >= MISTAKEN
    return count


def peaks(calibration: Calibration, windows: Sequence[Sample]) -> dict[str, float]:
    """The highest belief in each product over the windows of a sighting."""
    beliefs: dict[str, float] = {}
    best: dict[str, float] = {}
    for window in windows:
        odds = calibration.logits(window.candidates, window.products)
        beliefs = next_beliefs(beliefs, dict(zip(window.products, odds, strict=True)))
        best |= {name: max(best.get(name, 0.0), belief) for name, belief in beliefs.items()}
    return best


def _denies(window: Sample, product: str) -> bool:
    """Whether it is known that this product is not being shown."""
    if window.refused >= 0:
        return window.products[window.refused] == product
    return window.shown < 0 or window.products[window.shown] != product


def figures(calibration: Calibration, found: Sequence[Sample]) -> dict[str, float | None]:
    """How well the probabilities of candidates hold on these windows; None for what no window tells."""
    stated: list[float] = []
    right: list[bool] = []
    false: list[bool] = []  # of the windows that show nothing of the catalogue
    for sample in found:
        if sample.refused >= 0:
            continue  # of the other candidates nothing is known
        probability = probabilities(calibration, sample.candidates)
        stated += probability
        right += [position == sample.shown for position in range(len(sample.candidates))]
        if sample.shown < 0:
            false.append(max(probability, default=0.0) >= 0.5)
    p: NDArray[np.float64] = np.array(stated)
    y = np.array(right)

    def share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
        return float((of & among).sum() / among.sum()) if among.any() else None

    return {
        "ece": expected_calibration_error(p.tolist(), y.tolist()),
        "precision_at_0.9": share(y, p >= 0.9),
        "recall_at_0.9": share(p >= 0.9, y),
        "precision_at_0.5": share(y, p >= 0.5),
        "recall_at_0.5": share(p >= 0.5, y),
        "false_on_unlisted_at_0.5": sum(false) / len(false) if false else None,
        "windows": float(len(found)),
    }


@dataclass(frozen=True)
class Outcome:
    """A calibration, and how well it holds.

    Attributes:
        calibration: Fitted on all data.
        figures: By the name of the data, of the windows that were held out, or else of those fitted on.
        held_out: Whether they were held out.
    """

    calibration: Calibration
    figures: dict[str, dict[str, float | None]]
    held_out: bool


def calibrate(encoder: Encoder, data: Sequence[str], split: Split, showings: int, seed: int) -> Outcome:
    """Reads streams of one side of the split and fits; the figures come from every fifth stream, held out.

    Every data set counts alike, however many streams it has. With fewer than five streams of one nothing of it is held
    out: its figures are then of what was fitted on, and flatter.

    Args:
        encoder: Of the model.
        data: Folders or URLs.
        split: Side of the split.
        showings: Products that are shown, of each.
        seed: Of all draws.

    Raises:
        UserError: There are too few products, or no window from which anything can be learned.
    """
    rng = np.random.default_rng(seed)
    fitted: dict[str, list[Sample]] = {}
    held_out: dict[str, list[Sample]] = {}
    for one in data:
        name = Path(one).resolve().name
        fitted[name], held_out[name] = [], []
        opened = open_showings(one, split, rng, showings)
        shop = _shop(encoder, one, split, opened, LEAST_PRODUCTS)
        for number, (stream, watched) in enumerate(_watched(encoder, one, opened)):
            found = samples(rng, encoder, stream, watched, shop, CATALOGUES)
            (held_out if number % 5 == 4 else fitted)[name].extend(found)
    everything = [sample for found in fitted.values() for sample in found]
    if not any(max(sample.shown, sample.refused) >= 0 for sample in everything):
        raise UserError(f"{' and '.join(data)}: no product with a page is seen in any live clip that can be read")
    counts = [1.0 / len(found) for found in fitted.values() for _ in found]
    calibration = fit(everything, counts)
    measured = {name: figures(calibration, held_out[name] or fitted[name]) for name in fitted}
    return Outcome(calibration, measured, all(held_out.values()))


def judge(encoder: Encoder, data: Sequence[str], split: Split, showings: int, seed: int) -> list[list[Sample]]:
    """Reads each recorded clip against all products of its data, as `handicaps` wants it.

    Args:
        encoder: Of the model.
        data: Folders or URLs.
        split: Side of the split.
        showings: Clips that are read, of each.
        seed: Of the choice among more.

    Raises:
        UserError: There is no product with a page, or no clip that can be read.
    """
    rng = np.random.default_rng(seed)
    found: list[list[Sample]] = []
    for one in data:
        opened = open_showings(one, split, rng, showings, crossing=False)
        shop = _shop(encoder, one, split, opened, 1)
        for stream, watched in _watched(encoder, one, opened):
            found += sightings(encoder, stream, watched, shop)
    if not found:
        raise UserError(f"{' and '.join(data)}: there is no recorded live clip that can be read")
    return found


def _shop(encoder: Encoder, data: str, split: Split, showings: Showings, least: int) -> Shop:
    products = showings.products
    if len(products) < least:
        raise UserError(
            f"{data}: {len(products)} products with a page on the {split} side of the split, and calibration needs "
            f"{least}; add some"
        )
    shown = [showings.page(number) for number in range(len(products))]
    pages = encoder.encode_pages(
        [PageInput(one.name, images, one.text) for one, images in zip(products, shown, strict=True)]
    )
    reader = open_reader(encoder.reading) if encoder.reading else None
    lines = [reader.read_page(images) if reader else [] for images in shown]
    return Shop(products, pages, lines, [page_terms(one.name, description=one.text) for one in products])


def _watched(encoder: Encoder, data: str, showings: Showings) -> Iterator[tuple[Stream, Watched]]:
    for number, stream in enumerate(showings.streams()):
        yield stream, watch(encoder, stream)
        print(f"calibrate  stream {number + 1} of {showings.count}", file=sys.stderr, flush=True)
    print(f"calibrate  {data}: {showings.counts}", file=sys.stderr, flush=True)


def twin_of(encoder: Encoder, twin: str) -> Encoder:
    """Opens a twin, which reads words if the model does.

    Args:
        encoder: Of the model.
        twin: Name or folder of an artefact.

    Raises:
        UserError: It was made by another recipe, so its scores are none of the model's; or it is not there.
    """
    opened = Encoder(twin)
    opened.config = replace(opened.config, reading=encoder.reading)
    differ = [
        f"model.{name} {theirs} instead of {ours}"
        for (name, ours), theirs in zip(asdict(encoder.config).items(), asdict(opened.config).values(), strict=True)
        if theirs != ours
    ]
    differ += [
        f"{name} {getattr(opened, name)} instead of {getattr(encoder, name)}"
        for name in ("live_text", "modalities", "precision")
        if getattr(opened, name) != getattr(encoder, name)
    ]
    if differ:
        raise UserError(
            f"{twin} is no twin of {encoder.version}: {', '.join(differ)}; train it by the configuration of the model"
        )
    return opened


@click.command("calibrate", cls=Command, help=__doc__, stopped="stopped; the model is as it was")
@click.argument("model")
@click.option(
    "--data",
    required=True,
    multiple=True,
    metavar="FOLDER|URL",
    help="Objects, ROPE, LPR4M or a manifest. May be repeated: each counts alike.",
)
@click.option(
    "--split", type=click.Choice(("val", "test")), default="val", show_default=True, help="Side of the split."
)
@click.option(
    "--showings", type=click.IntRange(LEAST_SHOWINGS), default=90, show_default=True, help="Products that are shown."
)
@click.option("--seed", type=AT_LEAST_0, default=11, show_default=True, help="Seed of all draws.")
@click.option(
    "--handicaps",
    "only_handicaps",
    is_flag=True,
    help="Keep the calibration, and give a handicap to products that are believed where they are not shown.",
)
@click.option(
    "--twin",
    metavar="FOLDER",
    help="A model of the same recipe that was trained without the products that are shown: it looks at the streams.",
)
@click.option(
    "--read/--no-read", default=None, help="From now on the model reads words in pictures, or not. [as it does]"
)
def calibrate_command(
    model: str,
    data: Sequence[str],
    split: Split,
    showings: int,
    seed: int,
    only_handicaps: bool,
    twin: str | None,
    read: bool | None,
) -> None:
    """Fits a model's calibration."""
    encoder = Encoder(model)
    if not Path(model).is_dir():
        raise UserError(f"{model} is part of the package: copy {artefact.locate(model)} and calibrate the copy")
    if read is not None:
        encoder.config = replace(encoder.config, reading=PACKAGED if read else "")
    looks = twin_of(encoder, twin) if twin else encoder
    if only_handicaps:
        told = judge(looks, data, split, showings, seed)
        given = handicaps(encoder.calibration, told)
        artefact.update(model, calibration=replace(encoder.calibration, handicaps=given), reading=encoder.reading)
        print(f"clips: {len(told)}; products with a handicap: {len(given)}", *(f"{k} {v}" for k, v in given.items()))
        return
    outcome = calibrate(looks, data, split, showings, seed)
    artefact.update(model, calibration=outcome.calibration, reading=encoder.reading)
    card = artefact.locate(model) / "README.md"
    if card.is_file():
        section = calibration_section(split, outcome.figures, outcome.held_out, encoder.reading)
        if twin:
            section += f"\n\nThe windows are those of {looks.version}, a twin that was trained without these products."
        with full_disk(card):
            write_text_whole(card, with_section(card.read_text(encoding="utf-8"), section))
    of = "streams held out" if outcome.held_out else "streams fitted on, not all held out; give more --showings or data"
    for name, found in outcome.figures.items():
        values = "  ".join(f"{key} {'n/a' if value is None else f'{value:.3f}'}" for key, value in found.items())
        print(f"{name}: {values}  (of {of})")
    calibration = outcome.calibration
    print("weights", calibration.weights, "bias", calibration.bias, "hidden units", len(calibration.units))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(calibrate_command, "cope.calibrate", arguments)


if __name__ == "__main__":
    sys.exit(main())
