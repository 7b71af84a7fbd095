"""Makes an evaluation set of any data: reads its items, runs them through the towers, keeps the outcome on disk."""

import errno
import hashlib
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cope.data.items import Counts, Item, Picture, Source
from cope.data.rendered import RenderedSource
from cope.data.sampling import spread
from cope.domains import DOMAINS, Domain, Split
from cope.errors import UserError
from cope.evaluation.describing import Describer
from cope.evaluation.sets import KEYWORDS, EvaluationSet, Words
from cope.evaluation.speech import Speech, said
from cope.model.views import NOBODY, Views
from cope.runtime.files import whole
from cope.runtime.processes import begin_reading
from cope.vision.regions import overlap

Pixels = NDArray[np.uint8]
Report = Callable[[str, int, int], None]  # what is being done, so much of it is done, of

# A page with more pictures shows its product from all sides by then; each costs memory for every page.
PAGE_PICTURES = 8

# Of a rendered product in each domain, unless told otherwise. More take longer and say little more, but for few-shot
# classification with 8 shots, which 8 suffice for.
RENDERED_ITEMS = 4

# A region shows the product if it covers its true box with this IoU at least.
RIGHT_IOU = 0.5

# Of what is kept; another number where code that makes it changes.
_VERSION = 3
_SPEECH = "speech.pt"
_UNREAD = "unread.json"
_ABOUT = "about.json"
_ARRAYS = ("descriptors", "salience", "frame", "right")


@dataclass(frozen=True)
class Sampling:
    """Which part of a data set is evaluated.

    Attributes:
        products: Drawn by seed; 0 for all.
        items: Items of a product in each domain, the first ones; 0 for all, or `RENDERED_ITEMS` of rendered data.
        frames: Frames of a clip, spread evenly over it. A window in service has 8.
        seed: Seed of the draw and of the variants of speech.
    """

    products: int = 0
    items: int = 0
    frames: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Rows:
    """The items of an evaluation set by domain, row by row.

    Attributes:
        numbers: Of the products, in the source.
        items: By domain.
        product: By domain, (B,) int64, the place of each item's product in `numbers`.
    """

    numbers: Sequence[int]
    items: Mapping[Domain, Sequence[Item]]
    product: Mapping[Domain, Tensor]


def evaluation_set(
    describer: Describer,
    source: Source,
    split: Split,
    cache: Path,
    sampling: Sampling | None = None,
    workers: int = 1,
    report: Report | None = None,
) -> tuple[EvaluationSet, dict[str, Any]]:
    """Reads and describes the items of a data set, or finds what an earlier call kept.

    Pictures are read in processes of their own while the towers work; descriptors go to disk as they come, so memory
    does not grow with the data.

    Args:
        describer: Towers and finder.
        source: The data.
        split: The side that it is of; its fingerprint is that of all sides.
        cache: Folder; what is kept in it is named by a hash of all that it depends on. It is made anew once pictures
            can be read that were missing or broken before.
        sampling: Which part of the data; None for all.
        workers: Processes that read pictures; 0 reads in this one.
        report: Told of progress.

    Returns:
        The set, and what there is to say of it: numbers of items, pictures that could not be read, how often one of
        the regions covers the product where its box is known.

    Raises:
        UserError: There are no products, or fewer items of rendered ones than are asked for; the disk is full; or what
            is kept is damaged.
    """
    sampling = sampling or Sampling()
    rows = rows_of(source, sampling)
    if not rows.numbers or not any(rows.items.values()):
        raise UserError(f"{source.name}: no products to evaluate; name another --split or data set")
    what = json.dumps([_VERSION, source.fingerprint, split, describer.key, asdict(sampling)])
    folder = cache / f"views-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    if not _is_kept(source, rows, folder, workers):
        shutil.rmtree(folder, ignore_errors=True)
        _remove_abandoned(folder)
        unfinished = folder.with_name(f"{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            about = _describe_all(describer, source, rows, sampling, unfinished, workers, report)
            (unfinished / _ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
            if not folder.exists():  # another process may have been faster
                unfinished.rename(folder)
        except OSError as error:
            raise UserError(
                f"cannot keep descriptors in {cache}: {error.strerror or error}; name another --cache"
            ) from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    with whole(folder):
        about = dict(_json(folder / _ABOUT))
        return _assembled(source, rows, folder), about


def _is_kept(source: Source, rows: Rows, folder: Path, workers: int) -> bool:
    """Whether an outcome is there, and what could not be read for it still cannot be."""
    if not (folder / _ABOUT).is_file():
        return False
    with whole(folder):
        unread = [(domain, int(row), list(before)) for domain, row, before in _json(folder / _UNREAD)]
    now = read_pictures(source, [rows.items[domain][row] for domain, row, _ in unread], workers)
    return all([p.problem for p in read] == before for read, (_, _, before) in zip(now, unread, strict=True))


def _remove_abandoned(folder: Path) -> None:
    """Removes what processes left that were killed; those of other machines that share the cache cannot be asked."""
    for left in folder.parent.glob(f"{folder.name}.{socket.gethostname()}.[0-9]*.tmp"):
        try:
            os.kill(int(left.stem.rpartition(".")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:  # it lives, and is another user's
            continue


def rows_of(source: Source, sampling: Sampling) -> Rows:
    """Which items are evaluated."""
    numbers = list(range(len(source)))
    if 0 < sampling.products < len(numbers):
        chosen = np.random.default_rng(sampling.seed).choice(len(numbers), sampling.products, replace=False)
        numbers = sorted(int(n) for n in chosen)
    most = sampling.items or None
    if isinstance(source, RenderedSource):
        there = len(source.items(0, "page"))  # alike of all products and in all domains
        if sampling.items > there:
            raise UserError(f"{source.name}: --items {sampling.items}, and there are {there}; give {there} or fewer")
        most = sampling.items or RENDERED_ITEMS
    items: dict[Domain, list[Item]] = {domain: [] for domain in DOMAINS}
    product: dict[Domain, list[int]] = {domain: [] for domain in DOMAINS}
    for new, number in enumerate(numbers):
        for domain in DOMAINS:
            found = source.items(number, domain)[:most]
            items[domain] += [_shortened(item, sampling.frames) for item in found]
            product[domain] += [new] * len(found)
    return Rows(numbers, items, {d: torch.tensor(product[d], dtype=torch.int64) for d in DOMAINS})


def _shortened(item: Item, frames: int) -> Item:
    """A page with its first pictures, a clip with frames spread evenly over it."""
    count = len(item.images)
    kept = range(min(count, PAGE_PICTURES)) if item.domain == "page" else spread(None, count, frames)
    return item.with_pictures(kept)


class _Reading(Dataset[list[Picture]]):
    """Reads items; lives in the loader's processes."""

    def __init__(self, source: Source, items: Sequence[Item]) -> None:
        self.source = source
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[Picture]:
        return self.source.read(self.items[index])


def with_pixels(pictures: Sequence[Picture]) -> list[Picture]:
    """Those of an item that can be seen; frames are numbered by their place among these."""
    return [one for one in pictures if one.pixels is not None and min(one.pixels.shape[:2]) > 0]


def read_pictures(source: Source, items: Sequence[Item], workers: int) -> Iterator[list[Picture]]:
    """Yields the pictures of each item, read in processes of their own; with `workers` 0 in this one."""
    loader = DataLoader(
        _Reading(source, items),
        batch_size=None,
        num_workers=workers if len(items) > 1 else 0,
        collate_fn=_as_it_is,
        worker_init_fn=begin_reading,
        prefetch_factor=4 if workers and len(items) > 1 else None,
    )
    return iter(loader)


def _as_it_is(pictures: list[Picture]) -> list[Picture]:
    return pictures


def _describe_all(
    describer: Describer,
    source: Source,
    rows: Rows,
    sampling: Sampling,
    folder: Path,
    workers: int,
    report: Report | None,
) -> dict[str, Any]:
    counts = Counts(source.counts.as_dict())
    covered = boxed = done = 0
    unread: list[tuple[Domain, int, list[str]]] = []  # items by row, with the problem of each picture, "" for none
    total = sum(len(items) for items in rows.items.values())
    on_disk = {domain: _new_arrays(describer, folder, domain, rows.items[domain]) for domain in DOMAINS}
    for domain in DOMAINS:
        items, arrays = rows.items[domain], on_disk[domain]
        for row, pictures in enumerate(read_pictures(source, items, workers)):
            usable = with_pixels(pictures)
            problems = [p.problem for p in pictures]
            for problem in filter(None, problems):
                counts.add(problem)
            if any(problems):
                unread.append((domain, row, problems))
            images = [p.pixels for p in usable if p.pixels is not None]
            if images and domain == "page":
                views = describer.pages(images)  # (N, V, F)
                count = views.shape[0] * views.shape[1]
                arrays["descriptors"][row, :count] = views.reshape(count, -1)
                arrays["salience"][row, :count] = 1.0
                arrays["frame"][row, :count] = np.repeat(np.arange(len(images)), views.shape[1])
            elif images:
                clip = describer.clip(images)
                count = len(clip.frame)
                arrays["descriptors"][row, :count] = clip.descriptors
                arrays["salience"][row, :count] = clip.salience
                arrays["frame"][row, :count] = clip.frame
                for number, picture in enumerate(usable):
                    if picture.box is not None:
                        within = clip.frame == number
                        fits = overlap(clip.boxes[within], np.array([picture.box]))[:, 0] >= RIGHT_IOU
                        arrays["right"][row, np.flatnonzero(within)] = fits
                        boxed += 1
                        covered += bool(fits.any())
            done += 1
            if report is not None:
                report(f"items of {source.name}", done, total)
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
    speech = said(
        describer, [source.category(n) for n in rows.numbers], rows.items, rows.product, sampling.seed, report
    )
    kept = {
        domain: {
            "keywords": one.keywords,
            "words": {name: (words.vectors, words.told) for name, words in one.words.items()},
            "naming": one.naming,
        }
        for domain, one in speech.items()
    }
    file = io.BytesIO()
    torch.save(kept, file)  # to the disk itself, it would say that this is full by a RuntimeError
    (folder / _SPEECH).write_bytes(file.getbuffer())
    (folder / _UNREAD).write_text(json.dumps(unread), encoding="utf-8")
    return {
        "items": {domain: len(rows.items[domain]) for domain in DOMAINS},
        "products": len(rows.numbers),
        "skipped": counts.as_dict(),
        "finder_recall": covered / boxed if boxed and describer.config.regions else None,
        "frames_with_box": boxed,
    }


def _new_arrays(describer: Describer, folder: Path, domain: Domain, items: Sequence[Item]) -> dict[str, NDArray[Any]]:
    """Arrays on disk with all the room that they need, so that a full disk is known before the work, not after it."""
    most = max((len(item.images) for item in items), default=0)
    rows, width = len(items), describer.descriptor_width
    regions = max(1, most * (describer.views if domain == "page" else max(1, describer.config.regions)))
    shapes: dict[str, tuple[Any, tuple[int, ...], float]] = {
        "descriptors": (np.float16, (rows, regions, width), 0),
        "salience": (np.float32, (rows, regions), 0),
        "frame": (np.int64, (rows, regions), -1),
        "right": (np.bool_, (rows, regions), 0),
    }
    out: dict[str, NDArray[Any]] = {}
    for name in _ARRAYS:
        kind, shape, empty = shapes[name]
        if rows:
            out[name] = np.lib.format.open_memmap(folder / f"{domain}-{name}.npy", "w+", kind, shape)
            _reserve(folder / f"{domain}-{name}.npy")
        else:  # a map of nothing is an error
            out[name] = np.zeros(shape, kind)
            np.save(folder / f"{domain}-{name}.npy", out[name])
        if empty:
            out[name][:] = empty
    return out


def _reserve(path: Path) -> None:
    """Fills the holes of a file: where the disk is full, writing into one through a map ends the process (SIGBUS).

    Raises:
        OSError: The disk is full.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems cannot reserve
                raise


def _assembled(source: Source, rows: Rows, folder: Path) -> EvaluationSet:
    kept = torch.load(folder / _SPEECH, weights_only=True)
    speech = {
        domain: Speech(one["keywords"], {name: Words(*pair) for name, pair in one["words"].items()}, one["naming"])
        for domain, one in kept.items()
    }
    views: dict[Domain, Views] = {}
    for domain in DOMAINS:
        arrays = {name: _kept(folder / f"{domain}-{name}.npy") for name in _ARRAYS}
        words = speech[domain].words[KEYWORDS]
        empty = ~(arrays["frame"] >= 0).any(dim=1) & (words.told == 0)
        product = torch.where(empty, NOBODY, rows.product[domain])
        views[domain] = Views(words=words.vectors, told=words.told, product=product, **arrays)
    return EvaluationSet(
        name=source.name,
        fingerprint=source.fingerprint,
        product_ids=[source.product_id(n) for n in rows.numbers],
        categories=[source.category(n) for n in rows.numbers],
        views=views,
        items={d: [item.id for item in rows.items[d]] for d in DOMAINS},
        rooms={d: [item.room for item in rows.items[d]] for d in DOMAINS},
        texts={d: [item.text for item in rows.items[d]] for d in DOMAINS},
        keywords={d: speech[d].keywords for d in DOMAINS},
        words={d: speech[d].words for d in DOMAINS},
        naming={d: speech[d].naming for d in DOMAINS},
        picture=lambda domain, row: _picture(source, rows.items[domain][row]),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _kept(path: Path) -> Tensor:
    """An array on disk as a tensor: read as it is used, never written."""
    array = np.load(path) if os.path.getsize(path) < 1 << 20 else np.load(path, mmap_mode="c")
    return torch.from_numpy(array)


def _picture(source: Source, item: Item) -> Pixels | None:
    """A page's first picture, a clip's middle frame."""
    if not item.images:
        return None
    at = 0 if item.domain == "page" else len(item.images) // 2
    return source.read(item.with_pictures([at]), 320)[0].pixels
