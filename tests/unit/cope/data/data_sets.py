"""Small ROPE folders and pictures for tests of the readers."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cope.data.rope import IMAGES, PAIRS, TEXTS
from cope.domains import DOMAINS

PRODUCTS = 40

# A word of its own for each product, that neither sounds like another's nor is common in speech.
WORDS = (
    "anchor basket candle dagger easel flute goblet hammock icebox jigsaw kettle lantern mandolin napkin oboe parasol "
    "quiver racket sombrero tambourine umbrella violin whisk xylophone yoyo zipper accordion blender compass dumbbell "
    "envelope fountain gramophone harmonica inkwell javelin kimono ladle marimba necklace"
).split()


def picture(seed: int, size: tuple[int, int] = (64, 48), format: str = "JPEG") -> bytes:
    """A file of a soft random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)).save(file, format)
    return file.getvalue()


def rope_files(products: int = PRODUCTS, items: int = 2) -> dict[str, list[str]]:
    """The rows of the nine files: `items` pages, videos and lives each, clips of three frames."""
    files: dict[str, list[str]] = {name: [] for table in (PAIRS, TEXTS, IMAGES) for name in table.values()}
    for product in range(products):
        for item in range(product * items, (product + 1) * items):
            for domain in DOMAINS:
                files[PAIRS[domain]].append(f"p{product},{domain}{item}")
                files[TEXTS[domain]].append(f"{domain}{item},velvet {WORDS[product]}, now")
            files[IMAGES["page"]].append(f"page{item},images/{product}.jpg")
            for frame in (10, 9, 100):
                files[IMAGES["video"]].append(f"video{item},{frame},images/{product}.jpg?{frame}")
                files[IMAGES["live"]].append(f"live{item},{frame}000,images/{product}.jpg?{frame}")
    return files


def write_rope(folder: Path, files: dict[str, list[str]], products: int = PRODUCTS) -> Path:
    for name, rows in files.items():
        (folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    (folder / "images").mkdir(exist_ok=True)
    for product in range(products):
        for suffix in ("", "?10", "?9", "?100"):
            (folder / "images" / f"{product}.jpg{suffix}").write_bytes(picture(product))
    return folder


def tokenize(text: str, most: int) -> list[int]:
    return [ord(letter) for letter in text[:most]]
