"""The commands of this package: `python -m cope.NAME`, and `cope-live NAME` where that hands them on.

What a user can mend is one line on standard error and status 2, never a traceback.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from cope.errors import UserError
from cope.runtime.interruptions import Stopped, out_of_memory, reader_died

AT_LEAST_0, AT_LEAST_1, AT_LEAST_2 = click.IntRange(0), click.IntRange(1), click.IntRange(2)


class Command(click.Command):
    """A command of click's that ends as `ended` says. Its callback returns nothing, or the exit status.

    Args:
        help: Paragraphs that are indented are shown as they stand.
        stopped: What to say after Ctrl-C, where the callback itself does not.
        lists: What `--help` ends with: names and meanings, by title.
    """

    def __init__(
        self,
        *args: Any,
        help: str | None = None,
        stopped: str = "stopped",
        lists: Mapping[str, Iterable[tuple[str, str]]] | None = None,
        **more: Any,
    ) -> None:
        more.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 110})
        paragraphs = (help or "").strip().split("\n\n")
        shown = "\n\n".join(f"\b\n{text}" if text.startswith(" ") else text for text in paragraphs)
        super().__init__(*args, **more)
        self.help = shown
        self._stopped = stopped
        self._lists = lists or {}

    def invoke(self, ctx: click.Context) -> int:
        """Runs the callback and returns the exit status."""
        run = super().invoke
        return ended(ctx.command_path.removeprefix("python -m "), lambda: run(ctx) or 0, self._stopped)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the lists."""
        for title, rows in self._lists.items():
            with formatter.section(title):
                formatter.write_dl(list(rows), col_max=26)


def run(command: click.Command, module: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a command as `python -m MODULE` does, and returns the exit status.

    Args:
        command: What to run.
        module: The name that `python -m` was given.
        arguments: Those after the module; None for those of this process.
    """
    try:
        given = None if arguments is None else list(arguments)
        status: int = command.main(given, prog_name=f"python -m {module}", standalone_mode=False)
    except click.ClickException as error:
        print(f"{module}: {error.format_message()} See --help.", file=sys.stderr)
        return error.exit_code
    return status


def ended(name: str, command: Callable[[], int], stopped: str) -> int:
    """Runs a command and returns its exit status: 2 for what the user can mend, 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        name: Name of the command, which its lines begin with.
        command: Returns the status of its success.
        stopped: What to say after Ctrl-C, where the command itself does not.
    """
    try:
        return command()
    except UserError as error:
        line, status = str(error), 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
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


def _of(error: OSError) -> str:
    reason = os.strerror(error.errno).lower() if error.errno else " ".join(str(error).split()) or type(error).__name__
    places = [str(place) for place in (error.filename, error.filename2) if place]
    return f"{' -> '.join(places)}: {reason}" if places else reason
