"""Trying again with exponential back-off, until it works."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from topology.errors import Unavailable

_log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.2  # below, a restarting broker is hammered; above, a blip costs latency
LONGEST_PAUSE_S = 10.0  # above, work resumes noticeably later than its dependency


async def retrying(
    fn: Callable[[], Awaitable[T]],
    what: str,
    on: tuple[type[Exception], ...] = (Unavailable,),
    first_pause_s: float = FIRST_PAUSE_S,
    longest_pause_s: float = LONGEST_PAUSE_S,
    quiet: int = 0,
) -> T:
    """Awaits `fn()` until it does not raise one of `on`, and returns its result.

    Args:
        fn: Makes a new awaitable for each attempt.
        what: Names the work in the log ("send to live_frames").
        on: Errors that later attempts may not meet. Any other error is raised at once.
        first_pause_s: Pause after the first failure; it doubles with each further one.
        longest_pause_s: Where doubling stops.
        quiet: Number of failures that are not logged as warnings.
    """
    pause_s = first_pause_s
    attempt = 1
    while True:
        try:
            result = await fn()
        except on as error:
            _log.log(
                logging.DEBUG if attempt <= quiet else logging.WARNING,
                "%s failed, trying again",
                what,
                extra={"attempt": attempt, "pause_s": pause_s, "error": describe(error)},
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_pause_s)
            attempt += 1
        else:
            if attempt > quiet + 1:
                _log.info("%s works again", what, extra={"attempts": attempt})
            return result


def describe(error: BaseException) -> str:
    """Returns the error's class and message in one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ").rstrip(": ")
