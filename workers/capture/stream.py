"""The capture of one announced stream, from its first connection to its end, over reconnects and restarts."""

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from topology import metrics
from topology.errors import BadInput
from topology.records import Frame, Record, StreamAnnounced, StreamStatus
from topology.redact import redacted
from topology.settings import Settings
from topology.topics import LIVE_FRAMES, LIVE_SPEECH, STREAM_STATUS
from workers.capture.media import BadSource, MediaSource, OpenSource, SourceDown
from workers.capture.outbox import Outbox
from workers.capture.pacing import Ahead, Pace, RealTime, Unpaced
from workers.capture.pipeline import OutRecord, StreamFacts, end_of_epoch
from workers.capture.player import CAPACITY, Opened, Plan, Played, PlayerItem, start_player
from workers.capture.speech import Detector, SileroDetector

_log = logging.getLogger(__name__)

# A crash repeats at most what was sent since the last status; more often, statuses outnumber frames.
STATUS_EVERY_S = 1.0
FIRST_PAUSE_S = 0.5  # before the first reconnect: a server that restarts is back within seconds

NO_SOUND = "no sound track: only the picture is used"
CLOSED = "the stream has ended or its server has closed it"

Send = Callable[[str, str, Record], Awaitable[None]]


class StreamCapture:
    """Captures one stream. `run` returns when it has ended or failed and the final status has been sent.

    Attributes:
        status: As last sent to `stream_status`.
        last_frame_s: When the last frame was sent, or the connection opened, by the monotonic clock.
    """

    def __init__(
        self,
        settings: Settings,
        send: Send,
        opener: OpenSource,
        announced: StreamAnnounced,
        *,
        offset: int,
        partition: int,
        previous: StreamStatus | None = None,
        detector: Callable[[], Detector] = SileroDetector,
    ) -> None:
        self.last_frame_s = time.monotonic()
        self._settings = settings
        self._send = send
        self._opener = opener
        self._detector = detector
        self._announced = announced
        self._partition = partition
        self._log = {"stream_id": announced.stream_id}
        if previous is not None and previous.announced_offset == offset:
            self.status = previous  # the process that captured it is gone: go on
            self._older = None
        else:
            epoch = 0 if previous is None else previous.epoch + 1
            self.status = StreamStatus(
                stream_id=announced.stream_id,
                epoch=epoch,
                first_epoch=epoch,
                state="connecting",
                announced_offset=offset,
            )
            self._older = previous
        self._resumed = self.status is previous
        self._epoch_open = is_epoch_open(self.status)
        self._connected = self._epoch_open or self.status.live  # at least once
        self._frames_until = self._speech_until = self.status.sent_until_ms
        self._frame_at_ms = self.status.frame_at_ms
        self._source: MediaSource | None = None  # source of the newest connection
        self._worked = False  # the newest connection has given something
        self._told_s = 0.0

    async def run(self) -> None:
        """Plays the stream to its end, reconnecting where that helps."""
        if self._older is not None and is_epoch_open(self._older):
            await close_epoch(self._send, self._older)
        if self._resumed and self.status.live:
            await self._close_epoch()  # the crash cut it off; a new epoch begins
        if not self._resumed:
            await self._tell("connecting")
        down_since = time.monotonic()
        pause_s = FIRST_PAUSE_S
        while True:
            self._worked = False
            try:
                played = await self._play()
            except BadSource as error:
                await self._fail(str(error))
                return
            except SourceDown as error:
                reason = str(error)
            else:
                if played.over:
                    await self._end(played.detail)
                    return
                reason = CLOSED
            if self._worked:
                down_since, pause_s = time.monotonic(), FIRST_PAUSE_S
            if time.monotonic() - down_since >= self._settings.reconnect_give_up_s:
                outcome = f"{reason}; given up after {self._settings.reconnect_give_up_s:g} s"
                # Few servers say that a broadcast is over. One that was received and stays away is taken to have ended.
                if self.status.live:
                    await self._end(outcome)
                else:
                    await self._fail(outcome)
                return
            _log.warning("a stream is down, trying again", extra={**self._log, "reason": reason, "pause_s": pause_s})
            await self._tell("stalled", reason)
            await asyncio.sleep(self._spread(pause_s))
            pause_s = min(pause_s * 2, self._settings.reconnect_max_s)

    async def stop(self, offset: int) -> None:
        """Ends the stream from outside, after `run` was cancelled.

        Args:
            offset: Offset of the announcement that ends it.
        """
        await self._close_epoch()
        self.status = msgspec.structs.replace(self.status, announced_offset=offset)
        await self._tell("ended")

    # ------------------------------------------------------------------ one connection

    async def _play(self) -> Played:
        outbox: Outbox[PlayerItem] = Outbox(asyncio.get_running_loop(), CAPACITY)
        plan = Plan(
            url=self._announced.url,
            facts=StreamFacts(
                self._announced.stream_id,
                self._announced.language,
                self._announced.product_ids,
                live=False,
                has_audio=False,
            ),
            live_epoch=self.status.epoch + (1 if self._connected else 0),
            first_epoch=self.status.first_epoch,
            resume_epoch=self.status.epoch,
            resume_ms=self.status.sent_until_ms,
            was_live=self.status.live,
            seen=self._source.seen if self._source is not None else None,
        )
        start_player(plan, self._settings, self._opener, outbox, self._detector)
        pace: Pace = Unpaced()
        try:
            while True:
                item = await outbox.get()
                if isinstance(item, Opened):
                    pace = await self._opened(item.source, plan)
                elif isinstance(item, Played):
                    return item
                elif item is None:
                    raise RuntimeError("a player ended without saying how")
                else:
                    await self._deliver(item, pace)
        finally:
            outbox.leave()
            await pace.close()

    async def _opened(self, source: MediaSource, plan: Plan) -> Pace:
        self._source, info = source, source.info
        changes: dict[str, Any] = {"live": info.live}
        if self._connected:
            metrics.RECONNECTS.inc()
            changes["reconnects"] = self.status.reconnects + 1
        if info.live:
            self._enter(plan.live_epoch)
        self.status = msgspec.structs.replace(self.status, **changes)
        self._connected = self._epoch_open = self._worked = True
        self.last_frame_s = time.monotonic()
        if not info.has_audio:
            _log.warning(NO_SOUND, extra=self._log)
        await self._tell("live", self._notes())
        if info.live:
            return Unpaced()
        if self._announced.realtime:
            return RealTime()
        return Ahead(
            self._settings, self._announced.stream_id, self._partition, self.status.epoch, self.status.sent_until_ms
        )

    async def _deliver(self, record: OutRecord, pace: Pace) -> None:
        is_frame = isinstance(record, Frame)
        position_ms = record.pts_ms if isinstance(record, Frame) else record.end_ms
        if not self.status.live:
            await self._wait(pace, record.epoch, position_ms)
            record = msgspec.structs.replace(record, captured_at_ms=_now_ms())
        if record.epoch > self.status.epoch:
            self._enter(record.epoch)
        try:
            await self._send(LIVE_FRAMES if is_frame else LIVE_SPEECH, record.stream_id, record)
        except BadInput as error:
            metrics.FRAMES_DROPPED.labels("too_large").inc()
            _log.warning("dropped a record", extra={**self._log, "reason": str(error)})
        if is_frame:
            self._frames_until = max(self._frames_until, position_ms if record.end_of_epoch else position_ms + 1)
            if not record.end_of_epoch:
                metrics.FRAMES_SAMPLED.inc()
                self.last_frame_s = time.monotonic()
                self._frame_at_ms = record.captured_at_ms
        else:
            self._speech_until = max(self._speech_until, position_ms)
            if record.end_of_epoch:
                self._epoch_open = False
        if time.monotonic() - self._told_s >= STATUS_EVERY_S or record.end_of_epoch:
            await self._tell("live", self._notes())

    async def _wait(self, pace: Pace, epoch: int, position_ms: int) -> None:
        try:
            async with asyncio.timeout(STATUS_EVERY_S):
                await pace.wait(epoch, position_ms)
        except TimeoutError:
            await self._tell("live", self._notes())  # it may be long before the next record
            await pace.wait(epoch, position_ms)

    # ------------------------------------------------------------------ state

    def _enter(self, epoch: int) -> None:
        self._epoch_open = True
        self._frames_until = self._speech_until = 0
        self.status = msgspec.structs.replace(self.status, epoch=epoch, sent_until_ms=0)

    async def _close_epoch(self) -> None:
        if self._epoch_open:
            until_ms = max(self._frames_until, self._speech_until)
            await close_epoch(self._send, msgspec.structs.replace(self.status, sent_until_ms=until_ms))
            self._epoch_open = False

    async def _end(self, detail: str) -> None:
        await self._tell("ended", self._notes(detail))

    def _notes(self, detail: str | None = None) -> str:
        """Returns what is wrong with the newest connection, and the detail if there is one."""
        silent = self._source is not None and not self._source.info.has_audio
        of_source = "" if self._source is None else self._source.detail
        notes = [NO_SOUND if silent else "", of_source, "" if detail == of_source else detail or ""]
        return "; ".join(note for note in notes if note)

    async def _fail(self, detail: str) -> None:
        await self._close_epoch()
        _log.error("a stream has failed", extra={**self._log, "reason": detail})
        await self._tell("failed", detail)

    async def fail(self, error: Exception) -> None:
        """Ends the stream because of an unexpected error."""
        await self._fail(f"{self._announced.url}: capture broke down ({type(error).__name__}: {error})")

    async def _tell(self, state: str, detail: str = "") -> None:
        self.status = msgspec.structs.replace(
            self.status,
            state=state,
            detail=redacted(detail),
            at_ms=_now_ms(),
            frame_at_ms=self._frame_at_ms,
            sent_until_ms=max(self.status.sent_until_ms, min(self._frames_until, self._speech_until)),
        )
        self._told_s = time.monotonic()
        await self._send(STREAM_STATUS, self.status.stream_id, self.status)

    def _spread(self, pause_s: float) -> float:
        """Returns 75 to 100 % of a pause, by stream, so that a server's streams do not all return at once."""
        return pause_s * (0.75 + 0.25 * zlib.crc32(self.status.stream_id.encode()) / 0xFFFFFFFF)


def is_epoch_open(status: StreamStatus) -> bool:
    """Says whether records of the epoch may have been sent, but not its end.

    A network stream that stalls ends its epoch; a recording that does is read again and goes on with it.
    """
    return status.state == "live" or (status.state == "stalled" and not status.live and status.sent_until_ms > 0)


async def close_epoch(send: Send, status: StreamStatus) -> None:
    """Ends an epoch whose capture is gone, so that its windows and sightings close."""
    facts = StreamFacts(status.stream_id, None, None, live=status.live, has_audio=True)
    frame, speech = end_of_epoch(facts, status.epoch, status.sent_until_ms, _now_ms())
    await send(LIVE_FRAMES, status.stream_id, frame)
    await send(LIVE_SPEECH, status.stream_id, speech)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
