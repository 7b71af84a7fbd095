"""How the commands of this package end: what a user can mend is one line on standard error, never a traceback."""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable

from cope.errors import UserError
from cope.runtime.interruptions import Stopped, out_of_memory, reader_died


def ended(name: str, command: Callable[[], int], stopped: str) -> int:
    """Runs a command and returns its exit status: 2 for what the user can mend, 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        name: Of the command, before its lines.
        command: Returns the status of its success.
        stopped: What to say after Ctrl-C, where the command itself does not.
    """
    try:
        return command()
    except UserError as error:
        line, status = str(error), 2
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        sys.stdout = open(os.devnull, "w")
        return 128 + signal.SIGPIPE
    except OSError as error:  # files that cannot be read or written; what is better explained was so before
        line, status = f"{_of(error)}; mend that and start the same command again", 2
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            line, status = "out of memory; end what else runs there, or choose another --device, and start again", 2
        elif reader_died(error):
            line, status = (
                "a process that reads pictures died, most often for lack of memory; start again with --workers 0",
                2,
            )
        else:
            raise
    except Stopped as error:
        line, status = str(error), 128 + error.signum
    except KeyboardInterrupt:
        line, status = stopped, 130
    print(f"{name}: {line}", file=sys.stderr)
    return status


def at_least(arguments: Namespace, **least: int) -> None:
    """Refuses numbers of a command line that are too small.

    Args:
        arguments: As parsed.
        least: The least value of each option, by its name with underscores.

    Raises:
        UserError: A number is smaller.
    """
    for name, bound in least.items():
        if (given := getattr(arguments, name)) < bound:
            raise UserError(f"--{name.replace('_', '-')} {given}: give {bound} or more")


def _of(error: OSError) -> str:
    reason = os.strerror(error.errno).lower() if error.errno else " ".join(str(error).split()) or type(error).__name__
    places = [str(place) for place in (error.filename, error.filename2) if place]
    return f"{' -> '.join(places)}: {reason}" if places else reason
