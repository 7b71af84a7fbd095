"""All protocols on one model and one evaluation set."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from cope.domains import Domain
from cope.evaluation.calibration import curve_error, reliability
from cope.evaluation.measures import (
    Figures,
    few_shot_figures,
    mean_r1,
    retrieval_figures,
    room_figures,
    rooms_of,
    search,
    six,
    speech_figures,
    tail_figures,
)
from cope.evaluation.modalities import reading_figures
from cope.evaluation.pictures import map_picture, reliability_picture, sheet
from cope.evaluation.ranking import Ranks, nearest
from cope.evaluation.sets import CHAT, KEYWORDS, MISLED, RAW, EvaluationSet
from cope.evaluation.space import Kind, Space, Standard, embedded, frozen
from cope.evaluation.trust import stated
from cope.model.modeling import CopeModel
from cope.model.scoring import Calibration

KINDS: tuple[Kind, ...] = ("fused", "vision")
STANDARDS: tuple[Standard, ...] = ("raw", "all", "domain")
SHEETS: tuple[tuple[Domain, Domain], ...] = (("live", "page"), ("video", "page"), ("page", "live"))
SHEET_QUERIES, SHEET_RESULTS = 6, 6


@dataclass(frozen=True)
class Protocol:
    """Sizes of the protocols.

    Attributes:
        ways: Products of a few-shot episode.
        episodes: Episodes of few-shot classification, for each direction and number of shots.
        room_size: Products of a synthetic room, where the data have no rooms.
        seed: Seed of all draws.
        pictures: Whether to draw the map and the sheets.
    """

    ways: int = 50
    episodes: int = 200
    room_size: int = 20
    seed: int = 0
    pictures: bool = True


@dataclass(frozen=True)
class Sheet:
    """Some queries of a direction beside their first results.

    Attributes:
        direction: Domains of the queries and of the gallery.
        png: The picture.
        lines: What the picture of each query does not show.
    """

    direction: tuple[Domain, Domain]
    png: bytes
    lines: Sequence[str]


@dataclass(frozen=True)
class Drawn:
    """The pictures of a report, as PNG; None where there is nothing to draw."""

    curve: bytes | None
    map: bytes | None
    sheets: Sequence[Sheet]


def measure(
    model: CopeModel,
    calibration: Calibration,
    data: EvaluationSet,
    untuned: EvaluationSet,
    device: torch.device,
    protocol: Protocol,
    hears: bool = True,
) -> tuple[Figures, Drawn]:
    """Measures everything.

    Args:
        model: In evaluation mode, on `device`.
        calibration: Calibration of the model's scores.
        data: Saying what the model is to hear.
        untuned: The same items as the towers see them before any training; `data` where the model's are frozen.
        device: Where searches run.
        protocol: Sizes.
        hears: Whether the model was trained with words; else nothing is measured of speech.

    Returns:
        Figures by section, for JSON and tables; and pictures.
    """
    space = embedded(model, data, device)
    bare = {standard: frozen(untuned, standard) for standard in STANDARDS}
    found = {
        "fused": six(space.fused, device),
        "vision": six(space.vision, device),
        "frozen_fused": six(bare["all"].fused, device),
        "frozen_vision": six(bare["all"].vision, device),
    }
    figures: Figures = {
        "retrieval": {name: retrieval_figures(one, data) for name, one in found.items()},
        "gain_over_frozen": {
            standard: {kind: mean_r1(found[kind]) - mean_r1(six(one.of(kind), device)) for kind in KINDS}
            for standard, one in bare.items()
        },
        "speech": _speech(model, data, device) if hears else {},
        "reading": reading_figures(model, calibration, data, device, _says(data)) if data.read else {},
        "few_shot": few_shot_figures(space.fused, protocol.ways, protocol.episodes, protocol.seed),
        "rooms": room_figures(space.fused, rooms_of(data, protocol.room_size, protocol.seed), device),
        "tail": tail_figures(found["fused"], data),
    }
    probabilities, truths = stated(model, calibration, data, device, protocol.seed)
    curve = reliability(probabilities, truths)
    figures["calibration"] = {
        "ece": curve_error(curve),
        "bins": [asdict(b) for b in curve],
        "candidates": len(truths),
        "shown": sum(truths),
    }
    if not protocol.pictures:
        return figures, Drawn(None, None, [])
    sheets = [one for way in SHEETS if (one := _sheet(space, data, way, device, protocol.seed)) is not None]
    drawn = Drawn(reliability_picture(curve) if curve else None, map_picture(space.fused, data, protocol.seed), sheets)
    return figures, drawn


def _says(data: EvaluationSet) -> bool:
    """Whether anything is said in clips."""
    return any(bool(keywords) for domain in ("video", "live") for keywords in data.keywords[domain])


def _speech(model: CopeModel, data: EvaluationSet, device: torch.device) -> Figures:
    """Live clips among pages, by what is said with them; the pages stay as they are."""
    variants: dict[str, Ranks] = {}
    pages = embedded(model, data.only("page"), device).fused["page"]
    for variant in ("none", KEYWORDS, RAW, CHAT, MISLED):
        clips = embedded(model, data.saying(variant).only("live"), device).fused["live"]
        variants[variant] = search({"live": clips, "page": pages}, ("live", "page"), device)
    return speech_figures(variants, data)


def _sheet(
    space: Space, data: EvaluationSet, direction: tuple[Domain, Domain], device: torch.device, seed: int
) -> Sheet | None:
    """Half of the queries are found at once, half are not, as far as there are any."""
    asked, gallery = space.fused[direction[0]], space.fused[direction[1]]
    found = search(space.fused, direction, device)
    rng = np.random.default_rng(seed)
    right, wrong = (rng.permutation(found.query[at].numpy()) for at in (found.first == 1, found.first > 1))
    half = SHEET_QUERIES // 2
    chosen = [*right[: max(half, SHEET_QUERIES - len(wrong))], *wrong[: max(half, SHEET_QUERIES - len(right))]]
    if not chosen:
        return None
    rank = dict(zip(found.query.tolist(), found.first.tolist(), strict=True))
    place = {row: at for at, row in enumerate(asked.rows.tolist())}
    rows, lines = [], []
    for row in (int(r) for r in chosen):
        at = place[row]
        scores, results = nearest(asked.vectors[at : at + 1], gallery.vectors, SHEET_RESULTS)
        pictures = [
            (
                data.picture(direction[1], int(gallery.rows[result])),
                bool(gallery.products[result] == asked.products[at]),
                float(score),
            )
            for score, result in zip(scores[0], results[0].tolist(), strict=True)
        ]
        rows.append((data.picture(direction[0], row), pictures))
        first = data.texts[direction[1]][int(gallery.rows[results[0, 0]])]
        lines.append(
            f"{data.items[direction[0]][row]}, product {data.product_ids[int(asked.products[at])]}, right one at rank "
            f"{rank[row]}; query says {_quoted(data.texts[direction[0]][row])}, first result says {_quoted(first)}"
        )
    return Sheet(direction, sheet(rows), lines)


def _quoted(text: str, most: int = 90) -> str:
    text = " ".join(text.split())
    return f"“{text if len(text) <= most else text[: most - 1] + '…'}”" if text else "nothing"
