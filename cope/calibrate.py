"""Fits a model's calibration on streams of products that it was never trained on.

    python -m cope.calibrate MODEL --data DATA [--split val]

DATA is anything that `cope.train` takes. Of a folder of objects, streams are rendered as in service: a product is held
and moves, is laid down, other products stand about, things are held that are in no catalogue, speech names what is
shown, something else, or nothing. Of ROPE, LPR4M or a manifest they are made of recorded live clips and what was said
in them. The same frames are then read against many catalogues of 10 to 300 products, with the shown product in them
and without, or with a look-alike in its place; what is said goes through the words of that catalogue. What comes out
is written to the model's `calibration.json` (and so changes its version) and how well it holds to its card.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cope.data.showings import AT_A_STREAM, Known, Stream, open_showings
from cope.domains import Split
from cope.errors import UserError
from cope.evaluation.calibration import expected_calibration_error
from cope.evaluation.trust import probabilities
from cope.keywords import PrintedWords, Vocabulary, freshness, of_window, page_terms, query_terms, text_score
from cope.model.scoring import FEATURES, Calibration, MatchFeatures, match_features, with_rivals
from cope.runtime.command import AT_LEAST_0, Command, run
from cope.runtime.files import full_disk, write_text_whole
from cope.serving import artefact
from cope.serving.card import calibration_section, with_section
from cope.serving.encoder import Encoder, PageInput, PageOutput, WindowInput
from cope.towers.reading import PACKAGED, Line, open_reader

HOP_MS, WINDOW_MS, LOOK_BACK_MS = 2_000, 8_000, 20_000  # the defaults of service
LEAST_PRODUCTS = 24  # a catalogue of 10, and others that are shown and not in it
LEAST_SHOWINGS = AT_A_STREAM
CANDIDATES = 12  # per window, as many as recognition looks at closely
CATALOGUES = 36  # that each stream is read against: what is said differs in each, and is the noisiest of the features


@dataclass(frozen=True)
class Piece:
    """A piece of speech.

    Attributes:
        start_s: Media time at which it begins.
        end_s: And ends.
        keywords: As `cope.keywords` finds them in its transcript, with weights.
    """

    start_s: int
    end_s: int
    keywords: list[tuple[str, float]]


@dataclass(frozen=True)
class Sample:
    """One window and its candidates.

    Attributes:
        candidates: How well each fits.
        shown: Which of them is being shown; -1 for none of them.
    """

    candidates: list[MatchFeatures]
    shown: int


def samples(
    rng: np.random.Generator,
    encoder: Encoder,
    stream: Stream,
    products: Sequence[Known],
    pages: Sequence[PageOutput],
    catalogues: int,
    page_lines: Sequence[Sequence[str]] = (),
) -> list[Sample]:
    """Reads one stream against random catalogues: the closest candidates of every window, right and wrong.

    Args:
        rng: Draws the catalogues and what is said.
        encoder: Of the model.
        stream: To read.
        products: That may be in a catalogue.
        pages: Theirs.
        catalogues: How many.
        page_lines: What was read on each page's pictures, if the model reads words.
    """
    reader = open_reader(encoder.reading) if encoder.reading else None
    lines: list[list[Line]] = []
    out: list[Sample] = []
    frames, shown = [], []
    for picture, number in stream.frames:
        frames += encoder.encode_frames([picture])
        shown.append(number)
        is_read = reader is not None and 1000 * (len(frames) - 1) % HOP_MS == 0
        lines.append(reader.read_frame(picture, frames[-1].boxes[:1]) if reader and is_read else [])
    on_stream = sorted({i for i in shown if i >= 0})
    terms = [page_terms(p.name) for p in products]
    for _ in range(catalogues):
        catalogue = random_catalogue(rng, products, on_stream)
        vocabulary = vocabulary_of(products, catalogue)
        said = stream.said(shown, catalogue)
        pieces = [Piece(one.start_s, one.end_s, vocabulary.extract(one.text)) for one in said]
        printed = PrintedWords()
        for i in catalogue if reader else ():
            printed.add(products[i].id, [products[i].name], page_lines[i])
        fused = np.stack([pages[i].fused for i in catalogue]).astype(np.float32)
        for end_s in range(HOP_MS // 1000, len(frames) + 1, HOP_MS // 1000):
            newest = shown[end_s - HOP_MS // 1000 : end_s]
            if len(set(newest)) > 1:
                continue  # at the very moment of a change there is no right answer
            start_s = max(0, end_s - WINDOW_MS // 1000)
            window = [(1000 * s, frames[s].regions) for s in range(start_s, end_s)]
            keywords = heard(pieces, end_s)
            embedding = encoder.encode_windows([WindowInput(frames[start_s:end_s], keywords)])[0]
            query = query_terms(keywords)
            texts = [text_score(terms[i], query) for i in catalogue]
            best_text = max(texts)
            seen = printed.seen(
                [
                    (line.text, line.confidence * freshness(1000 * s, 1000 * end_s, WINDOW_MS, HOP_MS))
                    for s in range(start_s, end_s)
                    for line in lines[s]
                ]
            )
            reads = [seen[products[i].id].score if products[i].id in seen else 0.0 for i in catalogue]
            recent = np.concatenate([r for _, r in window[-HOP_MS // 1000 :]]).astype(np.float32)
            near = np.array(
                [float((recent @ pages[i].vectors.astype(np.float32).T).max(initial=-1.0)) for i in catalogue]
            )
            near = near + 0.3 * np.array(texts) + 0.3 * np.array(reads) + 0.1 * (fused @ embedding.astype(np.float32))
            chosen = np.argsort(-near, kind="stable")[:CANDIDATES]
            found = [
                match_features(
                    window,
                    1000 * end_s - HOP_MS,
                    embedding,
                    pages[catalogue[c]].vectors,
                    pages[catalogue[c]].fused,
                    texts[c],
                    best_text,
                    [f.salience for f in frames[start_s:end_s]],
                    reads[c],
                    max(reads),
                )
                for c in chosen
            ]
            right = [position for position, c in enumerate(chosen) if catalogue[c] == newest[0]]
            out.append(Sample(with_rivals(found), right[0] if right else -1))
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
    start_s = end_s - WINDOW_MS // 1000
    heard_s = start_s - LOOK_BACK_MS // 1000  # until then all is forgotten
    near = [(1000 * one.end_s, one.keywords) for one in pieces if one.end_s > heard_s and one.start_s < end_s]
    return of_window(near, 1000 * start_s, LOOK_BACK_MS)


def fit(found: Sequence[Sample], steps: int = 400) -> Calibration:
    """Multinomial logistic regression over "this candidate" and "none of them": what the filter over time weighs.

    The candidates of a window compete, so that of two that look alike the one that was named wins. No weight may
    be negative: better evidence never lowers a probability.
    """
    most = max(len(s.candidates) for s in found)
    x = torch.zeros(len(found), most, len(FEATURES), dtype=torch.float64)  # (N, C, F)
    real = torch.zeros(len(found), most, dtype=torch.bool)
    for row, sample in enumerate(found):
        values = [astuple(candidate) for candidate in sample.candidates]
        x[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
        real[row, : len(values)] = True
    target = torch.tensor([sample.shown + 1 for sample in found])
    spread = x[real].std(dim=0).clamp_min(1e-3)
    free = torch.full((x.shape[2],), -1.0, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free, bias], max_iter=steps, line_search_fn="strong_wolfe")
    none = torch.zeros(len(found), 1, dtype=torch.float64)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        weights = functional.softplus(free)
        scores = ((x / spread) @ weights + bias).masked_fill(~real, float("-inf"))
        value = functional.cross_entropy(torch.cat([none, scores], dim=1), target) + 1e-4 * (weights**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    weights = (functional.softplus(free) / spread).detach()
    # Nothing is known of a feature that never varies: words of a model that does not read.
    weights[x[real].std(dim=0) == 0] = 0.0
    shown = float((target > 0).sum()) / float(real.sum())
    return Calibration(
        {name: round(float(w), 5) for name, w in zip(FEATURES, weights, strict=True)},
        round(float(bias.detach()), 5),
        round(shown, 6),
    )


def figures(calibration: Calibration, found: Sequence[Sample]) -> dict[str, float]:
    """How well the probabilities of candidates hold on these windows."""
    stated: list[float] = []
    right: list[bool] = []
    for sample in found:
        stated += probabilities(calibration, sample.candidates)
        right += [position == sample.shown for position in range(len(sample.candidates))]
    p: NDArray[np.float64] = np.array(stated)
    y = np.array(right)
    sure = p >= 0.9
    return {
        "ece": expected_calibration_error(p.tolist(), y.tolist()),
        "precision_at_0.9": float(y[sure].mean()) if sure.any() else 0.0,
        "recall_at_0.9": float((sure & y).sum() / max(1, y.sum())),
        "recall_at_0.5": float(((p >= 0.5) & y).sum() / max(1, y.sum())),
        "precision_at_0.5": float(y[p >= 0.5].mean()) if (p >= 0.5).any() else 0.0,
        "windows": float(len(found)),
    }


def calibrate(
    encoder: Encoder, data: str, split: Split, showings: int, seed: int
) -> tuple[Calibration, dict[str, float], bool]:
    """Reads streams of one side of the split and fits; the figures come from every fifth stream, held out.

    With fewer than five streams nothing is held out: the figures are then of what was fitted on, and flatter.

    Args:
        encoder: Of the model.
        data: Folder or URL.
        split: Side of the split.
        showings: Products that are shown.
        seed: Of all draws.

    Returns:
        The calibration, figures, and whether these are of streams that were held out.

    Raises:
        UserError: There are too few products, or no window from which anything can be learned.
    """
    rng = np.random.default_rng(seed)
    shop = open_showings(data, split, rng, showings)
    products = shop.products
    if len(products) < LEAST_PRODUCTS:
        raise UserError(
            f"{data}: {len(products)} products with a page on the {split} side of the split, and calibration needs "
            f"{LEAST_PRODUCTS}; add some"
        )
    pages = encoder.encode_pages([PageInput(one.name, shop.page(number)) for number, one in enumerate(products)])
    reader = open_reader(encoder.reading) if encoder.reading else None
    page_lines = [reader.read_page(shop.page(number)) if reader else [] for number in range(len(products))]
    fitted: list[Sample] = []
    held_out: list[Sample] = []
    for number, stream in enumerate(shop.streams()):
        found = samples(rng, encoder, stream, products, pages, CATALOGUES, page_lines)
        (held_out if number % 5 == 4 else fitted).extend(found)
        print(f"calibrate  stream {number + 1} of {shop.count}", file=sys.stderr, flush=True)
    print(f"calibrate  data: {shop.counts}", file=sys.stderr, flush=True)
    if not any(one.shown >= 0 for one in fitted):
        raise UserError(f"{data}: no product with a page is seen in any live clip that can be read; add some")
    calibration = fit(fitted)
    return calibration, figures(calibration, held_out or fitted), bool(held_out)


@click.command("calibrate", cls=Command, help=__doc__, stopped="stopped; the model is as it was")
@click.argument("model")
@click.option("--data", required=True, metavar="FOLDER|URL", help="Objects, ROPE, LPR4M or a manifest.")
@click.option(
    "--split", type=click.Choice(("val", "test")), default="val", show_default=True, help="Side of the split."
)
@click.option(
    "--showings", type=click.IntRange(LEAST_SHOWINGS), default=90, show_default=True, help="Products that are shown."
)
@click.option("--seed", type=AT_LEAST_0, default=11, show_default=True, help="Seed of all draws.")
@click.option(
    "--read/--no-read", default=None, help="From now on the model reads words in pictures, or not. [as it does]"
)
def calibrate_command(model: str, data: str, split: Split, showings: int, seed: int, read: bool | None) -> None:
    """Fits a model's calibration."""
    encoder = Encoder(model)
    if read is not None:
        encoder.config = replace(encoder.config, reading=PACKAGED if read else "")
    calibration, found, held_out = calibrate(encoder, data, split, showings, seed)
    artefact.update(model, calibration=calibration, reading=encoder.reading)
    card = artefact.locate(model) / "README.md"
    if card.is_file():
        section = calibration_section(Path(data).resolve().name, split, found, held_out, encoder.reading)
        with full_disk(card):
            write_text_whole(card, with_section(card.read_text(encoding="utf-8"), section))
    of = "of streams held out" if held_out else "of the streams fitted on, none held out; give more --showings or data"
    print(f"{'  '.join(f'{k} {v:.3f}' for k, v in found.items())}  ({of})")
    print("weights", calibration.weights, "bias", calibration.bias)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(calibrate_command, "cope.calibrate", arguments)


if __name__ == "__main__":
    sys.exit(main())
