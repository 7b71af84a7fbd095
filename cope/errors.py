"""The errors that `cope` raises on purpose. `cope` stands alone, so it has its own small tree."""


class CopeError(Exception):
    """The root of the errors of this package."""


class UserError(CopeError):
    """A mistake in a command, file or setting. The message names the thing and the mend, in one line."""
