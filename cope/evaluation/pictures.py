"""Pictures for the report, as PNG: retrieval sheets, the reliability curve, the map by domain, bars of ablations."""

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cope.domains import DOMAINS, Domain
from cope.errors import UserError
from cope.evaluation.calibration import Bin
from cope.evaluation.sets import EvaluationSet
from cope.evaluation.space import Side

Pixels = NDArray[np.uint8]

TILE, FRAME, GAP, CAPTION = 150, 6, 8, 22  # pixels
GREEN, RED, GREY = (34, 150, 70), (206, 52, 48), (120, 120, 120)
COLOURS: dict[Domain, str] = {"page": "#1f77b4", "video": "#ff9f1c", "live": "#d1345b"}

# t-SNE of more takes minutes and shows no more; of fewer than this there is no map.
MAP_ITEMS, MAP_LEAST = 1500, 12


def sheet(rows: Sequence[tuple[Pixels | None, Sequence[tuple[Pixels | None, bool, float]]]]) -> bytes:
    """Queries beside their first results, right ones framed green, wrong ones red.

    Args:
        rows: Per query its picture, and of each result picture, whether it is right, and its score.
    """
    most = max(len(results) for _, results in rows)
    step = TILE + 2 * FRAME + GAP
    height, width = len(rows) * (step + CAPTION) + GAP, (most + 1) * step + 3 * GAP
    canvas = np.full((height, width, 3), 255, np.uint8)
    for number, (query, results) in enumerate(rows):
        y = GAP + number * (step + CAPTION)
        _place(canvas, query, (GAP, y), GREY, f"query {number + 1}")
        for place, (picture, right, score) in enumerate(results):
            x = 3 * GAP + (place + 1) * step
            _place(canvas, picture, (x, y), GREEN if right else RED, f"{'right' if right else 'wrong'} {score:.2f}")
    return _encoded(canvas)


def _place(
    canvas: Pixels, picture: Pixels | None, at: tuple[int, int], colour: tuple[int, int, int], caption: str
) -> None:
    x, y = at
    side = TILE + 2 * FRAME
    cv2.rectangle(canvas, (x, y), (x + side - 1, y + side - 1), colour, -1)
    inner = canvas[y + FRAME : y + FRAME + TILE, x + FRAME : x + FRAME + TILE]
    inner[:] = 245
    if picture is None:
        cv2.putText(canvas, "no picture", (x + 30, y + side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, GREY, 1, cv2.LINE_AA)
    else:
        zoom = TILE / max(picture.shape[:2])
        h, w = (max(1, round(n * zoom)) for n in picture.shape[:2])
        method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        top, left = (TILE - h) // 2, (TILE - w) // 2
        inner[top : top + h, left : left + w] = cv2.resize(picture, (w, h), interpolation=method)
    cv2.putText(canvas, caption, (x + 2, y + side + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _encoded(rgb: Pixels) -> bytes:
    _, buffer = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return bytes(buffer)


def reliability_picture(curve: Sequence[Bin]) -> bytes:
    """The reliability curve over a histogram of what was stated."""
    figure, (top, bottom) = _figure((4.6, 5.0), rows=2, heights=(3, 1))
    top.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="as stated")
    top.plot([b.stated for b in curve], [b.observed for b in curve], "o-", color="#1f77b4", label="observed")
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is shown")
    top.legend(frameon=False, loc="upper left")
    bottom.bar(
        [b.low for b in curve], [b.count for b in curve], [b.high - b.low for b in curve], align="edge", color="#9ec5e8"
    )
    bottom.set(xlim=(0, 1), yscale="log", xlabel="stated probability", ylabel="candidates")
    return _saved(figure)


def map_picture(sides: Mapping[Domain, Side], data: EvaluationSet, seed: int) -> bytes | None:
    """A t-SNE map of items: by domain, and by product for a dozen of them. None if there are too few items.

    Domains that lie apart are a gap that training has not closed; products that lie together are what it is for.
    """
    rng = np.random.default_rng(seed)
    products = sorted(set.intersection(*(set(sides[d].products.tolist()) for d in DOMAINS)))
    each = max(1, sum(len(sides[d].rows) for d in DOMAINS) // max(1, len(data)))
    chosen = [products[int(i)] for i in rng.permutation(len(products))[: max(12, MAP_ITEMS // each)]]
    kept = {d: torch.isin(sides[d].products, torch.tensor(chosen, dtype=torch.int64)) for d in DOMAINS}
    vectors = torch.cat([sides[d].vectors[kept[d]] for d in DOMAINS]).numpy()
    domain = np.repeat(DOMAINS, [int(kept[d].sum()) for d in DOMAINS])
    product = torch.cat([sides[d].products[kept[d]] for d in DOMAINS]).numpy()
    if len(vectors) < MAP_LEAST:
        return None
    if len(vectors) > 2 * MAP_ITEMS:
        some = np.sort(rng.choice(len(vectors), 2 * MAP_ITEMS, replace=False))
        vectors, domain, product = vectors[some], domain[some], product[some]
    manifold = _optional("sklearn.manifold")
    flat = manifold.TSNE(
        metric="cosine", init="random", perplexity=min(30, len(vectors) // 4), random_state=seed
    ).fit_transform(vectors)
    figure, (left, right) = _figure((11, 5.2), columns=2)
    for name in DOMAINS:
        at = domain == name
        left.scatter(flat[at, 0], flat[at, 1], s=7, color=COLOURS[name], label=name, linewidths=0)
    left.legend(frameon=False, markerscale=2)
    left.set_title(f"{len(set(product.tolist()))} products by domain", fontsize=10)
    right.scatter(flat[:, 0], flat[:, 1], s=5, color="#dddddd", linewidths=0)
    colours = _optional("matplotlib").colormaps["tab20"].colors
    marks: dict[Domain, str] = {"page": "s", "video": "^", "live": "o"}
    for number, one in enumerate(chosen[:12]):
        for name in DOMAINS:
            at = (product == one) & (domain == name)
            right.scatter(flat[at, 0], flat[at, 1], s=26, marker=marks[name], color=[colours[number]], linewidths=0)
    right.set_title("twelve of them by product (square: page, triangle: video, circle: live)", fontsize=10)
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
    return _saved(figure)


def bars_picture(names: Sequence[str], means: Sequence[float], errors: Sequence[float]) -> bytes:
    """Horizontal bars with error bars, the first name on top and the others beside its line."""
    figure, axes = _figure((8.5, 0.9 + 0.34 * len(names)))
    at = np.arange(len(names))[::-1]
    colours = ["#1f77b4"] + ["#9ec5e8"] * (len(names) - 1)
    axes.barh(at, means, xerr=errors if any(errors) else None, color=colours, height=0.7, ecolor="#555555", capsize=2)
    axes.axvline(means[0], color="#1f77b4", linewidth=1, linestyle="--")
    axes.set_yticks(at, names)
    axes.set(
        xlim=(0, max(m + e for m, e in zip(means, errors, strict=True)) * 1.12 + 1e-6),
        xlabel="mean R@1 over the six directions",
    )
    for y, value, error in zip(at, means, errors, strict=True):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the line would strike numbers through
        axes.text(value + error + max(means) * 0.015, y, f"{100 * value:.1f}", va="center", fontsize=8, bbox=box)
    return _saved(figure)


def _figure(size: tuple[float, float], rows: int = 1, columns: int = 1, heights: Sequence[int] = ()) -> tuple[Any, Any]:
    """A figure of its own: no global state of pyplot, no display."""
    figure = _optional("matplotlib.figure").Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, height_ratios=heights or None)
    for one in np.atleast_1d(axes).flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _saved(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _optional(module: str) -> Any:
    """A module of the extra `train`.

    Raises:
        UserError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise UserError(f"the report needs {package}; run: pip install 'cope-live[train]'") from None
