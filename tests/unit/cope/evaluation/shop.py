"""A data set of products that are plain colours."""

from dataclasses import dataclass, field

import numpy as np

from cope.data.items import Counts, Item, Picture
from cope.domains import DOMAINS

NAMES = ("red kettle", "green lamp", "blue chair", "yellow ball", "pink shoe", "grey mug")


@dataclass
class Shop:
    """Six products of three items in each domain; of the first product, one picture is broken."""

    name: str = "shop"
    fingerprint: str = "f00"
    rooms: bool = False
    read_items: list = field(default_factory=list)

    def __post_init__(self):
        self.counts = Counts({"rows with too few columns": 2})

    def __len__(self):
        return len(NAMES)

    def product_id(self, number):
        return f"p{number}"

    def category(self, number):
        return ("kitchen", "room", "room", "", "wear", "kitchen")[number]

    def items(self, number, domain):
        said = {"page": NAMES[number], "video": "", "live": f"so this is the {NAMES[number]} everybody"}[domain]
        texts = [said, said, "hello to all of you" if domain == "live" else ""]
        frames = 2 if domain == "page" else 5
        images = tuple(f"{number}/{domain}/{frame}" for frame in range(frames))
        room = f"room-{number // 3}" if self.rooms else ""
        return [Item(f"{domain}-{number}-{at}", number, domain, images, texts[at], room=room) for at in range(3)]

    def read(self, item, side=0):
        self.read_items.append(item.id)
        return [self._picture(item, image) for image in item.images]

    def pictures(self, item):
        return [picture.pixels for picture in self.read(item)]

    def _picture(self, item, image):
        if item.id == "live-0-0" and image.endswith("/0"):
            return Picture(None, problem="broken pictures")
        rng = np.random.default_rng([item.product, DOMAINS.index(item.domain), int(item.id[-1]), int(image[-1])])
        pixels = rng.normal(127, 12, (90, 160, 3))
        colour = np.random.default_rng(item.product).integers(0, 256, 3)
        pixels[20:70, 40:120] = colour + rng.normal(0, 8, (50, 80, 3))
        return Picture(
            np.clip(pixels, 0, 255).astype(np.uint8), None if item.domain == "page" else (0.25, 0.22, 0.75, 0.78)
        )
