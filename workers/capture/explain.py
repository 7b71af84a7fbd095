"""Turns FFmpeg's errors into one line that names the source and the mend."""

import errno

import av.error

from topology.errors import CopeError
from workers.capture.media import BadSource, SourceDown

_HTTP = {
    av.error.HTTPNotFoundError: "not found (404): check the address, and that the stream is being published",
    av.error.HTTPForbiddenError: "forbidden (403): check the address and its token",
    av.error.HTTPUnauthorizedError: "unauthorised (401): put user and password or a token into the address",
}


def explain(url: str, error: Exception, *, network: bool, after_s: float, opened: bool = False) -> CopeError:
    """Returns our error for an error of FFmpeg.

    Args:
        url: The source, as its user named it.
        error: What PyAV raised.
        network: The source is reached over a network, so later attempts may work.
        after_s: The time-out that was in force.
        opened: The source had been open already.
    """
    if isinstance(error, av.error.ProtocolNotFoundError | av.error.EncoderNotFoundError):
        return BadSource(f"{url}: this FFmpeg has no such protocol: use rtmp, rtsp or HLS, or install ffmpeg")
    if not network:
        return BadSource(
            f"{url}: not a video, or one that is cut off or damaged ({_reason(error)}): convert or download it again"
        )
    for kind, text in _HTTP.items():
        if isinstance(error, kind):
            return SourceDown(f"{url}: {text}")
    if isinstance(error, av.error.ExitError | TimeoutError):
        what = "has sent nothing" if opened else "does not answer"
        return SourceDown(f"{url}: {what} for {after_s:g} s: check that the stream is being published")
    if opened:
        return SourceDown(f"{url}: connection lost ({_reason(error)})")
    if isinstance(error, av.error.InvalidDataError):
        return SourceDown(f"{url}: answers, but not with a video: check the address")
    return SourceDown(f"{url}: cannot be reached ({_reason(error)}): check the address and the network")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "input/output error"
    return str(getattr(error, "strerror", None) or error).splitlines()[0].lower()
