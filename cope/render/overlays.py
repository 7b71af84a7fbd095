"""What platforms draw over a stream: a live badge, viewers, a clock, chat bubbles, price tags, hearts."""

import re

import cv2
import numpy as np

from cope.render.lives import Plan, Shown
from cope.vision.cutouts import Cutout, Pixels

_FONT = cv2.FONT_HERSHEY_DUPLEX
# Drawn for a picture of this height, scaled to others.
_NOMINAL_HEIGHT = 360
_CHAT = (
    "666",
    "how much?",
    "first time here",
    "love it",
    "do you ship abroad?",
    "size?",
    "+1",
    "hello from Lyon",
    "again please",
    "what colour is it",
    "got mine yesterday",
    "hahaha",
)
_BUBBLE_S = 4.0
# Red, Green, Blue.
_WHITE, _RED, _DARK, _YELLOW = (255, 255, 255), (225, 40, 60), (30, 30, 35), (255, 220, 70)


class Overlays:
    """Overlays of one stream.

    Args:
        rng: Source of what is chatted and of the numbers.
        plan: The stream, whose showings get price tags.
        size: Width and height of a frame.
        titles: Share of the showings of products whose title stands on the screen.
    """

    def __init__(self, rng: np.random.Generator, plan: Plan, size: tuple[int, int], titles: float = 0.0) -> None:
        self._scale = size[1] / _NOMINAL_HEIGHT
        self._size = size
        self._clock_s = int(rng.integers(24 * 3600))
        self._viewers = int(rng.integers(200, 20_000))
        self._bubbles: list[tuple[float, str]] = []
        at_s = 1.0
        while at_s < plan.duration_s:
            text = f"user{int(rng.integers(100, 10_000))}: {_CHAT[int(rng.integers(len(_CHAT)))]}"
            self._bubbles.append((at_s, text))
            at_s += float(rng.exponential(2.5)) + 0.4
        # Not every room shows a tag for each product.
        self._tagged = [shown for shown in plan.shown if shown.offer and shown.offer.price and rng.random() < 0.7]
        # Drawn from a copy: that titles are on changes nothing else of a stream.
        own = np.random.default_rng(self._viewers)
        self._titled = [shown for shown in plan.shown if shown.offer and own.random() < titles]

    def draw(self, frame: Pixels, t_s: float) -> None:
        """Draws what is on at that time into the frame, (H, W, 3) uint8 RGB."""
        self._label(frame, "LIVE", (8, 8), _WHITE, _RED)
        self._label(frame, f"{self._viewers + int(t_s * 3)} watching", (58, 8), _WHITE, _DARK)
        clock = self._clock_s + int(t_s)
        text = f"{clock // 3600 % 24:02}:{clock // 60 % 60:02}:{clock % 60:02}"
        self._label(frame, text, (self._size[0] / self._scale - 88, 8), _WHITE, _DARK)
        recent = [(at_s, text) for at_s, text in self._bubbles if 0 <= t_s - at_s < _BUBBLE_S][-3:]
        for row, (_, text) in enumerate(reversed(recent)):
            self._label(frame, text, (8, _NOMINAL_HEIGHT - 28 - 22 * row), _WHITE, _DARK)
        for shown in self._tagged:
            if shown.showing.seen_from_s <= t_s < shown.showing.seen_until_s:
                self._price_tag(frame, shown)
        for shown in self._titled:
            if shown.offer and shown.showing.seen_from_s <= t_s < shown.showing.seen_until_s:
                self._label(frame, _ascii(shown.offer.title), (8, 40), _DARK, _WHITE, 0.6)

    def _price_tag(self, frame: Pixels, shown: Shown) -> None:
        price = shown.offer.price if shown.offer else ""
        self._label(frame, f"ONLY {_ascii(price)}", (self._size[0] / self._scale - 128, 326), _DARK, _YELLOW)

    def _label(
        self,
        frame: Pixels,
        text: str,
        at: tuple[float, float],
        ink: tuple[int, int, int],
        paper: tuple[int, int, int],
        size: float = 0.42,
    ) -> None:
        size *= self._scale
        (width, height), _ = cv2.getTextSize(text, _FONT, size, 1)
        pad = round(5 * self._scale)
        left, top = round(at[0] * self._scale), round(at[1] * self._scale)
        region = frame[max(0, top) : top + height + 2 * pad, max(0, left) : left + width + 2 * pad]
        region[:] = (region * 0.35 + np.array(paper) * 0.65).astype(np.uint8)
        cv2.putText(frame, text, (left + pad, top + pad + height), _FONT, size, ink, 1, cv2.LINE_AA)


def _ascii(text: str) -> str:
    """Returns what of a text the fonts of OpenCV can draw."""
    return re.sub(r"[^ -~]", "", text)


def sticker(rng: np.random.Generator) -> Cutout:
    """A price tag, a banner or plain writing, to be placed in a scene like a thing."""
    words = "".join(
        chr(int(c)) for c in rng.choice([*range(48, 58), *range(65, 91), 36, 37, 32], int(rng.integers(3, 14)))
    )
    face, size, stroke = int(rng.integers(0, 5)), float(rng.uniform(1.0, 2.2)), int(rng.integers(2, 6))
    (width, height), base = cv2.getTextSize(words, face, size, stroke)
    canvas = np.zeros((height + base + 24, width + 24, 4), np.uint8)
    if rng.random() < 0.7:  # on a plate
        canvas[...] = [*rng.integers(0, 256, 3), int(rng.integers(150, 256))]
    ink = [*(int(c) for c in rng.integers(0, 256, 3)), 255]
    cv2.putText(canvas, words, (12, height + 12), face, size, ink, stroke, cv2.LINE_AA)
    return Cutout("overlay", canvas)
