"""Collects open pictures for training into a folder: `python -m cope.data.collect OUT`.

It needs `npm` and, for furniture and backgrounds, Debian's `apt-get`; it installs nothing.

    @lobehub/fluent-emoji-3d   rendered objects with alpha, MIT (Microsoft)
    sweethome3d-furniture      rendered household things with alpha, CC0 and CC BY 3.0 (authors in the package)
    wallpaper packages         photographs for backgrounds, CC BY-SA and others; rendered over, never copied out
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from cope.errors import UserError
from cope.runtime.command import Command, run

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


@click.command(cls=Command, help=__doc__, stopped="stopped; start the same command again")
@click.argument("out", type=click.Path(path_type=Path))
def collect_command(out: Path) -> None:
    """Makes a folder of objects."""
    print(f"{collect(out)} objects in {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    return run(collect_command, "cope.data.collect", arguments)


if __name__ == "__main__":
    sys.exit(main())
