"""The command line itself: what it lists, and how it turns outcomes into exit statuses."""

import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

import cope.errors
from topology.errors import UserError
from topology.settings import ROLES, Settings
from workers.__main__ import main
from workers.cli import main as command_line

COMMANDS = [
    *("calibrate", "config", "dlq", "evaluate", "events", "export", "index", "score", "simulate", "streams"),
    *("timeline", "topics", "train", "verdicts", "watch", "withdraw", "worker"),
]


def test_help_lists_every_command_with_what_it_does() -> None:
    shown = CliRunner().invoke(command_line.cli, ["--help"]).output
    listed = [line.split(maxsplit=1) for line in shown.split("Commands:")[1].splitlines() if line[2:3].strip()]
    assert [name for name, _ in listed] == COMMANDS
    assert not any(what.endswith("...") for _, what in listed)


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, "export verify", "streams add", "streams end", "streams list", "topics create", "verdicts export"],
)
def test_each_command_has_help(command: str) -> None:
    result = CliRunner().invoke(command_line.cli, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")


def test_config_prints_every_setting_where_it_comes_from_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPE_BROKER_PASSWORD", "hunter2")
    monkeypatch.setenv("COPE_QDRANT_URL", "http://ann:hunter2@qdrant:6333")
    monkeypatch.setenv("COPE_HOP_MS", "1500")
    lines = CliRunner().invoke(command_line.cli, ["config"]).output.splitlines()
    assert [line.partition("=")[0] for line in lines] == [f"COPE_{name.upper()}" for name in Settings.model_fields]
    assert any(line.startswith("COPE_HOP_MS=1500 ") and "# set" in line for line in lines)
    assert any(line.startswith("COPE_WINDOW_MS=8000 ") and "# default" in line for line in lines)
    assert not any("hunter2" in line for line in lines)


def test_config_says_what_each_setting_means() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_a_name_that_is_no_setting_is_a_line_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPE_THRESHHOLD", "0.9")
    result = CliRunner().invoke(command_line.cli, ["config"])
    assert result.exit_code == 0
    assert result.stderr == "cope-live: there is no setting COPE_THRESHHOLD: did you mean COPE_THRESHOLD?\n"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, workers.cli.main; from click.testing import CliRunner; "
    code += "CliRunner().invoke(workers.cli.main.cli, ['--help']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def raising(error: BaseException) -> Callable[..., None]:
    def run(**_: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("a.mp4: no such file"), 2, "cope-live: a.mp4: no such file\n"),
        (cope.errors.UserError("no model at x"), 2, "cope-live: no model at x\n"),
        (click.UsageError("no such option"), 2, "Error: no such option\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
    ],
)
def test_an_outcome_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(command_line, "cli", raising(error))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_what_a_command_returns_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, returned: int | None, status: int
) -> None:
    monkeypatch.setattr(command_line, "cli", lambda **_: returned)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status


@pytest.mark.parametrize("role", ROLES)
def test_worker_runs_the_role_that_it_is_told(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    asked: list[tuple[str, str]] = []

    class Runs:
        def run(self) -> int:
            return 130

    def create(role: str, settings: Settings) -> Runs:
        asked.append((role, settings.broker))
        return Runs()

    monkeypatch.setenv("COPE_BROKER", "kafka:9092")
    monkeypatch.setattr("workers.cli.roles.create_worker", create)
    monkeypatch.setattr("topology.log_format.setup_logging", lambda settings: None)
    assert CliRunner().invoke(command_line.cli, ["worker", role], standalone_mode=False).return_value == 130
    assert asked == [(role, "kafka:9092")]


def test_ctrl_c_amid_the_imports_ends_quietly() -> None:
    # The first module of ours that is imported after `workers.__main__` interrupts the process.
    code = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "workers.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the test run has inherited
sys.meta_path.insert(0, Interrupt())
from workers.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
