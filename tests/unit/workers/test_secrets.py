"""Nothing that a run shows holds what a URL hides."""

import io
import json
import logging

import pytest

from topology.log_format import JsonFormatter, TextFormatter
from topology.redact import redacted
from topology.settings import Settings
from workers.__main__ import main
from workers.capture.address import check_allowed, check_file
from workers.capture.media import BadSource

URL = "rtsp://ann:hunter2@127.0.0.1:9/live?token=hunter2#hunter2"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_logs_hide_it_in_messages_fields_and_tracebacks(formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        raise ValueError(URL)
    except ValueError:
        log.exception("cannot open %s", URL, extra={"url": URL, "urls": [URL], "map": {"url": URL}})
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("rtsp://127.0.0.1:9/live") >= 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", URL, "--catalog", "none.csv"],
        ["watch", "gopher://ann:hunter2@h/", "--catalog", "samples/catalog.jsonl"],
        ["watch", URL, URL, "--catalog", "none.csv"],
        ["index", "http://ann:hunter2@127.0.0.1:9/feed?hunter2", "--no-wait"],
        ["simulate", "samples/catalog.jsonl", "--out", "gopher://ann:hunter2@h/a?hunter2"],
    ],
)
def test_the_command_line_hides_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["cope-live", *arguments])
    monkeypatch.setenv("COPE_BROKER", "127.0.0.1:9")
    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr()
    assert caught.value.code == 2
    assert shown.err.strip()
    assert "hunter2" not in shown.out + shown.err


def test_what_capture_says_of_a_stream_hides_it() -> None:
    with pytest.raises(BadSource) as caught:
        check_allowed(URL, Settings(_env_file=None))
    assert "hunter2" not in str(caught.value) and "COPE_ALLOWED_NETWORKS" in str(caught.value)
    with pytest.raises(BadSource) as caught:
        check_file(URL)
    assert "hunter2" not in json.dumps(redacted(str(caught.value)))
