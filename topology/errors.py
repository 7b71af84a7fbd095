"""The errors that this project raises on purpose.

`UserError` is a mistake that its user can mend: the command line prints its text as one line and exits
with status 2. `BadInput` is one broken record inside a stream: it goes to the dead-letter queue and the
stream goes on. `Unavailable` is a dependency that is down: the work is retried, nothing is skipped.
"""


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
