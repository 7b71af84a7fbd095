"""COPE: one embedding space for a product's page, its short videos and its live streams.

The model learns offline (`python -m cope.train`) and encodes online. Its face are the names below; they are imported
when they are first used, so `import cope` loads no torch:

    >>> import numpy as np
    >>> from cope import Encoder, PageInput
    >>> page = Encoder("cope-mini").encode_pages([PageInput("Red handbag", [np.zeros((64, 64, 3), np.uint8)])])[0]
    >>> page.fused.shape
    (768,)

Rooms, from the top down (`pyproject.toml` holds the arrows): the commands `train`, `evaluate`, `calibrate`, `export`
and `ablations`; `training`; `evaluation`; `serving`; `data`; `render`; `model`; `towers`; `runtime`; `vision` and
`keywords`; `config`, `domains` and `errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cope.errors import UserError
    from cope.model.scoring import Calibration
    from cope.serving.encoder import Encoder, FrameFeatures, PageInput, PageOutput, WindowInput

_HOME = {
    "Calibration": "cope.model.scoring",
    "Encoder": "cope.serving.encoder",
    "FrameFeatures": "cope.serving.encoder",
    "PageInput": "cope.serving.encoder",
    "PageOutput": "cope.serving.encoder",
    "UserError": "cope.errors",
    "WindowInput": "cope.serving.encoder",
}

__all__ = [
    "Calibration",
    "Encoder",
    "FrameFeatures",
    "PageInput",
    "PageOutput",
    "UserError",
    "WindowInput",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cope' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
