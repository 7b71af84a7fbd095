"""The protocols: six directions, speech, few shots, rooms, the long tail. Each gives figures for tables and JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cope.domains import Domain
from cope.evaluation.few_shot import few_shot
from cope.evaluation.ranking import Ranks, Retrieval, ranks, room_ranks
from cope.evaluation.sets import CHAT, CHAT_NAMELESS, CHAT_NAMING, NAMED, EvaluationSet
from cope.evaluation.space import Side
from cope.evaluation.tail import PARTS, category_parts
from cope.keywords import SURE

LETTERS: dict[Domain, str] = {"page": "P", "video": "V", "live": "L"}
DIRECTIONS: tuple[tuple[Domain, Domain], ...] = (
    ("page", "video"),
    ("video", "page"),
    ("page", "live"),
    ("live", "page"),
    ("video", "live"),
    ("live", "video"),
)
SHOTS = (1, 2, 4, 8)
OWN_ROOMS = "rooms of the data"

Figures = dict[str, Any]


def label(direction: tuple[Domain, Domain]) -> str:
    """As in the paper's tables: "P→V"."""
    return f"{LETTERS[direction[0]]}→{LETTERS[direction[1]]}"


def search(sides: Mapping[Domain, Side], direction: tuple[Domain, Domain], device: torch.device) -> Ranks:
    """One direction. `Ranks.query` is the row of the evaluation set."""
    asked, gallery = sides[direction[0]], sides[direction[1]]
    found = ranks(asked.vectors.to(device), asked.products, gallery.vectors.to(device), gallery.products)
    return Ranks(asked.rows[found.query], found.first, found.average_precision)


def six(sides: Mapping[Domain, Side], device: torch.device) -> dict[str, Ranks]:
    """All six directions by label; those without a query that has a positive are left out."""
    found = {label(direction): search(sides, direction, device) for direction in DIRECTIONS}
    return {name: one for name, one in found.items() if len(one.query)}


def mean_r1(found: Mapping[str, Ranks]) -> float:
    """The mean of R@1 over directions: the one figure by which models are compared."""
    return sum(one.figures().r1 for one in found.values()) / max(len(found), 1)


def retrieval_figures(found: Mapping[str, Ranks], data: EvaluationSet) -> Figures:
    """Per direction R@1/5/10, mAP, the number of queries and the 95 % interval of R@1; and the means."""
    out: Figures = {}
    for name, one in found.items():
        domain = next(d for d, letter in LETTERS.items() if letter == name[0])
        hits = (one.first == 1).double()
        out[name] = plain(one.figures()) | {"r1_interval": interval(hits, data.products(domain)[one.query])}
    keys = ("r1", "r5", "r10", "map")
    out["mean"] = {key: sum(out[name][key] for name in found) / max(len(found), 1) for key in keys}
    return out


def plain(one: Retrieval) -> Figures:
    """For JSON."""
    values = asdict(one)
    values["map"] = values.pop("mean_average_precision")
    return values


def interval(values: Tensor, products: Tensor) -> float:
    """Half width of the 95 % interval of a mean over queries.

    The queries of a product stand or fall together, so products are what is drawn, not queries: the spread is that
    of the sums over products (the cluster-robust standard error).
    """
    if not len(values):
        return 0.0
    found, numbers = np.unique(products.numpy(), return_inverse=True)
    count, which = len(found), torch.from_numpy(numbers)
    if count < 2:
        return 0.0
    rest = torch.zeros(count, dtype=torch.float64).index_add_(0, which, values.double() - values.double().mean())
    return 1.96 * math.sqrt(float((rest**2).sum()) * count / (count - 1)) / len(values)


@dataclass(frozen=True)
class Difference:
    """How much better one reading of the same queries is than another.

    Attributes:
        mean: Mean difference of R@1, in [-1, 1]; None where nothing was compared.
        interval: Half width of its 95 % interval, over products; None likewise.
        queries: Compared.
    """

    mean: float | None
    interval: float | None
    queries: int


def difference(a: Ranks, b: Ranks, products: Tensor, among: Tensor) -> Difference:
    """R@1 of `a` less that of `b`, query by query.

    Args:
        a: One reading.
        b: The other.
        products: (rows,) int64 of the queries' domain.
        among: (rows,) bool, the queries that count; only those that are in both do.
    """
    hits = torch.full((2, len(products)), float("nan"), dtype=torch.float64)
    for side, one in enumerate((a, b)):
        hits[side, one.query] = (one.first == 1).double()
    change = hits[0] - hits[1]
    kept = among & change.isfinite()
    values = change[kept]
    if not len(values):
        return Difference(None, None, 0)
    return Difference(float(values.mean()), interval(values, products[kept]), len(values))


def speech_figures(variants: Mapping[str, Ranks], data: EvaluationSet, domain: Domain = "live") -> Figures:
    """What words do for a clip: each variant of what is said, on clips whose speech names the product and on the rest.

    Chatter is counted whole and by whether it says a name of the catalogue by chance, as "the cat walked over my
    keyboard" does where a cat is sold: then it speaks of another product, and more than pictures has to tell.

    Args:
        variants: Ranks of the same direction by variant; "none" is what all are compared with.
        data: Says which clips' speech names their product.
        domain: Domain of the queries.
    """
    naming, products = data.naming[domain], data.products(domain)
    everywhere = torch.ones_like(naming, dtype=torch.bool)
    groups = {"named": naming >= NAMED, "unnamed": naming == 0, "all": everywhere}
    readings = {variant: (one, everywhere) for variant, one in variants.items()}
    if CHAT in variants:
        by_chance = data.words[domain][CHAT].told >= SURE
        readings |= {CHAT_NAMELESS: (variants[CHAT], ~by_chance), CHAT_NAMING: (variants[CHAT], by_chance)}
    out: Figures = {}
    for group, clips in groups.items():
        rows: Figures = {}
        for reading, (one, heard) in readings.items():
            among = clips & heard
            figures = plain(one.figures(among))
            if figures["queries"]:
                rows[reading] = figures | {"over_none": asdict(difference(one, variants["none"], products, among))}
        if rows:
            out[group] = rows
    return out


def few_shot_figures(sides: Mapping[Domain, Side], ways: int, episodes: int, seed: int) -> Figures:
    """Few-shot classification in all six directions (shots from the first domain) for k = 1, 2, 4, 8."""
    out: Figures = {}
    for direction in DIRECTIONS:
        shots, asked = sides[direction[0]], sides[direction[1]]
        for k in SHOTS:
            one = few_shot(shots.vectors, shots.products, asked.vectors, asked.products, k, ways, episodes, seed)
            if one is not None:
                out.setdefault(label(direction), {})[str(k)] = asdict(one)
    return out


@dataclass(frozen=True)
class Rooms:
    """Who sells what.

    Attributes:
        name: For the report: the data's own rooms, or synthetic ones.
        products: Numbers by room.
        of_row: By domain, the room of each row, "" for none.
    """

    name: str
    products: Mapping[str, Sequence[int]]
    of_row: Mapping[Domain, Sequence[str]]


def rooms_of(data: EvaluationSet, size: int, seed: int) -> Rooms:
    """The data's own rooms (as LPR4M has them); else the products are dealt out to synthetic rooms of `size`."""
    products: dict[str, set[int]] = {}
    for domain, rooms in data.rooms.items():
        for room, product in zip(rooms, data.products(domain).tolist(), strict=True):
            if room and product >= 0:
                products.setdefault(room, set()).add(product)
    if products:
        return Rooms(OWN_ROOMS, {room: sorted(one) for room, one in products.items()}, data.rooms)
    order = np.random.default_rng(seed).permutation(len(data))
    # A last room of few products would be easier than the others, so what is left over is spread.
    count = max(1, len(data) // size)
    of_product = {int(p): f"synthetic-{i % count}" for i, p in enumerate(order)}
    dealt: dict[str, list[int]] = {}
    for product, room in of_product.items():
        dealt.setdefault(room, []).append(product)
    of_row = {d: [of_product.get(p, "") for p in data.products(d).tolist()] for d in data.views}
    return Rooms(f"synthetic rooms of about {size} products, dealt with seed {seed}", dealt, of_row)


def room_figures(sides: Mapping[Domain, Side], rooms: Rooms, device: torch.device) -> Figures:
    """Live clips and videos searched among the pages of their room."""
    out: Figures = {}
    gallery = sides["page"]
    vectors = gallery.vectors.to(device)
    for domain in ("live", "video"):
        asked = sides[domain]
        room = [rooms.of_row[domain][row] for row in asked.rows.tolist()]
        found = room_ranks(asked.vectors.to(device), asked.products, room, vectors, gallery.products, rooms.products)
        if len(found.query):
            out[f"{LETTERS[domain]}→P"] = plain(found.figures())
    sizes = [len(one) for one in rooms.products.values()]
    out["rooms"] = {"name": rooms.name, "count": len(sizes), "products": sum(sizes) / max(len(sizes), 1)}
    return out


def tail_figures(found: Mapping[str, Ranks], data: EvaluationSet) -> Figures:
    """Each direction by head, body and tail of the categories; empty if the data have none."""
    parts = category_parts(data.categories)
    out: Figures = {}
    for part in PARTS:
        members = torch.tensor([p == part for p in parts] + [False])  # the last for `NOBODY`
        if not bool(members.any()):
            continue
        categories = len({c for c, p in zip(data.categories, parts, strict=True) if p == part})
        rows: Figures = {"categories": categories, "products": int(members.sum())}
        for name, one in found.items():
            domain = next(d for d, letter in LETTERS.items() if letter == name[0])
            rows[name] = plain(one.figures(members[data.products(domain)]))
        out[part] = rows
    return out
