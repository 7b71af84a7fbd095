"""Decoded pictures as an ordinary screen shows them: 8-bit BGR of standard range, without combs."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ (HDR10) and HLG

# From this height on, a picture that does not say its colour matrix has that of high definition.
_HD_HEIGHT = 720
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


class Renderer:
    """Converts the pictures of one source. Not to be shared between threads."""

    def __init__(self) -> None:
        # Kept, because swscale computes its tone mapping as a table: seconds for the first picture, then none.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """Returns the picture as (H, W, 3) uint8 BGR."""
        how: dict[str, Any] = {}
        if frame.color_trc in _HDR:
            how = {
                "dst_color_trc": ColorTrc.IEC61966_2_1,
                "dst_color_primaries": ColorPrimaries.BT709,
                "dst_colorspace": Colorspace.ITU709,
                "dst_color_range": ColorRange.JPEG,
            }
        elif frame.colorspace == _UNSPECIFIED and frame.height >= _HD_HEIGHT and not frame.format.is_rgb:
            how = {"src_colorspace": Colorspace.ITU709}
        shown = self._reformatter.reformat(frame, format="bgr24", threads=1, **how)
        image = shown.to_ndarray().astype(np.uint8, copy=False)
        if frame.interlaced_frame:
            # Two moments are woven into one picture: the first, at full height.
            rows, columns = image.shape[:2]
            image = cv2.resize(image[::2], (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        return image
