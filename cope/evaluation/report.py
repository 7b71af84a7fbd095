"""The report of an evaluation: an HTML file with its pictures inside, its figures as JSON, its sheets as PNG."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cope.errors import UserError
from cope.evaluation.measures import DIRECTIONS, SHOTS, Figures, label
from cope.evaluation.page import Page, change, percent
from cope.evaluation.pictures import bars_picture
from cope.evaluation.ranking import TIE
from cope.evaluation.sets import NAMED
from cope.evaluation.suite import Drawn
from cope.evaluation.trust import CATALOGUE
from cope.runtime.files import write_text_whole

_VARIANTS = {
    "none": "nothing (the paper's choice)",
    "keywords": "keywords, as in service",
    "raw": "raw transcript",
    "unrelated": "unrelated chatter",
    "unrelated_nameless": "- in which no name of the catalogue is heard",
    "unrelated_naming": "- in which one is heard by chance",
    "misled": "keywords of another product",
}
_STANDARDS = {
    "raw": "as they come",
    "all": "standardised over all items",
    "domain": "standardised domain by domain",
}
_MODALITIES = {
    "pictures": "pictures alone",
    "read": "words that are read alone",
    "pictures_read": "pictures and words that are read",
    "pictures_read_speech": "these and what is said",
}
_WEIGHED = {
    "calibration": "Clip and page fit by the log-odds of the model's calibration, as in recognition, all pages rivals.",
    "sum": (
        "The model's calibration gives read words no weight, so clip and page fit by the cosine of their pictures and "
        "0.3 of each score of words."
    ),
}
_GROUPS = {
    "named": "Clips whose speech names their product",
    "unnamed": "Clips whose speech says nothing of it, or nothing at all",
    "all": "All clips",
}


def write(out: Path, figures: Figures, drawn: Drawn) -> None:
    """Writes the report into a folder; sheets of an earlier one go.

    Raises:
        UserError: It cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        sheets = {sheet.direction: sheet.png for sheet in drawn.sheets}
        for direction in DIRECTIONS:
            file = out / "sheets" / f"{direction[0]}-{direction[1]}.png"
            if direction in sheets:
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(sheets[direction])
            else:
                file.unlink(missing_ok=True)
        for name, text in {
            "report.html": rendered(figures, drawn),
            "report.json": json.dumps(figures, indent=2, ensure_ascii=False) + "\n",
        }.items():
            write_text_whole(out / name, text)
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}; name another --out") from None


def rendered(figures: Figures, drawn: Drawn) -> str:
    """The report as HTML."""
    page = Page(f"COPE: {figures['model']} on {figures['data']}")
    _head(page, figures)
    if "ablations" in figures:
        _ablations(page, figures["ablations"])
    _retrieval(page, figures)
    if figures["speech"]:
        _speech(page, figures["speech"])
    if figures.get("reading"):
        _reading(page, figures["reading"])
    _few_shot(page, figures)
    _rooms(page, figures["rooms"])
    _tail(page, figures["tail"])
    _calibration(page, figures["calibration"], drawn.curve)
    if drawn.map is not None:
        page.heading("Map")
        page.note("t-SNE of fused vectors by cosine. Where domains lie apart, training has left a gap.")
        page.picture(drawn.map, "map of items by domain and by product")
    for sheet in drawn.sheets:
        page.heading(f"Sheet: {sheet.direction[0]} → {sheet.direction[1]}")
        page.note("A query, and its first results: right ones framed green, wrong ones red; the number is the cosine.")
        page.picture(sheet.png, f"retrieval sheet from {sheet.direction[0]} to {sheet.direction[1]}")
        page.items(sheet.lines)
    return page.html()


def _head(page: Page, figures: Figures) -> None:
    about, sampling = figures["about"], figures["sampling"]
    items = ", ".join(f"{count:,} {domain} items" for domain, count in about["items"].items())
    page.text(f"{about['products']:,} products, {items}. Data {figures['fingerprint'][:12]}, text: {figures['text']}.")
    notes = [f"At most {sampling['frames']} frames of a clip"]
    notes += [f"{sampling['products']} products drawn with seed {sampling['seed']}"] if sampling["products"] else []
    notes += [f"the first {sampling['items']} items of a product in each domain"] if sampling["items"] else []
    skipped = "; ".join(f"{count:,} {kind}" for kind, count in about["skipped"].items())
    page.note(f"{', '.join(notes)}. Skipped: {skipped or 'nothing'}.")
    if about["finder_recall"] is not None:
        page.note(
            f"The region finder covers the product (IoU of at least a half) in {percent(about['finder_recall'])} % of "
            f"{about['frames_with_box']:,} frames in which its box is known."
        )


def _ablations(page: Page, rows: Sequence[Figures]) -> None:
    page.heading("Baselines and ablations")
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    page.note(
        "Each is the full configuration with one thing changed. Mean R@1 over the six directions of what each model is "
        f"given, in percent; ± is the standard deviation over trainings with the seeds {seeds}. The difference to full "
        "is taken seed by seed. All items count: one of which a model is given nothing is not found. The first "
        "training of a kind also renders its features."
    )
    ways = [label(direction) for direction in DIRECTIONS if any(label(direction) in r["directions"] for r in rows)]
    page.table(
        ["", "mean R@1", "to full", "pictures alone", *ways, "trained"],
        [
            [
                row["says"],
                percent(row["r1"], row["r1_spread"]),
                "" if row["name"] == "full" else change(row["over_full"], row["over_full_spread"]),
                "–" if row["vision_r1"] is None else percent(row["vision_r1"]),
                *(percent(row["directions"][way]) if way in row["directions"] else "–" for way in ways),
                f"{row['train_s']:.0f} s" if row["train_s"] else "–",
            ]
            for row in rows
        ],
        strong=[number for number, row in enumerate(rows) if row["name"] == "full"],
    )
    picture = bars_picture([r["says"] for r in rows], [r["r1"] for r in rows], [r["r1_spread"] or 0.0 for r in rows])
    page.picture(picture, "mean R@1 of baselines and ablations")


def _retrieval(page: Page, figures: Figures) -> None:
    page.heading("Cross-domain retrieval")
    page.note(
        "P page, V short video, L live clip. A query is found at K if any of its positives is among the first K; mAP "
        "looks at all of them. Exact search over the whole gallery by cosine. Ties count against the model: a wrong "
        f"item within {TIE:g} of a right one stands before it. In percent; ± is the 95 % interval over products."
    )
    found = figures["retrieval"]
    kinds = (("fused", "picture and words"), ("vision", "picture alone"))
    for kind, says in kinds:
        rows = [
            [
                name,
                percent(one["r1"], one["r1_interval"]),
                *(percent(one[key]) for key in ("r5", "r10", "map")),
                f"{one['queries']:,}",
                *(percent(found[f"frozen_{kind}"][name][key]) for key in ("r1", "map")),
            ]
            for name, one in _directions(found[kind])
        ]
        mean, bare = found[kind]["mean"], found[f"frozen_{kind}"]["mean"]
        rows.append(
            [
                "mean",
                *(percent(mean[k]) for k in ("r1", "r5", "r10", "map")),
                "",
                percent(bare["r1"]),
                percent(bare["map"]),
            ]
        )
        head = [says, "R@1", "R@5", "R@10", "mAP", "queries", "frozen R@1", "frozen mAP"]
        page.table(head, rows, strong=[len(rows) - 1])
    gain = figures["gain_over_frozen"]
    page.text("Mean R@1 over that of the frozen towers, the same regions without any training:")
    page.table(
        ["frozen descriptors", "picture and words", "picture alone"],
        [[says, *(change(gain[key][kind]) for kind, _ in kinds)] for key, says in _STANDARDS.items()],
    )
    page.note(
        "Frozen descriptors are those of the towers before any training, also where the model has tuned them. They are "
        "averaged by salience and L2-normalised, text vectors put beside them. The frozen "
        "columns above are of those standardised over all items. Means and spreads are those of the evaluated items. "
        "Standardising each domain by itself takes the gap between domains away."
    )


def _directions(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, found[name]) for name in map(label, DIRECTIONS) if name in found]


def _speech(page: Page, speech: Figures) -> None:
    page.heading("What speech does for a live clip")
    page.note(
        "Live clips among pages, fused. The difference is to the same clips without words; ± is its 95 % interval over "
        f"products; a dash: without words the model is given nothing. Speech names "
        f"the product if its keywords score at least {NAMED:g} on a title (cope.keywords)."
    )
    for group, rows in speech.items():
        page.table(
            [f"{_GROUPS[group]}: what is said", "R@1", "mAP", "R@1 over nothing said", "queries"],
            [
                [
                    _VARIANTS[variant],
                    percent(one["r1"]),
                    percent(one["map"]),
                    "" if variant == "none" else _difference(one["over_none"]),
                    f"{one['queries']:,}",
                ]
                for variant, one in rows.items()
            ],
        )


def _difference(found: Mapping[str, Any]) -> str:
    return change(found["mean"], found["interval"]) if found["queries"] else "–"


def _reading(page: Page, reading: Figures) -> None:
    page.heading("Words that are read in pictures")
    page.note(
        f"{_WEIGHED[reading['weighed_by']]} Words are matched with titles and with what is read in the pictures of "
        f"pages. Read by {reading['reader']}: something in {reading['pages_with_words']:,} pages and "
        f"{reading['clips_with_words']:,} clips. R@1 in percent; ± is the 95 % interval over products."
    )
    kinds = reading["kinds"]
    ways = [name for name in ("L→P", "V→P", "P→L", "P→V") if any(name in one for one in kinds.values())]
    rows = [
        [
            _MODALITIES[kind],
            *(percent(one[way]["r1"], one[way]["r1_interval"]) if way in one else "–" for way in ways),
        ]
        for kind, one in kinds.items()
    ]
    queries = ["queries", *(f"{max(one[way]['queries'] for one in kinds.values() if way in one):,}" for way in ways)]
    page.table(["", *ways], [*rows, queries])


def _few_shot(page: Page, figures: Figures) -> None:
    found, protocol = figures["few_shot"], figures["protocol"]
    page.heading("Few-shot classification across domains")
    if not found:
        page.text("No direction has two products with enough items.")
        return
    page.note(
        "k items of each product from the first domain, items of the second are classified by the nearest mean. Mean "
        f"and 95 % interval over {protocol['episodes']} episodes, seed {protocol['seed']}; the number of products told "
        "apart in brackets. The interval is that of the draw; other products would differ by more. A dash: too few "
        "products have so many items."
    )
    rows = []
    for name, by_k in _directions(found):
        cells = [by_k.get(str(k)) for k in SHOTS]
        rows.append(
            [name, *("–" if c is None else f"{percent(c['mean'], c['interval'])} ({c['ways']})" for c in cells)]
        )
    page.table(["shots → queries", *(f"k = {k}" for k in SHOTS)], rows)


def _rooms(page: Page, found: Figures) -> None:
    rooms = found["rooms"]
    page.heading("Room galleries")
    page.note(
        "Each clip is searched among the pages of its own room's products only, as in LPR4M. "
        f"{rooms['count']:,} rooms of {rooms['products']:.1f} products on average: {rooms['name']}."
    )
    rows = [
        [name, *(percent(one[k]) for k in ("r1", "r5", "r10", "map")), f"{one['queries']:,}"]
        for name, one in _directions(found)
    ]
    page.table(["", "R@1", "R@5", "R@10", "mAP", "queries"], rows)


def _tail(page: Page, found: Figures) -> None:
    page.heading("Head, body and tail")
    if not found:
        page.text("The data name no categories.")
        return
    page.note(
        "Categories by their number of products in these data: the head holds the first third of all products, the "
        "body the second, the tail the rest. R@1, fused, by the query's product."
    )
    if "tail" in found and found["head"]["categories"] > 0.8 * found["tail"]["categories"]:
        page.note("The categories of these data are of about one size, so that the parts differ by little but chance.")
    names = [label(direction) for direction in DIRECTIONS if any(label(direction) in part for part in found.values())]
    rows = [
        [
            f"{name}: {part['categories']:,} categories, {part['products']:,} products",
            *(percent(part[way]["r1"]) if part[way]["queries"] else "–" for way in names),
        ]
        for name, part in found.items()
    ]
    page.table(["", *names], rows)


def _calibration(page: Page, found: Figures, curve: bytes | None) -> None:
    page.heading("Calibration")
    if not found["candidates"]:
        page.text("Too few products with a page and a live clip.")
        return
    page.text(
        f"Expected calibration error {found['ece']:.3f} over {found['candidates']:,} candidates, of which "
        f"{found['shown']:,} are shown."
    )
    page.note(
        f"Each live clip is read as a window against a random catalogue of {CATALOGUE} products, which in half of the "
        "cases lacks the shown one; the probabilities are those of the model's calibration.json. A clip is not a "
        "window of a stream, so this checks the calibration on other data than those it was fitted on."
    )
    if curve is not None:
        page.picture(curve, "reliability curve")
    _bins(page, found["bins"])


def _bins(page: Page, bins: Sequence[Mapping[str, Any]]) -> None:
    page.table(
        ["stated", "mean stated", "observed", "candidates"],
        [
            [f"{b['low']:.1f}–{b['high']:.1f}", percent(b["stated"]), percent(b["observed"]), f"{b['count']:,}"]
            for b in bins
        ],
    )
