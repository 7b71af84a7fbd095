"""Where this machine keeps what can be made again: `$XDG_CACHE_HOME/cope-live`, by default `~/.cache/cope-live`.

What is kept there is named by all that it is made of. The folder may be removed at any time.
"""

import os
from pathlib import Path


def cache_folder(part: str) -> Path | None:
    """A folder for one kind of things, made if it is not there; None where it cannot be written.

    Args:
        part: Of a name of its own for each kind, such as "towers".
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "cope-live" / part
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None
