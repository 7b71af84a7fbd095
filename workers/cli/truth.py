"""Truth files, which say what streams really show: written by `simulate` or by hand, read by `score`.

A truth file is JSON lines. `{"stream_id": …, "duration_ms": …}` says that a stream was looked at as a whole, and how
long it is; `{"stream_id": …, "product_id": …, "start_ms": …, "end_ms": …}` is one showing. The same without a
`product_id` is an unlisted showing: of something that is in no catalogue. Whatever lies in no showing of its stream is
a stretch without a product. The stream's line may be missing; then its last showing ends the stream.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from topology.errors import UserError


@dataclass(frozen=True)
class Showing:
    """One uninterrupted showing of a product, in media time; `end_ms` is the first millisecond after it."""

    product_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Unlisted:
    """One showing of something that is in no catalogue; any sighting of a product there is false."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class StreamTruth:
    """All showings of a stream, by start, of products of the catalogue and of other things."""

    stream_id: str
    duration_ms: int
    showings: tuple[Showing, ...] = field(default=())
    unlisted: tuple[Unlisted, ...] = field(default=())

    def joined(self, other: "StreamTruth") -> "StreamTruth | None":
        """Joins what two files say of a stream; None unless one of them lists unlisted showings only."""
        if (self.showings and other.showings) or (self.unlisted and other.unlisted):
            return None
        return StreamTruth(
            self.stream_id,
            max(self.duration_ms, other.duration_ms),
            self.showings or other.showings,
            self.unlisted or other.unlisted,
        )


def write_truth(path: Path, truths: Iterable[StreamTruth]) -> None:
    """Writes a truth file."""
    lines = []
    for truth in truths:
        lines.append(json.dumps({"stream_id": truth.stream_id, "duration_ms": truth.duration_ms}, ensure_ascii=False))
        lines += [
            json.dumps(
                {
                    "stream_id": truth.stream_id,
                    "product_id": showing.product_id,
                    "start_ms": showing.start_ms,
                    "end_ms": showing.end_ms,
                },
                ensure_ascii=False,
            )
            for showing in truth.showings
        ]
        lines += [
            json.dumps(
                {"stream_id": truth.stream_id, "start_ms": one.start_ms, "end_ms": one.end_ms}, ensure_ascii=False
            )
            for one in truth.unlisted
        ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_truths(paths: Iterable[Path]) -> dict[str, StreamTruth]:
    """Reads truth files, by stream: one file may hold the showings of a stream, another what is in no catalogue.

    Raises:
        UserError: As `read_truth`; or two files list the same kind of showings of a stream.
    """
    known: dict[str, StreamTruth] = {}
    for path in paths:
        for stream_id, stream in read_truth(path).items():
            joined = known[stream_id].joined(stream) if stream_id in known else stream
            if joined is None:
                raise UserError(f"{path}: stream {stream_id!r} is in another truth file too; leave one of them out")
            known[stream_id] = joined
    return known


def read_truth(path: Path) -> dict[str, StreamTruth]:
    """Reads a truth file, by stream.

    Raises:
        UserError: There is no such file, or a line of it is wrong.
    """
    durations: dict[str, int] = {}
    showings: dict[str, list[Showing]] = {}
    unlisted: dict[str, list[Unlisted]] = {}
    for where, row in read_json_lines(path, "truth"):
        stream_id = row.get("stream_id")
        if not isinstance(stream_id, str) or not stream_id:
            raise UserError(f"{where}: no stream_id; say which stream the line is about")
        listed = showings.setdefault(stream_id, [])
        if "product_id" not in row and "start_ms" not in row:
            durations[stream_id] = _milliseconds(where, row, "duration_ms")
            continue
        start_ms, end_ms = _milliseconds(where, row, "start_ms"), _milliseconds(where, row, "end_ms")
        if end_ms <= start_ms:
            raise UserError(f"{where}: end_ms {end_ms} is not after start_ms {start_ms}; swap or mend them")
        if "product_id" in row:
            listed.append(Showing(str(row["product_id"]), start_ms, end_ms))
        else:
            unlisted.setdefault(stream_id, []).append(Unlisted(start_ms, end_ms))
    if not showings:
        raise UserError(f"{path}: no truth in it; write one JSON object per showing (docs/scoring.md)")
    return {
        stream_id: StreamTruth(
            stream_id,
            durations.get(stream_id, max((one.end_ms for one in (*listed, *unlisted.get(stream_id, ()))), default=0)),
            tuple(sorted(listed, key=lambda showing: (showing.start_ms, showing.product_id))),
            tuple(sorted(unlisted.get(stream_id, ()), key=lambda one: one.start_ms)),
        )
        for stream_id, listed in showings.items()
    }


def read_json_lines(path: Path, what: str) -> list[tuple[str, dict[str, object]]]:
    """Reads a file of JSON objects, one a line, with the words that say where each one is.

    Raises:
        UserError: It cannot be read, or is not such a file.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8; is it a file of {what}?") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a file of {what} (JSON lines)") from error
    rows: list[tuple[str, dict[str, object]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); write one JSON object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object; write one object a line")
        rows.append((where, row))
    return rows


def _milliseconds(where: str, row: dict[str, object], name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise UserError(f"{where}: {name} is {value!r}; write milliseconds since the stream's start")
    return int(value)
