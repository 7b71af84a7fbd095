"""Plays a source to its end, and looks at what it gave."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from topology.settings import Settings
from workers.capture.media import MediaItem, MediaSource, Picture, Sound
from workers.capture.repeats import PacketMemory
from workers.capture.source import open_source

# What tests serve and read lies on this machine.
HERE = {"allowed_networks": "0.0.0.0/0", "allowed_folders": "/"}
SETTINGS = Settings(_env_file=None).model_copy(update={"open_timeout_s": 1.0, "stall_timeout_s": 1.0, **HERE})


def play(path: Path | str, seen: PacketMemory | None = None, **changes: object) -> tuple[MediaSource, list[MediaItem]]:
    source = open_source(str(path), SETTINGS.model_copy(update=changes), seen)
    try:
        return source, list(source)
    finally:
        source.close()


def times(items: list[MediaItem]) -> list[int]:
    return [item.pts_ms for item in items if isinstance(item, Picture)]


def sound(items: list[MediaItem]) -> npt.NDArray[np.int16]:
    return np.concatenate([item.samples for item in items if isinstance(item, Sound)] or [np.zeros(0, np.int16)])
