"""The model card: what an artefact's README says after training, and what calibration and export add to it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cope.config import ModelConfig, TrainConfig

CALIBRATION = "## Calibration"
PRECISION = "## Precision"
SCORES = "## Scores"


def model_card(name: str, config: TrainConfig, data: str, products: int, figures: Mapping[str, float]) -> str:
    """The card in Markdown.

    Args:
        name: Name of the model.
        config: Configuration that it was trained with.
        data: What it was trained on.
        products: Number of those.
        figures: On products that were not trained on; empty if there were none.
    """
    m = config.model
    tuning = {"frozen": "frozen and not in this folder", "lora": "with low-rank steps", "full": "tuned in full"}
    words = {
        "keywords": "keywords of what is said",
        "raw": "what is said, as recognised",
        "none": "no words in clips",
    }
    rows = "\n".join(f"| {key} | {value:.3f} |" for key, value in figures.items())
    scores = f"| figure on products never trained on | |\n|---|---|\n{rows}" if rows else "Not evaluated yet."
    return f"""# {name}

Finds and names products in live streams: one space of {m.dim} dimensions for {_regions(m.regions)} live frames, short
videos, {words[config.live_text]}, and product pages. Made by `python -m cope.train` with seed {config.seed}; the exact
configuration, versions and data hashes are in `training.json`.

- Towers, {tuning[m.tuning]}: `{m.vision}` and `{m.text}`. `config.json` holds their hashes.
- Trained on {products:,} products of {data}, {config.steps:,} steps of
  {config.batch_products * config.accumulate:,} products each.

{scores}

Measure it on your own data before you rely on it: `python -m cope.evaluate`.

## Limits

{_limits(m)}

{CALIBRATION}

None yet. Calibrate it before it serves: `python -m cope.calibrate`.
"""


def _regions(count: int) -> str:
    return f"the {count} most salient regions of" if count else "whole"


def _limits(m: ModelConfig) -> str:
    """What follows from how the model is built, whatever it was trained on."""
    seen = (
        f"Of a frame it keeps at most {m.regions} regions, found in {m.frame_pixels:,} pixels. A product that covers "
        f"less than two cells of 16 x 16 of them is mostly missed."
        if m.regions
        else f"A frame is seen as a whole, in {m.crop_pixels} x {m.crop_pixels} pixels: a small product is lost among "
        f"what surrounds it."
    )
    told = f"Texts are read up to {m.text_tokens} tokens; what comes after is not."
    alike = f"Products that differ only in what {m.crop_pixels} pixels do not show (print, size, material) look alike."
    kin = "Its scores hold for data like those that it was trained on. Other shops, cameras and languages: measure."
    space = "Vectors of two versions of a model are not comparable: a catalogue is indexed anew for each."
    return "\n".join(f"- {line}" for line in (seen, alike, told, kin, space))


def with_section(card: str, section: str) -> str:
    """A card with a section that begins with its heading: in place of the one of that heading, or at the end."""
    heading = section.partition("\n")[0]
    old = re.compile(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    rest = old.sub("", card).rstrip()
    return f"{rest}\n\n{section.strip()}\n".lstrip()


def calibration_section(
    split: str, found: Mapping[str, Mapping[str, float | None]], held_out: bool, reading: str = ""
) -> str:
    """How well the probabilities hold.

    Args:
        split: The side of the data that it was calibrated on.
        found: Figures of `cope.calibrate`, by the name of the data.
        held_out: Whether they are of streams that nothing was fitted on.
        reading: The model's reader of words in pictures; empty: it has none.
    """
    streams = "every fifth stream, held out" if held_out else "streams that it was fitted on: not of all data held out"
    words = f"Words in frames and page pictures are read (`{reading}`)" if reading else "Words in pictures are not read"
    names = list(next(iter(found.values())))
    rows = "\n".join(
        f"| {data} | {' | '.join(_value(name, values[name]) for name in names)} |" for data, values in found.items()
    )
    head = " | ".join(name.replace("_", " ") for name in names)
    return f"""{CALIBRATION}

By `python -m cope.calibrate` on showings of the {split} side of each data set, windows of {streams}.
{words}.

| data | {head} |
|---|{"---|" * len(names)}
{rows}"""


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,.0f}" if name == "windows" else f"{value:.3f}"


def precision_section(record: Mapping[str, Any]) -> str:
    """What export decided, and on what grounds.

    Args:
        record: Content of `export.json`.
    """
    text = f"{PRECISION}\n\nOn a CPU the towers compute in {record['precision']}"
    measured: Sequence[Mapping[str, Any]] = record.get("measured", ())
    if not measured:
        return f"{text}; not measured."
    rows = "\n".join(
        f"| {one['precision']} | {one['frame_ms']:.1f} | {one['text_ms']:.1f} | {one['mean_r1']:.3f} "
        f"| {one['verdict']} |"
        for one in measured
    )
    data = record["data"]
    chosen = " as was asked for" if record["asked"] != "auto" else ""
    return f"""{text}{chosen}. Measured by `python -m cope.export` on {record["machine"]}, PyTorch {record["torch"]}.
Times are of one thread, the median, for a 640 x 360 frame and for a phrase of four words. R@1 is the mean over
{len(measured[0]["r1"])} directions of retrieval among {data["products"]:,} products of {data["name"]}.

| precision | ms per frame | ms per text | R@1 | |
|---|---|---|---|---|
{rows}"""


def scores_section(report: Mapping[str, Any]) -> str:
    """The main figures of a report of `cope.evaluate`.

    Args:
        report: Content of its `report.json`.

    Raises:
        KeyError, TypeError, ValueError: It is not such a report.
    """
    about, found = report["about"], report["retrieval"]
    ways = [name for name in found["fused"] if name != "mean"]
    kinds = {"fused": "pictures and words", "vision": "pictures alone"}
    kinds |= {"frozen_fused": "frozen towers, both", "frozen_vision": "frozen towers, pictures alone"}
    rows = []
    for kind, says in kinds.items():
        mean = found[kind]["mean"]
        each = " | ".join(f"{found[kind][way]['r1']:.3f}" if way in found[kind] else "" for way in ways)
        rows.append(f"| {says} | {mean['r1']:.3f} | {each} | {mean['r5']:.3f} | {mean['map']:.3f} |")
    table = "\n".join(rows)
    return f"""{SCORES}

Of {report["model"]} on {about["products"]:,} products of {report["data"]}, by `python -m cope.evaluate`. R@1 over all
directions and in each (P: pages, V: videos, L: live clips), then the means of R@5 and of average precision.

| | R@1 | {" | ".join(ways)} | R@5 | mAP |
|---|---|{"---|" * len(ways)}---|---|
{table}

Expected calibration error: {report["calibration"]["ece"]:.3f}."""
