"""How commands end, and that nothing of theirs outlives them."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cope.errors import UserError
from cope.runtime.command import ended
from cope.runtime.interruptions import Stopped
from cope.runtime.processes import follow_parent, pool

pytestmark = pytest.mark.slow

DIED = "DataLoader worker (pid 7) is killed by signal: Killed."


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no data; name some"), 2, "cope.x: no data; name some"),
        (PermissionError(errno.EACCES, "denied", "a/b.txt"), 2, "cope.x: a/b.txt: permission denied; mend that"),
        (OSError(errno.EROFS, "ro", "a", None, "b"), 2, "cope.x: a -> b: read-only file system; mend that"),
        (OSError("no\nanswer"), 2, "cope.x: no answer; mend that"),
        (RuntimeError("CUDA error: out of memory"), 2, "cope.x: out of memory; "),
        (RuntimeError(DIED), 2, "cope.x: a process that reads pictures died"),
        (Stopped(15, "stopped after step 3"), 143, "cope.x: stopped after step 3"),
        (KeyboardInterrupt(), 130, "cope.x: stopped; go on"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, error, status, line):
    assert ended("cope.x", failing(error), "stopped; go on") == status
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith(line)


def test_output_that_nobody_reads_ends_a_command_in_silence():
    code = (
        "import sys; from cope.runtime.command import ended; "
        "sys.exit(ended('x', lambda: print('a' * 1_000_000) or 0, ''))"
    )
    made = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    made.stdout.close()
    assert (made.stderr.read(), made.wait()) == (b"", 141)


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"):
        ended("cope.x", failing(RuntimeError("shapes differ")), "")


def nothing():
    pass


def test_an_error_ends_the_processes_of_a_pool_at_once():
    began = time.monotonic()
    with pytest.raises(ValueError, match="ours"), pool(2, multiprocessing.get_context("spawn"), nothing) as made:
        made.submit(time.sleep, 600)
        raise ValueError("ours")
    assert time.monotonic() - began < 300
    assert not multiprocessing.active_children()


def test_a_process_of_a_pool_that_dies_is_one_line():
    context = multiprocessing.get_context("spawn")
    with pytest.raises(UserError, match="one of 2 rendering processes died"), pool(2, context, nothing) as made:
        made.submit(os._exit, 1).result()


def wait_with_parent(told: Path):
    follow_parent()
    told.write_text(str(os.getpid()))
    time.sleep(600)


def parent(method: str, told: str):
    context: Any = multiprocessing.get_context(method)
    context.Process(target=partial(wait_with_parent, Path(told))).start()
    time.sleep(600)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_process_outlives_the_one_that_started_it(tmp_path, method):
    told = tmp_path / "pid"
    code = f"import test_command; test_command.parent({method!r}, {str(told)!r})"
    started = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)
    child = int(_soon(lambda: told.is_file() and told.read_text()))
    os.kill(child, signal.SIGINT)  # as a terminal sends it to all: the parent's to answer
    started.kill()
    started.wait()
    assert _soon(lambda: not _runs(child))


def _soon(found):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if value := found():
            return value
        time.sleep(0.05)
    raise TimeoutError


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
