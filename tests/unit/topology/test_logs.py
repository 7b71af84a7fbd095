"""Log lines that machines can read."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from topology.log_format import Quieter, setup_logging
from topology.settings import Settings


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_lines_carry_fields_as_key_and_value() -> None:
    out = io.StringIO()
    setup_logging(Settings(_env_file=None), out)
    logging.getLogger("x").warning("dropped %d", 3, extra={"stream_id": "room 7", "epoch": 0, "detail": ""})
    line = out.getvalue()
    assert line.rstrip().endswith('warning x: dropped 3 stream_id="room 7" epoch=0 detail=""')


def test_json_lines_carry_fields_and_tracebacks() -> None:
    out = io.StringIO()
    setup_logging(Settings(_env_file=None, log_format="json"), out)
    try:
        raise ValueError("broken\nline")
    except ValueError:
        logging.getLogger("x").exception("failed", extra={"stream_id": "直播"})
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert event["message"] == "failed"
    assert event["stream_id"] == "直播"
    assert event["level"] == "error"
    assert "ValueError: broken" in event["traceback"]


def test_the_level_is_the_setting_but_libraries_stay_quiet() -> None:
    out = io.StringIO()
    setup_logging(Settings(_env_file=None, log_level="info"), out)
    logging.getLogger("workers.x").debug("hidden")
    logging.getLogger("workers.x").info("shown")
    logging.getLogger("faust.app").info("hidden")
    assert out.getvalue().count("\n") == 1
    assert "shown" in out.getvalue()


def test_a_library_that_repeats_itself_is_heard_every_ten_seconds() -> None:
    now = 0.0
    quieter = Quieter(lambda: now)

    def heard(name: str, text: str) -> bool:
        return quieter.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, (), None))

    assert heard("aiokafka", "cannot connect")
    assert not heard("aiokafka", "cannot connect")
    assert heard("aiokafka", "another trouble")
    assert heard("workers.x", "ours") and heard("workers.x", "ours")
    now = 10.0
    assert heard("aiokafka", "cannot connect")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aiokafka.consumer.group_coordinator", "Group Coordinator Request failed: %s"),
        ("faust", "[^--_ConsumerThread]: Thread keepalive is not responding... %s"),
    ],
)
def test_what_usually_passes_is_no_error_unless_it_stays(name: str, said: str) -> None:
    now = 0.0
    quieter = Quieter(lambda: now)

    def heard() -> bool:
        return quieter.filter(logging.LogRecord(name, logging.ERROR, "", 0, said, ("none yet",), None))

    assert not heard()
    now = 9.0
    assert not heard()
    now = 10.0
    assert heard()
    assert not heard()


def test_what_torch_tells_at_its_end_is_left_out() -> None:
    out = io.StringIO()
    setup_logging(Settings(_env_file=None), out)
    logging.getLogger("torch._subclasses.fake_tensor").info("  cache_hits: 0")
    assert out.getvalue() == ""
