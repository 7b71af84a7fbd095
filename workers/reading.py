"""Opens the reader of words in pictures that the settings and the model ask for."""

from cope.errors import UserError as ModelError
from cope.towers.reading import PACKAGED, Reader, open_reader
from topology.errors import UserError
from topology.settings import Settings


def reader_of(settings: Settings, reading: str) -> Reader | None:
    """Opens the reader; None if no words are to be read.

    Args:
        settings: `read_words` decides, and leaves it to the model at `auto`.
        reading: The reader that the model names; empty: it has none.

    Raises:
        UserError: The reader is not known, or not installed.
    """
    if settings.read_words == "off" or (settings.read_words == "auto" and not reading):
        return None
    try:
        return open_reader(reading or PACKAGED, settings.threads)
    except ModelError as error:
        raise UserError(str(error)) from error
