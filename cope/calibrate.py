"""Fits a model's calibration on streams of products that it was never trained on.

    python -m cope.calibrate MODEL --data DATA [--split val]

Streams are rendered as in service: a product is held and moves, is laid down, other products stand about, things are
held that are in no catalogue, speech names what is shown, something else, or nothing. The same frames are then read
against many catalogues of 10 to 300 products, with the shown product in them and without, or with a look-alike in its
place; what is said goes through the words of that catalogue. What comes out is written to the model's
`calibration.json` (and so changes its version).
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cope import artefact
from cope.command import ended
from cope.data.cutouts import Cutout, Pixels, thing
from cope.data.files import Folder
from cope.data.items import Counts
from cope.data.listing import local_folder, read_products
from cope.data.objects import Product, Split, read_backgrounds, siblings
from cope.data.speech import Talk, transcript
from cope.data.synthetic import (
    Placement,
    random_background,
    random_camera,
    random_placement,
    render_frame,
    render_page,
)
from cope.encoder import Encoder, FrameFeatures, PageInput, PageOutput, WindowInput
from cope.errors import UserError
from cope.evaluation.calibration import expected_calibration_error
from cope.evaluation.trust import probabilities
from cope.keywords import Vocabulary, of_window, page_terms, query_terms, text_score
from cope.scoring import FEATURES, Calibration, MatchFeatures, match_features, with_rivals

HOP_MS, WINDOW_MS, LOOK_BACK_MS = 2_000, 8_000, 20_000  # the defaults of service
SHOWING_S, GAP_S = 10, 4
LEAST_PRODUCTS = 24  # a catalogue of 10, and others that are shown and not in it
LEAST_SHOWINGS = 6  # a stream
CANDIDATES = 12  # per window, as many as recognition looks at closely
CATALOGUES = 36  # that each stream is read against: what is said differs in each, and is the noisiest of the features
PIECE_S = 6  # of speech that is transcribed at a time, as long as one is in service at most


@dataclass(frozen=True)
class Stream:
    """One rendered stream at 1 frame/s.

    Attributes:
        frames: What the encoder saw.
        shown: Per frame the product's index; -1 for none of the catalogue's.
    """

    frames: list[FrameFeatures]
    shown: list[int]


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


def render_stream(
    rng: np.random.Generator,
    encoder: Encoder,
    products: Sequence[Product],
    order: Sequence[int],
    photos: Sequence[Pixels],
) -> Stream:
    """Shows the products of `order` one after the other, with gaps; every sixth showing is of an unknown thing."""
    frames: list[FrameFeatures] = []
    shown: list[int] = []
    for number, index in enumerate(order):
        unknown = number % 6 == 5
        cutout = thing(rng) if unknown else products[index].cutout
        camera = replace(random_camera(rng), noise=float(rng.uniform(0, 3)), jpeg_quality=int(rng.integers(60, 95)))
        room = random_background(rng, photos, (640, 360))
        bystander = _bystander(rng, products, products[index].group)
        aside = random_placement(rng, (0.15, 0.35), 0.1)
        base = random_placement(rng, (0.25, 0.9), 0.35)
        for second in range(SHOWING_S + GAP_S):
            held = second < SHOWING_S
            items = [(bystander, aside)] if bystander else []
            if held:
                items.append((cutout, _moved(rng, base, second)))
            picture, _ = render_frame(rng, room, items, (640, 360), camera)
            frames += encoder.encode_frames([picture])
            shown.append(index if held and not unknown else -1)
    return Stream(frames, shown)


def _bystander(rng: np.random.Generator, products: Sequence[Product], group: str) -> Cutout | None:
    """What stands about in half of the showings: a thing of no catalogue, or as often a product that is not shown."""
    roll = rng.random()
    others = [product.cutout for product in products if product.group != group] if roll < 0.25 else []
    if others:
        return others[int(rng.integers(len(others)))]
    return thing(rng) if roll < 0.5 else None


def _moved(rng: np.random.Generator, base: Placement, second: int) -> Placement:
    """Where a held thing is a moment later: it sways, turns, comes nearer, and a hand passes over it now and then."""
    swing = np.sin(second / 2.0)
    return replace(
        base,
        x=float(np.clip(base.x + 0.08 * swing + rng.normal(0, 0.02), 0.1, 0.9)),
        y=float(np.clip(base.y + rng.normal(0, 0.03), 0.15, 0.85)),
        scale=base.scale * float(1 + 0.15 * swing),
        rotation_deg=base.rotation_deg + float(10 * swing + rng.normal(0, 3)),
        turn_deg=float(np.clip(base.turn_deg + 15 * swing, -50, 50)),
        cover=base.cover if rng.random() < 0.7 else 0.0,
    )


def samples(
    rng: np.random.Generator,
    encoder: Encoder,
    stream: Stream,
    products: Sequence[Product],
    pages: Sequence[PageOutput],
    catalogues: int,
    split: Split,
) -> list[Sample]:
    """Reads one stream against random catalogues: the closest candidates of every window, right and wrong."""
    out: list[Sample] = []
    on_stream = sorted({i for i in stream.shown if i >= 0})
    terms = [page_terms(p.name) for p in products]
    for _ in range(catalogues):
        catalogue = random_catalogue(rng, products, on_stream)
        pieces = speech(rng, stream.shown, products, catalogue, split)
        fused = np.stack([pages[i].fused for i in catalogue]).astype(np.float32)
        for end_s in range(HOP_MS // 1000, len(stream.frames) + 1, HOP_MS // 1000):
            newest = stream.shown[end_s - HOP_MS // 1000 : end_s]
            if len(set(newest)) > 1:
                continue  # at the very moment of a change there is no right answer
            start_s = max(0, end_s - WINDOW_MS // 1000)
            window = [(1000 * s, stream.frames[s].regions) for s in range(start_s, end_s)]
            keywords = heard(pieces, end_s)
            embedding = encoder.encode_windows([WindowInput(stream.frames[start_s:end_s], keywords)])[0]
            query = query_terms(keywords)
            texts = [text_score(terms[i], query) for i in catalogue]
            best_text = max(texts)
            recent = np.concatenate([r for _, r in window[-HOP_MS // 1000 :]]).astype(np.float32)
            near = np.array([float((recent @ pages[i].vectors.astype(np.float32).T).max()) for i in catalogue])
            near = near + 0.3 * np.array(texts) + 0.1 * (fused @ embedding.astype(np.float32))
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
                    [f.salience for f in stream.frames[start_s:end_s]],
                )
                for c in chosen
            ]
            right = [position for position, c in enumerate(chosen) if catalogue[c] == newest[0]]
            out.append(Sample(with_rivals(found), right[0] if right else -1))
    return out


def random_catalogue(rng: np.random.Generator, products: Sequence[Product], on_stream: Collection[int]) -> list[int]:
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


def vocabulary_of(products: Sequence[Product], catalogue: Sequence[int]) -> Vocabulary:
    """The words of the pages of a catalogue: of others nothing is known, as in service."""
    vocabulary = Vocabulary()
    for index in catalogue:
        vocabulary.add(products[index].id, products[index].name)
    return vocabulary


def speech(
    rng: np.random.Generator,
    shown: Sequence[int],
    products: Sequence[Product],
    catalogue: Sequence[int],
    split: Split,
) -> list[Piece]:
    """What is said in a stream, as service hears it: a third of the streams is silent, else the host goes on talking.

    Hosts name what they show, or other things, or chat. Between showings they also name what they have just shown or
    will show next.
    """
    if rng.random() < 0.33:
        return []
    vocabulary = vocabulary_of(products, catalogue)
    pieces: list[Piece] = []
    start_s = int(rng.integers(PIECE_S))
    while start_s < len(shown):
        talk, about = _topic(rng, shown, min(start_s + PIECE_S // 2, len(shown) - 1), catalogue)
        text = transcript(rng, [products[index].name for index in about], talk, split)
        pieces.append(Piece(start_s, start_s + PIECE_S, vocabulary.extract(text)))
        start_s += PIECE_S + int(rng.integers(PIECE_S))
    return pieces


def _topic(
    rng: np.random.Generator, shown: Sequence[int], at_s: int, catalogue: Sequence[int]
) -> tuple[Talk, Sequence[int]]:
    """What the host talks about at a time, and the products of which one is named."""
    if shown[at_s] >= 0:
        near, share = [shown[at_s]], 0.6
    else:
        before = [index for index in shown[:at_s] if index >= 0]
        after = [index for index in shown[at_s:] if index >= 0]
        near, share = before[-1:] + after[:1], 0.4
    roll = rng.random()
    if roll < share and near:
        return "named", near
    return ("other", catalogue) if roll < share + 0.1 else ("chat", ())


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
    encoder: Encoder, data: Path, split: Split, showings: int, seed: int
) -> tuple[Calibration, dict[str, float]]:
    """Renders streams of one side of the split and fits; the figures come from every fifth stream, held out."""
    rng = np.random.default_rng(seed)
    counts = Counts()
    products = read_products(data, split, counts)
    print(f"calibrate  data: {counts}", file=sys.stderr, flush=True)
    products += siblings(rng, products, len(products) // 3)
    if len(products) < LEAST_PRODUCTS:
        raise UserError(
            f"{data}: {len(products)} products on the {split} side of the split, and calibration needs "
            f"{LEAST_PRODUCTS}; add objects to objects.jsonl"
        )
    photos = read_backgrounds(data, split)
    pages = encoder.encode_pages([PageInput(p.name, [render_page(rng, p.cutout) for _ in range(2)]) for p in products])
    order = [int(i) for i in rng.permutation(len(products))[:showings]]
    fitted: list[Sample] = []
    held_out: list[Sample] = []
    for number, at in enumerate(range(0, len(order), 6)):
        stream = render_stream(rng, encoder, products, order[at : at + 6], photos)
        found = samples(rng, encoder, stream, products, pages, CATALOGUES, split)
        (held_out if number % 5 == 4 else fitted).extend(found)
        print(f"calibrate  stream {number + 1} of {(len(order) + 5) // 6}", file=sys.stderr, flush=True)
    calibration = fit(fitted)
    return calibration, figures(calibration, held_out or fitted)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cope.calibrate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="an artefact's folder")
    parser.add_argument("--data", required=True, help="a folder with objects.jsonl and backgrounds")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="products to show (default: val)")
    parser.add_argument("--showings", type=int, default=90, help="products shown, 14 s each (default: 90)")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args(arguments)
    return ended("cope.calibrate", lambda: _calibrate(args), "stopped; the model is as it was")


def _calibrate(args: argparse.Namespace) -> int:
    for name, least in {"showings": LEAST_SHOWINGS, "seed": 0}.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)}: give {least} or more")
    encoder = Encoder(args.model)
    calibration, found = calibrate(encoder, local_folder(Folder(args.data)), args.split, args.showings, args.seed)
    artefact.update(args.model, calibration=calibration)
    print("  ".join(f"{k} {v:.3f}" for k, v in found.items()))
    print("weights", calibration.weights, "bias", calibration.bias)
    return 0


if __name__ == "__main__":
    sys.exit(main())
