"""The parameters of a simulated stream; kept in a TOML file, they make the same stream again."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cope.render.lives import Timing
from topology.errors import UserError

LANGUAGES = ("en", "zh")
# The sound track is held in memory; recipes of hours are typing errors.
_MAX_DURATION_S = 4 * 3600


@dataclass(frozen=True)
class Recipe(Timing):
    """How a stream is simulated.

    Attributes:
        seed: The same seed and inputs give the same stream.
        language: Language of the host's speech, "en" or "zh".
        voice: A voice of the language (`workers.cli.simulate.voices`), "default", or "none" for silence.
        voices: Folder with Kokoro's voice files, for Mandarin.
        size: Width and height in pixels; even.
        fps: Frames per second.
        products: Ids to show, in this order; empty for a random choice.
        titles: Share of the showings of products whose title stands on the screen, as far as it is ASCII.
        distractors: Folder with photos of things that are not in the catalogue; None for generated shapes.
        backgrounds: Folder with photos of rooms; None for those that come with this package.
    """

    seed: int = 0
    language: str = "en"
    voice: str = "default"
    voices: Path | None = None
    size: tuple[int, int] = (640, 360)
    fps: int = 25
    products: tuple[str, ...] = ()
    titles: float = 0.0
    distractors: Path | None = None
    backgrounds: Path | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UserError: One is out of range.
        """
        width, height = self.size
        _require(1 <= self.duration_s <= _MAX_DURATION_S, "duration", f"{self.duration_s}", f"1 to {_MAX_DURATION_S} s")
        _require(self.language in LANGUAGES, "language", self.language, " or ".join(LANGUAGES))
        _require(
            64 <= width <= 3840 and 64 <= height <= 2160 and width % 2 == 0 and height % 2 == 0,
            "size",
            f"{width}x{height}",
            "even numbers from 64x64 to 3840x2160",
        )
        _require(1 <= self.fps <= 60, "fps", f"{self.fps}", "1 to 60")
        _require(0 <= self.no_product <= 100, "no_product", f"{self.no_product}", "0 to 100")
        _require(0 <= self.titles <= 1, "titles", f"{self.titles}", "0 to 1")
        _require(self.seed >= 0, "seed", f"{self.seed}", "0 or more")
        for name in ("showing_s", "pause_s", "no_product_s"):
            low, high = getattr(self, name)
            _require(0 <= low <= high and high > 0, name, f"[{low}, {high}]", "two numbers, the smaller first")


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe; folders in it are relative to it.

    Raises:
        UserError: There is no such file, or something in it is wrong.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a recipe (TOML)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error}); see samples/recipe-en.toml for one that works") from error
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for name, value in values.items():
        if name not in defaults:
            raise UserError(f"{path}: no setting {name!r}; known are {', '.join(sorted(defaults))}")
        values[name] = _typed(path, name, value, defaults[name])
    try:
        return Recipe(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse_size(text: str) -> tuple[int, int]:
    """Returns width and height from "640x360".

    Raises:
        UserError: It is not of that form.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UserError(f"size {text!r} is not WIDTHxHEIGHT; write it as 640x360")
    return int(width), int(height)


def _typed(path: Path, name: str, value: object, default: object) -> object:
    """Returns a TOML value in the type of the recipe's field."""
    if name == "size" and isinstance(value, str):
        return parse_size(value)
    if name in ("voices", "distractors", "backgrounds") and isinstance(value, str):
        return (path.parent / value).resolve()
    if name == "products" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float) and number:
        return value
    if isinstance(default, int) and isinstance(value, int) and number:
        return value
    if isinstance(default, str) and isinstance(value, str):
        return value
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(item, int | float) for item in value)
    if name.endswith("_s") and isinstance(value, list) and pair:
        return (float(value[0]), float(value[1]))
    raise UserError(f"{path}: {name} = {value!r} is of the wrong type; write it like {default!r}")


def _require(holds: bool, name: str, value: str, range_: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}; use {range_}")
