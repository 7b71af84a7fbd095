"""What every data set is to training and evaluation: numbered products, each with pages, videos and live clips.

`Source` says what it can be asked; `cope.data.opening` opens one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, overload

from cope.domains import Domain
from cope.vision.cutouts import Pixels

RelativeBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """A page, a short video or a live clip of a product.

    Attributes:
        id: Unique in its domain.
        product: Number in the source.
        domain: Which of the three it is.
        images: Path or fsspec URL of each: a page's pictures, or a clip's frames in time order.
        text: A page's title, or what was said in a clip, as recognised.
        boxes: Relative x0, y0, x1, y1 of the product in each picture, None where unknown; empty if none is known
            before the pictures are read.
        room: Gallery in which the item is searched, or of which its page is a part; "" for none.
    """

    id: str
    product: int
    domain: Domain
    images: tuple[str, ...]
    text: str
    boxes: tuple[RelativeBox | None, ...] = ()
    room: str = ""

    def with_pictures(self, kept: Sequence[int]) -> "Item":
        """The same with some of its pictures, by their places, in that order."""
        boxes = tuple(self.boxes[at] for at in kept) if self.boxes else ()
        return replace(self, images=tuple(self.images[at] for at in kept), boxes=boxes)


class Picture(NamedTuple):
    """A picture as it was read.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; None if the file is missing or broken.
        box: Relative x0, y0, x1, y1 of the product, if known.
        problem: Why there are no pixels, in a word or two for `Counts`; "" if there are.
    """

    pixels: Pixels | None
    box: RelativeBox | None = None
    problem: str = ""


class Counts:
    """How often something was wrong with the data, by kind. What is counted was skipped."""

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self._counts: dict[str, int] = dict(counts or {})

    def add(self, kind: str, times: int = 1) -> None:
        """Counts a kind of problem, named in the plural: "missing pictures"."""
        if times:
            self._counts[kind] = self._counts.get(kind, 0) + times

    def merge(self, other: Mapping[str, int]) -> None:
        """Adds the counts of another process or part."""
        for kind, times in other.items():
            self.add(kind, times)

    def go_on(self, counts: Mapping[str, int]) -> None:
        """Goes on from the counts of an earlier run."""
        self._counts = dict(counts)

    def as_dict(self) -> dict[str, int]:
        """The counts by kind, the most frequent first: for JSON."""
        return dict(sorted(self._counts.items(), key=lambda one: (-one[1], one[0])))

    def __getitem__(self, kind: str) -> int:
        return self._counts.get(kind, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        """One line: "12 missing pictures, 3 rows with too few columns"."""
        return ", ".join(f"{times} {kind}" for kind, times in self.as_dict().items()) or "nothing skipped"


class ItemsOnDemand(Sequence[Item]):
    """Items that are read as they are asked for."""

    def __init__(self, read: Callable[[int], Item], count: int) -> None:
        """Reads nothing.

        Args:
            read: Gives an item by its place, 0 to count - 1.
            count: Number of items.
        """
        self._read, self._count = read, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        at = index + self._count if index < 0 else index
        if not 0 <= at < self._count:
            raise IndexError(index)
        return self._read(at)


class Source(Protocol):
    """A data set. Random access by product number; memory does not grow with its size.

    It may be used after a fork and can be pickled, so that loader processes can have it.

    Attributes:
        name: Name of the folder and the split, for messages.
        fingerprint: Hash of what was read; saved with the run.
        counts: What was skipped while the data were read; a loader adds what it could not decode.
        sizes: Items by domain.
        concurrency: Items that are worth reading at once in one process: 1 where reading is work, more where it
            is waiting for another machine.
    """

    name: str
    fingerprint: str
    counts: Counts
    sizes: Mapping[Domain, int]
    concurrency: int

    def __len__(self) -> int:
        """The number of products."""

    def product_id(self, number: int) -> str:
        """The data's own name of a product."""

    def category(self, number: int) -> str:
        """The category of a product; "" if unknown."""

    def items(self, number: int, domain: Domain) -> Sequence[Item]:
        """The items of a product in a domain, read as they are asked for; empty if it has none."""

    def read(self, item: Item, side: int = 0) -> list[Picture]:
        """Reads the item's pictures, one for each of `item.images`.

        Args:
            item: Any of the source, or one with some of its images and boxes.
            side: A longer side in pixels that is enough: larger files may be decoded at half their size or less,
                never below it. 0: as they are.
        """

    def pictures(self, item: Item) -> list[Pixels | None]:
        """The item's pictures in full size, (H, W, 3) uint8 RGB each; None for the missing and broken."""
