"""`cope-live score`: detected events against the truth. Formulae: docs/scoring.md."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec
import numpy as np

from topology.errors import UserError
from workers.cli.truth import Showing, StreamTruth, Unlisted, read_json_lines, read_truths


class Event(Protocol):
    """What is scored of a `topology.records.ProductDetected`."""

    @property
    def detection_id(self) -> str:
        """The sighting that the event belongs to."""

    @property
    def stream_id(self) -> str:
        """The stream."""

    @property
    def product_id(self) -> str:
        """The product."""

    @property
    def status(self) -> str:
        """`started`, `updated` or `ended`."""

    @property
    def media_start_ms(self) -> int:
        """Media time at which the showing began."""

    @property
    def media_end_ms(self) -> int:
        """Media time up to which the product was seen."""

    @property
    def emitted_media_ms(self) -> int:
        """Media time at which the event was decided."""


class EventLine(msgspec.Struct, frozen=True):
    """An event as a line of a file; other fields are ignored."""

    detection_id: str
    stream_id: str
    product_id: str
    status: str
    media_start_ms: int
    media_end_ms: int
    emitted_media_ms: int


@dataclass(frozen=True, order=True)
class Sighting:
    """All events of one `detection_id`."""

    stream_id: str
    start_ms: int
    end_ms: int
    product_id: str
    emitted_ms: int


@dataclass(frozen=True)
class Match:
    """A showing and the sighting that found it."""

    showing: Showing
    sighting: Sighting

    @property
    def delay_ms(self) -> int:
        """From the showing's start to the decision that it is one."""
        return self.sighting.emitted_ms - self.showing.start_ms

    @property
    def iou(self) -> float:
        """Temporal intersection over union."""
        union = max(self.sighting.end_ms, self.showing.end_ms) - min(self.sighting.start_ms, self.showing.start_ms)
        return _overlap_ms(self.showing, self.sighting) / union


@dataclass(frozen=True)
class Score:
    """How well the events fit the truth, of one stream or of several.

    Attributes:
        matches: Showings that were found.
        missed: Showings that were not, with their streams.
        false: Sightings that are no showing, or one that was found already.
        false_in_gaps: Those of `false` that start where no product is shown.
        unlisted: Number of showings of things that are in no catalogue.
        unlisted_hit: How many of them a sighting of `false` overlaps.
        false_on_unlisted: Those of `false` that overlap such a showing.
    """

    matches: tuple[Match, ...]
    missed: tuple[tuple[str, Showing], ...]
    false: tuple[Sighting, ...]
    false_in_gaps: tuple[Sighting, ...]
    unlisted: int = 0
    unlisted_hit: int = 0
    false_on_unlisted: tuple[Sighting, ...] = ()

    @property
    def precision(self) -> float | None:
        """Share of the sightings that are right; None without sightings."""
        return _share(len(self.matches), len(self.matches) + len(self.false))

    @property
    def recall(self) -> float | None:
        """Share of the showings that were found; None without showings."""
        return _share(len(self.matches), len(self.matches) + len(self.missed))

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 1 if there was nothing to find and nothing was."""
        found = 2 * len(self.matches)
        whole = found + len(self.false) + len(self.missed)
        return found / whole if whole else 1.0

    @property
    def delay_median_ms(self) -> float | None:
        """Median detection delay of the matches."""
        return statistics.median(match.delay_ms for match in self.matches) if self.matches else None

    @property
    def delay_p90_ms(self) -> float | None:
        """90th percentile of the detection delay, linear between neighbours."""
        return float(np.percentile([match.delay_ms for match in self.matches], 90)) if self.matches else None

    @property
    def temporal_iou(self) -> float | None:
        """Mean temporal intersection over union of the matches."""
        return statistics.fmean(match.iou for match in self.matches) if self.matches else None

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures, for JSON."""
        return {
            "showings": len(self.matches) + len(self.missed),
            "sightings": len(self.matches) + len(self.false),
            "matched": len(self.matches),
            "missed": len(self.missed),
            "false": len(self.false),
            "false_in_gaps": len(self.false_in_gaps),
            "unlisted": self.unlisted,
            "unlisted_hit": self.unlisted_hit,
            "false_on_unlisted": len(self.false_on_unlisted),
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "delay_median_ms": self.delay_median_ms,
            "delay_p90_ms": self.delay_p90_ms,
            "temporal_iou": self.temporal_iou,
        }


def score(events: Iterable[Event], truth: Mapping[str, StreamTruth]) -> dict[str, Score]:
    """Scores events, by stream of the truth; events of other streams are left out.

    Use `total` for the score of all streams together.
    """
    found: dict[str, list[Sighting]] = {}
    for sighting in sightings(events):
        found.setdefault(sighting.stream_id, []).append(sighting)
    return {stream_id: _score_stream(true, found.get(stream_id, [])) for stream_id, true in truth.items()}


def total(scores: Iterable[Score]) -> Score:
    """Returns the score of several streams together: each showing counts the same."""
    scores = list(scores)
    return Score(
        matches=tuple(match for part in scores for match in part.matches),
        missed=tuple(missed for part in scores for missed in part.missed),
        false=tuple(false for part in scores for false in part.false),
        false_in_gaps=tuple(false for part in scores for false in part.false_in_gaps),
        unlisted=sum(part.unlisted for part in scores),
        unlisted_hit=sum(part.unlisted_hit for part in scores),
        false_on_unlisted=tuple(false for part in scores for false in part.false_on_unlisted),
    )


def sightings(events: Iterable[Event]) -> list[Sighting]:
    """Joins the events of each `detection_id`; an event that came twice changes nothing. By stream and start."""
    by_id: dict[str, list[Event]] = {}
    for event in events:
        by_id.setdefault(event.detection_id, []).append(event)
    joined = []
    for group in by_id.values():
        started = [event for event in group if event.status == "started"] or group
        start_ms = min(event.media_start_ms for event in group)
        joined.append(
            Sighting(
                stream_id=group[0].stream_id,
                product_id=group[0].product_id,
                start_ms=start_ms,
                # A sighting of no length is where it is: it takes part in matching like any other.
                end_ms=max(start_ms + 1, *(event.media_end_ms for event in group)),
                emitted_ms=min(event.emitted_media_ms for event in started),
            )
        )
    return sorted(joined)


def read_events(path: Path) -> list[EventLine]:
    """Reads a file of `product_detected` values, one JSON object a line.

    Raises:
        UserError: There is no such file, or a line of it is no event.
    """
    events = []
    for where, row in read_json_lines(path, "events"):
        try:
            event = msgspec.convert(row, EventLine)
        except msgspec.ValidationError as error:
            raise UserError(
                f"{where}: not a product_detected event ({error}); name what `watch --events` wrote"
            ) from error
        events.append(event)
    return events


def _score_stream(truth: StreamTruth, found: Sequence[Sighting]) -> Score:
    # Pairs of the same product that overlap, the longest overlap first, so that a showing gets its best sighting.
    pairs = sorted(
        (
            (-_overlap_ms(showing, sighting), i, j)
            for i, showing in enumerate(truth.showings)
            for j, sighting in enumerate(found)
            if showing.product_id == sighting.product_id and _overlap_ms(showing, sighting) > 0
        ),
    )
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in pairs:
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    false = tuple(sighting for j, sighting in enumerate(found) if j not in taken)
    return Score(
        matches=tuple(Match(truth.showings[i], found[j]) for i, j in sorted(partner.items())),
        missed=tuple((truth.stream_id, showing) for i, showing in enumerate(truth.showings) if i not in partner),
        false=false,
        false_in_gaps=tuple(
            sighting
            for sighting in false
            if not any(showing.start_ms <= sighting.start_ms < showing.end_ms for showing in truth.showings)
        ),
        unlisted=len(truth.unlisted),
        unlisted_hit=sum(any(_overlap_ms(one, sighting) for sighting in false) for one in truth.unlisted),
        false_on_unlisted=tuple(
            sighting for sighting in false if any(_overlap_ms(one, sighting) for one in truth.unlisted)
        ),
    )


def _overlap_ms(showing: Showing | Unlisted, sighting: Sighting) -> int:
    return max(0, min(showing.end_ms, sighting.end_ms) - max(showing.start_ms, sighting.start_ms))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@click.command("score")
@click.argument("events", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--min-f1", type=click.FloatRange(0, 1), metavar="F1", help="Exit with status 1 below this F1.")
def score_command(events: Path, truth: tuple[Path, ...], as_json: bool, min_f1: float | None) -> int:
    """Score detected events against the truth of the streams.

    EVENTS is what `watch --events` wrote: one `product_detected` value a line. TRUTH is one or more files as
    `simulate --truth` writes them; each of their streams is scored, events of other streams are left out.

    \b
    sighting    all events of one detection_id
    match       a sighting and a showing of the same stream and product that overlap in time, one to one
    precision   matches / sightings (a second sighting of the same showing is false)
    recall      matches / showings
    F1          2 · matches / (sightings + showings)
    delay       started.emitted_media_ms - showing.start_ms, over the matches
    IoU         overlap / union of showing and sighting in time, mean over the matches
    in gaps     false sightings that start where no product is shown
    unlisted    showings of things in no catalogue with a false sighting, of all of them; a line of TRUTH
                without a product_id is one, and a file may hold nothing else
    """
    known = read_truths(truth)
    read = read_events(events)
    scores = score(read, known)
    together = total(scores.values())
    unknown = sorted({event.stream_id for event in read} - set(known))
    if as_json:
        streams = {stream_id: part.as_dict() for stream_id, part in scores.items()}
        click.echo(json.dumps({**together.as_dict(), "streams": streams, "streams_without_truth": unknown}, indent=2))
    else:
        click.echo("\n".join(_report(scores, together, unknown)))
    return 1 if min_f1 is not None and together.f1 < min_f1 else 0


def _report(scores: Mapping[str, Score], together: Score, unknown: Sequence[str]) -> list[str]:
    """Returns the table, and below it what went wrong."""
    width = max(8, *(len(stream_id) for stream_id in scores))
    lines = [
        f"{'stream':<{width}}  showings  found  false  in gaps  unlisted  precision  recall     F1"
        "  delay median    p90    IoU"
    ]
    rows = dict(scores) if len(scores) == 1 else {**scores, "together": together}
    for name, part in rows.items():
        lines.append(
            f"{name:<{width}}  {len(part.matches) + len(part.missed):>8}  {len(part.matches):>5}  {len(part.false):>5}"
            f"  {len(part.false_in_gaps):>7}  {_of(part.unlisted_hit, part.unlisted):>8}"
            f"  {_number(part.precision):>9}  {_number(part.recall):>6}  {part.f1:>5.3f}"
            f"  {_seconds(part.delay_median_ms):>12}  {_seconds(part.delay_p90_ms):>5}  {_number(part.temporal_iou):>5}"
        )
    lines += [f"missed  {stream}: {_span(s.start_ms, s.end_ms)}  {s.product_id}" for stream, s in together.missed]
    lines += [f"false   {s.stream_id}: {_span(s.start_ms, s.end_ms)}  {s.product_id}" for s in together.false]
    if unknown:
        lines.append(f"not scored, for want of a truth: {', '.join(unknown)}")
    return lines


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms / 1000:.1f} s"


def _span(start_ms: int, end_ms: int) -> str:
    return f"{start_ms / 1000:6.1f} to {end_ms / 1000:6.1f} s"
