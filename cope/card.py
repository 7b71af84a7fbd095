"""The model card: what an artefact's README says after training."""

from collections.abc import Mapping

from cope.config import TrainConfig


def model_card(name: str, config: TrainConfig, data: str, products: int, figures: Mapping[str, float]) -> str:
    """The card in Markdown.

    Args:
        name: Of the model.
        config: That it was trained with.
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

Measure it on your own data before you rely on it: `python -m cope.evaluate`. Calibrate it before it serves:
`python -m cope.calibrate`.
"""


def _regions(count: int) -> str:
    return f"the {count} most salient regions of" if count else "whole"
