"""The errors that this project raises on purpose.

`UserError` is a mistake that its user can mend: the command line prints its text as one line and exits
with status 2. `BadInput` is one broken record inside a stream: it goes to the dead-letter queue and the
stream goes on. `Unavailable` is a dependency that is down: the work is retried, nothing is skipped.
"""

import errno

_SHORT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LONGEST_CAUSE = 500  # errors of libraries may repeat the value


class CopeError(Exception):
    """The root of this project's own errors."""


class UserError(CopeError):
    """A mistake in a command, file or setting. The message names the thing and the mend, in one line."""


class BadInput(CopeError):
    """One record that cannot be processed, however often it is tried: it is dead-lettered."""


class NewerSchema(BadInput):
    """A record written by a newer release than this one."""


class Unavailable(CopeError):
    """A dependency (broker, index) does not answer now; trying again later may work."""


def record_fault(error: Exception, what: str) -> BadInput:
    """Returns what went wrong with one record as the record's own fault, so that it is dead-lettered and others go on.

    Args:
        error: Whatever was raised on the way.
        what: Names the record.

    Raises:
        Exception: `error` itself, if the record is not to blame: a dependency that is down, a mistake in a setting,
            memory or a file system that is short. It is likely to come again with the next record.
    """
    if isinstance(error, BadInput):
        return error
    short = (
        isinstance(error, OSError) and error.errno in _SHORT
    )  # decoders raise OSErrors of their own, without a number
    if short or isinstance(error, UserError | Unavailable) or is_out_of_memory(error):
        raise error
    return BadInput(f"{what} cannot be processed ({type(error).__name__}: {str(error)[:_LONGEST_CAUSE]})")


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether less memory was there than the work needs."""
    # PyTorch's own class is for devices only; on a CPU it raises a RuntimeError with these words.
    return (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
    )
