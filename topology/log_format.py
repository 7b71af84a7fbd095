"""Structured logs: one line an event, as text with key=value pairs or as JSON."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from topology.redact import redacted
from topology.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data", "color_message"}

# They log each connection and rebalance step at INFO; we log the part that matters.
_NOISY = (
    "faust",
    "mode",
    "aiokafka",
    "kafka",
    "asyncio",
    "aiohttp.access",
    "faster_whisper",
    "httpx",
    "qdrant_client",
    "torch",
)


REPEAT_AFTER_S = 10.0  # a client that reconnects says so ten times a second

# What is over in seconds: a new broker makes the topic of its groups, or elects; a busy machine kept a thread waiting.
_PASSING = ("Group Coordinator Request failed", "Thread keepalive is not responding")


class Quieter(logging.Filter):
    """Lets each message of a noisy library through once in `REPEAT_AFTER_S`; what usually passes, not before that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the record is to be logged."""
        if not record.name.startswith(_NOISY):
            return True
        now = self._clock()
        key = (record.name, str(record.msg))
        if key not in self._last and any(passing in key[1] for passing in _PASSING):
            self._last[key] = now
            return False
        if now - self._last.get(key, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        self._last[key] = now
        return True


class TextFormatter(logging.Formatter):
    """time level logger message key=value ..."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record in one line, and its traceback if it has one."""
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        line = f"{time}.{int(record.msecs):03d} {record.levelname.lower():7} {record.name}: {record.getMessage()}"
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return _bare(line + fields + trace)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as a JSON object with time, level, logger, message and the extra fields."""
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = _bare(self.formatException(record.exc_info))
        line = {name: value if name == "traceback" else _hidden(value) for name, value in line.items()}
        return json.dumps(line, default=lambda value: redacted(str(value)), ensure_ascii=False)


def _hidden(value: object) -> object:
    """Redacts what is inside, too."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {str(name): _hidden(one) for name, one in value.items()}
    return list(map(_hidden, value)) if isinstance(value, list | tuple) else value


def setup_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Sends the logs of the whole process to `stream` (default: standard error) as the settings say."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    handler.addFilter(Quieter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = settings.log_level.upper()
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.WARNING))


def _bare(text: str) -> str:
    """Redacts line by line: a traceback is long, its lines are not."""
    return "\n".join(map(redacted, text.split("\n")))


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text
