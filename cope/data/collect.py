"""Collects pictures for training into a folder.

    python -m cope.data.collect OUT
    python -m cope.data.collect OUT --source CLONE

Without a source it fetches open pictures of objects. It needs `npm` and, for furniture and backgrounds, Debian's
`apt-get`; it installs nothing.

    @lobehub/fluent-emoji-3d   rendered objects with alpha, MIT (Microsoft)
    sweethome3d-furniture      rendered household things with alpha, CC0 and CC BY 3.0 (authors in the package)
    wallpaper packages         photographs for backgrounds, CC BY-SA and others; rendered over, never copied out

With one it writes OUT/manifest.jsonl, which names the photos where they lie. The source is a clone of
github.com/marcusklasson/GroceryStoreDataset (MIT) or github.com/google/dreambooth (CC-BY-4.0, some photos under the
Unsplash licence), or a folder of your own with photos.jsonl (`{"file": ..., "label": ..., "product_id": ...}` a line,
`product_id` null for what is in no catalogue) and a catalog.jsonl. A product's photos are all on one side.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cope.data.photos import about, manifest_rows, read_collection
from cope.errors import UserError
from cope.runtime.command import AT_LEAST_0, AT_LEAST_1, Command, run
from cope.runtime.files import write_text_whole

EMOJI_PICTURES = "@lobehub/fluent-emoji-3d@1.1.0"
EMOJI_NAMES = "emoji-datasource-google@16.0.0"
FURNITURE = "sweethome3d-furniture"
WALLPAPERS = ("lomiri-wallpapers-16.04", "plasma-workspace-wallpapers", "ukui-wallpapers", "opencv-doc")
# Libraries of that package whose pictures are things. The fifth, Reallusion, is people.
LIBRARIES = ("BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Scopia")

SKIN = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
NOT_SHOWN = {"People & Body", "Component", "Flags"}  # nobody sells them, and they are near copies of each other


def collect(out: Path) -> int:
    """Fills the folder and returns the number of objects."""
    (out / "objects").mkdir(parents=True, exist_ok=True)
    (out / "backgrounds").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rows = [*_emoji(work, out), *_furniture(work, out)]
        _backgrounds(work, out)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "objects.jsonl").write_text(text, encoding="utf-8")
    return len(rows)


def _emoji(work: Path, out: Path) -> Iterator[dict[str, Any]]:
    pictures, names = _npm(work, EMOJI_PICTURES), _npm(work, EMOJI_NAMES)
    for entry in json.loads((names / "emoji.json").read_text(encoding="utf-8")):
        codes = entry["unified"].split("-")
        if entry["category"] in NOT_SHOWN or SKIN & set(codes):
            continue
        file = pictures / "assets" / f"{entry['unified'].lower()}.webp"
        if file.is_file():
            shutil.copy(file, out / "objects" / file.name)
            name = entry["short_name"].replace("_", " ").replace("-", " ")
            yield {"id": f"emoji-{file.stem}", "group": codes[0], "name": name, "image": f"objects/{file.name}"}


def _furniture(work: Path, out: Path) -> Iterator[dict[str, Any]]:
    root = _deb(work, FURNITURE)
    for library in LIBRARIES:
        with zipfile.ZipFile(next(root.rglob(f"{library}.sh3f"))) as archive:
            for member in sorted(archive.namelist()):
                if not member.endswith(".png") or "texture" in member.lower():
                    continue
                stem = Path(member).stem
                target = out / "objects" / f"{library}-{stem}.png"
                target.write_bytes(archive.read(member))
                words = re.sub(r"([a-z])([A-Z])", r"\1 \2", stem).replace("_", " ").replace("-", " ").lower()
                # "sofa2" and "sofa" of one author are likely the same thing in another fabric.
                base = re.sub(r"[\d ]+$", "", words)
                yield {
                    "id": f"{library}-{stem}",
                    "group": f"furniture-{base}",
                    "name": base,
                    "image": f"objects/{target.name}",
                }


def _backgrounds(work: Path, out: Path) -> None:
    for package in WALLPAPERS:
        largest: dict[Path, Path] = {}  # of each wallpaper's sizes
        for file in sorted(_deb(work, package).rglob("*")):
            picture = file.suffix in {".jpg", ".png"} and not file.is_symlink() and file.stat().st_size > 100_000
            if picture and "html" not in file.parts:
                key = file.parent if "contents" in file.parts else file
                if key not in largest or file.stat().st_size > largest[key].stat().st_size:
                    largest[key] = file
        for number, file in enumerate(largest.values()):
            shutil.copy(file, out / "backgrounds" / f"{package}-{number}{file.suffix}")


def _npm(work: Path, package: str) -> Path:
    folder = work / re.sub(r"\W", "-", package)
    folder.mkdir()
    _call(["npm", "pack", "--silent", package], folder)
    archive = next(folder.glob("*.tgz"))
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / "package"


def _deb(work: Path, package: str) -> Path:
    folder = work / package
    folder.mkdir()
    _call(["apt-get", "download", package], folder)
    _call(["dpkg", "-x", next(folder.glob("*.deb")).name, "."], folder)
    return folder


def _call(command: list[str], folder: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise UserError(
            f"{command[0]} is not installed; install it, or bring your own objects.jsonl (cope/data/objects.py)"
        )
    done = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{' '.join(command)} failed: {last}")


def collect_photos(
    source: Path, out: Path, only: str, photos_a_clip: int, shares: Sequence[int] | None, seed: int
) -> tuple[int, int, int]:
    """Writes a manifest of a collection of photos; returns the numbers of products, of photos and of lost files.

    Args:
        source: See `cope.data.photos`.
        out: The manifest's folder.
        only: Regular expression of titles and categories; "" for all.
        photos_a_clip: See `manifest_rows`.
        shares: Likewise.
        seed: Likewise.

    Raises:
        UserError: The source is none that is known, no photo of it is there, or the manifest cannot be written.
    """
    found, lost = [], 0
    for product in read_collection(source.resolve()):
        if only and not about(product, only):
            continue
        page, photos = (tuple(path for path in paths if path.is_file()) for paths in (product.page, product.photos))
        lost += len(product.page) + len(product.photos) - len(page) - len(photos)
        if photos:
            found.append(replace(product, page=page, photos=photos))
    if not found:
        raise UserError(f"{source}: no photo of any product{f' of {only!r}' if only else ''} is there")
    rows = manifest_rows(found, photos_a_clip, shares, seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text_whole(out / "manifest.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise UserError(f"cannot write {out / 'manifest.jsonl'}: {error.strerror or error}") from None
    return len(found), sum(len(product.photos) for product in found), lost


@click.command(cls=Command, help=__doc__, stopped="stopped; start the same command again")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Clone or folder of photos. [default: open pictures of objects]",
)
@click.option("--only", default="", metavar="REGEX", help="Of a source, products with this in title or category.")
@click.option("--photos", type=AT_LEAST_1, default=1, show_default=True, help="Photos of a source that make a clip.")
@click.option(
    "--shares",
    type=AT_LEAST_0,
    nargs=3,
    metavar="TRAIN VAL TEST",
    help="Shares of products on each side. [default: a hash of each product's id decides]",
)
@click.option("--seed", type=AT_LEAST_0, default=0, show_default=True, help="By which they are dealt out.")
def collect_command(
    out: Path, source: Path | None, only: str, photos: int, shares: tuple[int, int, int] | None, seed: int
) -> None:
    """Makes a folder of objects, or a manifest of photos."""
    if source is None:
        print(f"{collect(out)} objects in {out}")
        return
    if shares and not any(shares):
        raise UserError("--shares 0 0 0 leaves no product on any side; give one above 0")
    products, count, lost = collect_photos(source, out, only, photos, shares, seed)
    print(f"{products} products and {count:,} photos of them in {out / 'manifest.jsonl'}")
    if lost:
        print(f"{lost:,} files that the source names are not there, and were left out", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(collect_command, "cope.data.collect", arguments)


if __name__ == "__main__":
    sys.exit(main())
