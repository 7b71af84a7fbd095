"""Draws the frames of a planned live stream, for `cope-live simulate`, the benchmarks and calibration alike."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from cope.render.lives import Plan, Shown, View
from cope.render.overlays import Overlays
from cope.render.synthetic import Camera, Placement, random_background, render_frame
from cope.vision.cutouts import Cutout, Pixels, thing

# The room is drawn this much larger than the frame, so that the camera can sway.
_SWAY = 0.06


class LiveScene:
    """The drawn world of one stream.

    Args:
        plan: What is to be drawn.
        photos: Rooms.
        cutouts: The pictures of a product, given its id; at least one. Asked when the product is shown first.
        distractors: Things of no catalogue; empty for generated ones.
        size: Width and height of a frame.
        seed: Seed of the camera's noise and the overlays.
        titles: Share of the showings of products whose title stands on the screen.
    """

    def __init__(
        self,
        plan: Plan,
        photos: Sequence[Pixels],
        cutouts: Callable[[str], Sequence[Cutout]],
        *,
        distractors: Sequence[Cutout] = (),
        size: tuple[int, int] = (640, 360),
        seed: int = 0,
        titles: float = 0.0,
    ) -> None:
        self._plan = plan
        self._photos = photos
        self._cutouts_of = cutouts
        self._size = size
        self._seed = seed
        rng = np.random.default_rng([seed, 1])
        self._distractors = list(distractors) or [thing(rng) for _ in range(12)]
        self._overlays = Overlays(rng, plan, size, titles)
        self._camera = Camera(
            gain=tuple(rng.uniform(0.9, 1.08, 3).tolist()),
            blur_px=float(rng.uniform(0.3, 0.8)),
            noise=float(rng.uniform(1.5, 3.5)),
        )
        self._view: View | None = None
        self._room: tuple[Pixels, list[tuple[Cutout, Placement]]]
        self._cutouts: dict[str, Sequence[Cutout]] = {}

    def frame(self, t_s: float, number: int) -> Pixels:
        """Draws a frame.

        Args:
            t_s: Time of the stream. Times that rise are drawn faster.
            number: Number of the frame; another number gives other noise.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        view = [view for view in self._plan.views if view.start_s <= t_s][-1]
        if view != self._view:
            self._view, self._room = view, self._room_of(view)
        room, bystanders = self._room
        on = [shown for shown in self._plan.shown if shown.showing.start_s <= t_s < shown.showing.end_s]
        items = [*bystanders, *((self._cutout(shown, t_s), shown.showing.placement(t_s)) for shown in on)]
        rng = np.random.default_rng([self._seed, 2, number])
        frame, _ = render_frame(rng, self._swayed(room, t_s), items, self._size, view.camera or self._camera)
        self._overlays.draw(frame, t_s)
        return frame

    def _room_of(self, view: View) -> tuple[Pixels, list[tuple[Cutout, Placement]]]:
        rng = np.random.default_rng(view.seed)
        width, height = self._size
        larger = (round(width * (1 + 2 * _SWAY)), round(height * (1 + 2 * _SWAY)))
        bystanders = []
        for _ in range(view.bystanders):
            placement = Placement(
                x=float(rng.choice([rng.uniform(0.05, 0.2), rng.uniform(0.8, 0.95)])),
                y=float(rng.uniform(0.6, 0.9)),
                scale=float(rng.uniform(0.2, 0.38)),
                turn_deg=float(rng.normal(0, 15)),
                gain=float(rng.uniform(0.7, 1.0)),
            )
            bystanders.append((self._distractors[int(rng.integers(len(self._distractors)))], placement))
        return random_background(rng, self._photos, larger), bystanders

    def _swayed(self, room: Pixels, t_s: float) -> Pixels:
        width, height = self._size
        left = _SWAY * width * (1 + 0.9 * np.sin(t_s / 2.3))
        top = _SWAY * height * (1 + 0.9 * np.sin(t_s / 3.1 + 1))
        matrix = np.array([[1, 0, -left], [0, 1, -top]], np.float32)
        return np.asarray(cv2.warpAffine(room, matrix, self._size, borderMode=cv2.BORDER_REFLECT), np.uint8)

    def _cutout(self, shown: Shown, t_s: float) -> Cutout:
        if shown.offer is None:
            return self._distractors[int(shown.choice * len(self._distractors))]
        product_id = shown.offer.id
        if product_id not in self._cutouts:
            cutouts = self._cutouts_of(product_id)
            # A picture that cannot be cut out is shown as a card only if there is no other.
            self._cutouts[product_id] = [cutout for cutout in cutouts if not cutout.card] or cutouts
        cutouts = self._cutouts[product_id]
        first = int(shown.choice * len(cutouts))
        turned = t_s - shown.showing.start_s >= shown.change_s
        return cutouts[(first + turned) % len(cutouts)]
