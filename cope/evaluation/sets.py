"""What a model is measured on: the towers' view of each item of a split, with all that the protocols need to know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cope.domains import DOMAINS, Domain
from cope.model.views import Views

Pixels = NDArray[np.uint8]

# Regions that are embedded at once: 16,384 descriptors of 1,456 float32 are 95 MB. Fewer only make more calls.
BLOCK_REGIONS = 16_384

# A title of four words of which one was said scores about 0.25.
NAMED = 0.2

KEYWORDS = "keywords"  # a clip's speech as `cope.keywords` reads it, as in service
RAW = "raw"  # its transcript as it stands
CHAT = "unrelated"  # the keywords of unrelated chatter in place of its own speech
CHAT_NAMELESS, CHAT_NAMING = "unrelated_nameless", "unrelated_naming"  # the same, without and with a catalogue's name
MISLED = "misled"  # the keywords of another product's clip


@dataclass(frozen=True)
class Words:
    """What is said with each of B items, through the text tower.

    Attributes:
        vectors: (B, W); anything where `told` is 0.
        told: (B,) in [0, 1], see `cope.model.views.Views`.
    """

    vectors: Tensor
    told: Tensor


@dataclass(frozen=True)
class Read:
    """Words that were read in the pictures of a set.

    Attributes:
        pages: Lines by row.
        clips: By domain and row, for each frame its lines, each with its confidence.
        reader: What read them.
    """

    pages: Sequence[Sequence[str]]
    clips: Mapping[Domain, Sequence[Sequence[Sequence[tuple[str, float]]]]]
    reader: str


@dataclass(frozen=True)
class EvaluationSet:
    """P products with their pages, videos and live clips. A row of a domain is one item.

    Attributes:
        name: Name of the data, for the report.
        fingerprint: Fingerprint of the data.
        product_ids: P.
        categories: P, "" where unknown.
        views: By domain. `Views.product` counts from 0 to P - 1. Descriptors may be float16 and lie on disk.
        items: By domain, an id for each row.
        rooms: By domain, the room of each row, "" where there is none.
        texts: By domain, each row's title or transcript.
        keywords: By domain, what `cope.keywords` reads in it, with weights; a page's title as it stands.
        words: Variants of what is said with a clip, by domain and by name (`KEYWORDS`, `RAW`, `CHAT`, `MISLED`).
            `views` hold the keywords.
        naming: By domain, (B,) in [0, 1]: how well the keywords fit the titles of the row's own product
            (`cope.keywords.text_score`). From `NAMED` on they name it, at 0 they are about something else.
        picture: A picture of a row, (H, W, 3) uint8 RGB, or None where it cannot be had.
        read: What was read in its pictures; None: nobody read them.
    """

    name: str
    fingerprint: str
    product_ids: Sequence[str]
    categories: Sequence[str]
    views: Mapping[Domain, Views]
    items: Mapping[Domain, Sequence[str]]
    rooms: Mapping[Domain, Sequence[str]]
    texts: Mapping[Domain, Sequence[str]]
    keywords: Mapping[Domain, Sequence[Sequence[tuple[str, float]]]]
    words: Mapping[Domain, Mapping[str, Words]]
    naming: Mapping[Domain, Tensor]
    picture: Callable[[Domain, int], Pixels | None]
    read: Read | None = None

    def __len__(self) -> int:
        return len(self.product_ids)

    def saying(self, variant: str, domains: Sequence[Domain] = ("video", "live")) -> "EvaluationSet":
        """The same items with another variant of what is said with clips; "none" takes all speech away."""
        views = dict(self.views)
        for domain in domains:
            if variant == "none":
                views[domain] = views[domain].without_words()
            else:
                words = self.words[domain][variant]
                views[domain] = replace(views[domain], words=words.vectors, told=words.told)
        return replace(self, views=views)

    def matched_by(self, variant: str) -> "EvaluationSet":
        """The same items with other words of clips to compare with titles: transcripts (`RAW`) or nothing."""
        heard: dict[Domain, list[list[tuple[str, float]]]] = {
            domain: [[(text, 1.0)] if variant == RAW and text.strip() else [] for text in self.texts[domain]]
            for domain in ("video", "live")
        }
        return replace(self, keywords={**self.keywords, **heard})

    def without_words(self) -> "EvaluationSet":
        """The same items with nothing said or written."""
        return replace(self, views={domain: self.views[domain].without_words() for domain in DOMAINS})

    def without_pictures(self) -> "EvaluationSet":
        """The same items with nothing to see."""
        return replace(self, views={domain: self.views[domain].without_pictures() for domain in DOMAINS})

    def only(self, *domains: Domain) -> "EvaluationSet":
        """The same with the items of some domains, and none of the others."""
        none = torch.zeros(0, dtype=torch.int64)
        views = {d: self.views[d] if d in domains else self.views[d].rows(none) for d in DOMAINS}
        return replace(self, views=views)

    def products(self, domain: Domain) -> Tensor:
        """(B,) int64, the product of each row."""
        return self.views[domain].product


def blocks(views: Views) -> Sequence[Tensor]:
    """The rows of `views` in blocks of about as many regions: (N,) int64 each."""
    each = max(1, BLOCK_REGIONS // max(1, views.descriptors.shape[1]))
    return [torch.arange(at, min(at + each, len(views))) for at in range(0, len(views), each)]
