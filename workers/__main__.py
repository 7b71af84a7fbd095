"""`cope-live`, also as `python -m workers`: runs the command line and turns its outcome into an exit status.

Status 0: done. 1: something failed on the way. 2: a mistake that the user can mend, told in one line.
130: stopped by Ctrl-C.
"""

import atexit
import gc
import logging
import os
import sys

# NumPy's matrix products are small here. With a thread on each core they take six times the processor time, which the
# models need. The variable is read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Runs `cope-live` and exits."""
    # Nearly all that is made while libraries are imported lives to the end: to look through it for garbage took a fifth
    # of their time, and most of the exit. Later, garbage is looked for more seldom too.
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `cope-live … | head` closed the pipe
        sys.stderr.close()
        sys.exit(141)


def _run() -> int:
    # Imported here: Ctrl-C must end the process quietly while they are imported, too.
    import click

    import cope.errors
    import topology.errors
    from topology.redact import redacted
    from workers.cli.main import cli

    try:
        status = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (topology.errors.UserError, cope.errors.UserError) as error:
        print(f"cope-live: {redacted(str(error))}", file=sys.stderr)
        return 2
    except click.Abort:
        return 130
    except Exception as error:
        logging.getLogger(__name__).error("stopping: %s: %s", type(error).__name__, error, exc_info=error)
        return 1
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    main()
