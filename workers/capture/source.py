"""Media sources through PyAV (FFmpeg): files and rtmp, rtsp, srt, HLS and HTTP-FLV streams."""

import logging
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from topology import metrics
from topology.settings import Settings, load_settings
from workers.capture.address import NETWORK_SCHEMES, check_file, local_path, scheme_of
from workers.capture.clock import MediaClock
from workers.capture.explain import explain
from workers.capture.media import SAMPLE_RATE, BadSource, MediaItem, NewEpoch, Picture, Sound, SourceDown, SourceInfo
from workers.capture.relay import Relay

_log = logging.getLogger(__name__)

_US = Fraction(1_000_000)

# Broken reads in a row after which a file is given up. A damaged spot takes a few; at a few hundred bytes each,
# more would crawl through megabytes of noise.
_BROKEN_READS = 20

# An HLS playlist begins with its last segments: what a reconnect finds may have been read before. Longer than any
# playlist of a live stream; a stream that began anew within it, on the same clock, cannot be told from a repeat.
_REPEATED_US = 60_000_000

# Pictures and pieces of sound among which a probe looks for the first picture: some 40 s of sound.
_PROBED_ITEMS = 2_000

# Pictures that no other is coded from may be left out if enough others remain for the sampling grid.
_SPARSE_FACTOR = 4

# Demuxers that make a "video" of what is none: text files drawn as a terminal, single pictures.
_NOT_VIDEO = re.compile(r"^(tty|image2|.*_pipe|.*subtitle.*|srt|webvtt)$")


def open_source(url: str, settings: Settings, seen_us: int | None = None) -> "AvSource":
    """Opens a source, within about twice `open_timeout_s` (connecting, then finding its streams).

    Args:
        url: A path or URL.
        settings: Time-outs, sampling, height.
        seen_us: `AvSource.seen_us` of the connection before, if there was one.

    Raises:
        BadSource: It is no video, or not there, and trying again will not change that.
        SourceDown: It cannot be reached now.
    """
    scheme = scheme_of(url)
    if not scheme:
        check_file(url)
        target, options = f"file:{local_path(url).absolute()}", {}
    elif scheme not in NETWORK_SCHEMES:
        raise BadSource(f"{url}: unknown scheme `{scheme}`: use a file's path or one of {', '.join(NETWORK_SCHEMES)}")
    else:
        target = url
        # RTP over UDP loses packets behind most firewalls; over TCP it is the same stream.
        options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}
    timeout = (settings.open_timeout_s, settings.stall_timeout_s)
    relay: Relay | None = None
    try:
        try:
            container = av.open(target, timeout=timeout, options=options, metadata_errors="replace")
        except av.error.ProtocolNotFoundError:
            relay = Relay(url, *timeout)
            container = av.open(relay, format="mpegts", metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        _close(relay)
        if relay is not None and relay.failure is not None:
            raise relay.failure from error
        raise explain(url, error, network=bool(scheme), after_s=settings.open_timeout_s) from error
    except BaseException:
        _close(relay)
        raise
    try:
        return AvSource(url, container, settings, seen_us, relay)
    except BaseException:
        container.close()
        _close(relay)
        raise


def _close(relay: Relay | None) -> None:
    if relay is not None:
        relay.close()


def probe(url: str, settings: Settings | None = None) -> SourceInfo:
    """Looks whether a source can be played, before work is built on it. Of a file, one picture is decoded.

    Raises:
        UserError: It cannot; the line names it and the mend.
    """
    try:
        source = open_source(url, settings or load_settings())
        try:
            if not source.info.live and not any(isinstance(item, Picture) for item in islice(source, _PROBED_ITEMS)):
                raise BadSource(f"{url}: none of its pictures can be decoded: convert or download it again")
            return source.info
        finally:
            source.close()
    except SourceDown as error:
        raise BadSource(str(error)) from error


class AvSource:
    """An open container, decoded as cheaply as the sampling policy allows. See `MediaSource`.

    Attributes:
        corrupt: Packets and pictures that could not be decoded.
    """

    def __init__(
        self,
        url: str,
        container: Any,
        settings: Settings,
        seen_us: int | None = None,
        relay: Relay | None = None,
    ) -> None:
        self.url = url
        self.detail = ""
        self.corrupt = 0
        self.seen_us: int | None = None
        self._seen_before_us = seen_us
        self._is_hls = container.format.name == "hls"
        self._container = container
        self._relay = relay
        self._settings = settings
        self._is_network = bool(scheme_of(url))
        if _NOT_VIDEO.match(container.format.name):
            raise BadSource(f"{url}: not a video ({container.format.long_name}): name a video file or stream")
        self._video = _choose_video(container, settings.frame_height)
        if self._video is None:
            what = "has sound but no picture" if container.streams.audio else "has neither picture nor sound"
            raise BadSource(f"{url}: {what}: name a source with a video stream")
        self._audio = _choose_audio(container, self._video)
        for stream in (self._video, self._audio):
            if stream is not None and stream.codec_context is None:
                raise BadSource(f"{url}: its {stream.type} codec is unknown here: convert it to H.264 and AAC")
        for stream in container.streams:
            if stream not in (self._video, self._audio) and hasattr(stream, "discard"):
                stream.discard = "all"  # other HLS variants are then not even downloaded
        duration_ms = container.duration // 1000 if container.duration and container.duration > 0 else None
        self.info = SourceInfo(
            duration_ms=duration_ms,
            has_video=True,
            has_audio=self._audio is not None,
            live=self._is_network and not self._is_recording(duration_ms),
            width=self._video.codec_context.width or 0,
            height=self._video.codec_context.height or 0,
        )
        self._video.codec_context.skip_frame = self._skip_frame()
        # Streams are the unit of parallel work; threads within a decoder add delay and memory to each.
        self._video.codec_context.thread_count = 1
        self._clock = MediaClock()
        self._resampler: Any = None
        self._resampled = Fraction(0)  # samples at SAMPLE_RATE that went into the resampler, less those that came out
        self._audio_next_us = 0
        self._video_next_us = 0

    def __iter__(self) -> Iterator[MediaItem]:
        """Yields pictures, sound and epoch changes in the order of the container."""
        stall_s = self._settings.stall_timeout_s
        last_video = time.monotonic()
        for packet in self._packets():
            stream = packet.stream
            if packet.pts is None and packet.dts is None and packet.size == 0:
                yield from self._decode(stream, None)
                continue
            if stream is self._video:
                last_video = time.monotonic()
                yield from self._video_packet(packet)
            else:
                yield from self._audio_packet(packet)
                if self.info.live and time.monotonic() - last_video > stall_s:
                    # Wall clock alone would also tell of a connection that stands still between two packets.
                    if self._audio_next_us - self._video_next_us > stall_s * _US:
                        raise SourceDown(f"{self.url}: no picture for {stall_s:g} s, only sound")

    def close(self) -> None:
        """Closes the container."""
        self._container.close()
        _close(self._relay)

    def _is_recording(self, duration_ms: int | None) -> bool:
        """Says whether a network source has an end: an HLS playlist that is closed, or a file on a web server.

        FLV names a duration in its header also when it is live.
        """
        if self._is_hls:
            return duration_ms is not None
        return scheme_of(self.url) in ("http", "https") and self._container.size > 0

    def _was_seen(self, time_us: int) -> bool:
        """Says whether an HLS playlist, opened anew, repeats what the connection before had read."""
        before = self._seen_before_us
        return self._is_hls and before is not None and before - _REPEATED_US <= time_us <= before

    def _skip_frame(self) -> str:
        if self._settings.sampling == "keyframes":
            return "NONKEY"
        rate = self._video.average_rate or self._video.guessed_rate
        return "NONREF" if rate and rate >= _SPARSE_FACTOR * self._settings.frames_per_second else "DEFAULT"

    def _packets(self) -> Iterator[Any]:
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        broken = 0
        while True:
            try:
                for packet in self._container.demux(streams):
                    broken = 0
                    yield packet
                break
            except av.error.InvalidDataError:
                self._count_damage()
                broken += 1
                if broken > _BROKEN_READS:
                    if self._is_network:
                        raise SourceDown(f"{self.url}: sends data that cannot be read") from None
                    break
            except (av.error.FFmpegError, OSError) as error:
                if self._is_network:
                    raise explain(
                        self.url, error, network=True, after_s=self._settings.stall_timeout_s, opened=True
                    ) from error
                self.detail = f"reading broke off: {error.strerror}"
                break
        if self._relay is not None and self._relay.failure is not None:
            raise self._relay.failure
        self._note_damage()

    def _count_damage(self) -> None:
        self.corrupt += 1
        metrics.PACKETS_DAMAGED.inc()

    def _note_damage(self) -> None:
        notes = [self.detail] if self.detail else []
        if self.corrupt:
            notes.append(f"{self.corrupt} damaged packets were skipped")
        end_ms = self._clock.position_us(max(self._video_next_us, self._audio_next_us)) // 1000
        expected_ms = self.info.duration_ms
        # Durations in headers are estimates in some containers; a twentieth or two seconds is no damage.
        if expected_ms is not None and not self.info.live and end_ms < expected_ms - max(2_000, expected_ms // 20):
            notes.append(f"ends after {end_ms / 1000:.0f} s of {expected_ms / 1000:.0f} s: truncated or damaged")
        self.detail = "; ".join(notes)

    def _video_packet(self, packet: Any) -> Iterator[MediaItem]:
        duration_us = _us(packet.duration, packet.time_base) or self._picture_us()
        dts_us = _us(packet.dts if packet.dts is not None else packet.pts, packet.time_base)
        if dts_us is None:
            dts_us = self._video_next_us
        if self._was_seen(dts_us):
            return
        if self._is_hls and self.info.live:
            self.seen_us = max(dts_us, self.seen_us or dts_us)
        pts_us = _us(packet.pts, packet.time_base)
        known_zero = self._clock.zero_us
        verdict = self._clock.video(dts_us, dts_us if pts_us is None else pts_us, duration_us)
        if verdict == "new":
            new_zero, self._clock.zero_us = self._clock.zero_us, known_zero
            yield from self._drain()  # what the decoders hold belongs to the old epoch
            self._clock.zero_us = new_zero
            yield NewEpoch()
        self._video_next_us = dts_us + duration_us
        yield from self._decode(self._video, packet)

    def _audio_packet(self, packet: Any) -> Iterator[MediaItem]:
        pts_us = _us(packet.pts if packet.pts is not None else packet.dts, packet.time_base)
        if pts_us is None:
            pts_us = self._audio_next_us
        if self._was_seen(pts_us):
            return
        duration_us = _us(packet.duration, packet.time_base) or 0
        if self._clock.audio(pts_us, duration_us) == "stale":
            return
        self._audio_next_us = pts_us + duration_us
        yield from self._decode(self._audio, packet)

    def _drain(self) -> Iterator[MediaItem]:
        for stream in (self._video, self._audio):
            if stream is not None:
                yield from self._decode(stream, None)
                stream.codec_context.flush_buffers()

    def _decode(self, stream: Any, packet: Any) -> Iterator[MediaItem]:
        try:
            frames = stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            self._count_damage()
            return
        for frame in frames:
            if frame.is_corrupt:
                self._count_damage()
            elif stream is self._video:
                yield self._picture(frame)
            else:
                yield from self._sound(frame)
        if packet is None and stream is self._audio:
            yield from self._flush_resampler()

    def _picture(self, frame: Any) -> Picture:
        time_us = _frame_us(frame, self._video)
        position_us = self._clock.position_us(self._video_next_us if time_us is None else time_us)
        aspect = self._video.sample_aspect_ratio
        return Picture(
            pts_ms=max(0, round(position_us / 1000)),
            render=lambda: _bgr(frame),
            keyframe=bool(frame.key_frame),
            rotation=_quarter_turns(frame.rotation),
            pixel_aspect=float(aspect) if aspect else 1.0,
        )

    def _sound(self, frame: Any) -> Iterator[Sound]:
        time_us = _frame_us(frame, self._audio)
        start = self._clock.position_us(self._audio_next_us if time_us is None else time_us)
        first = round(start * SAMPLE_RATE / _US - self._resampled)
        try:
            if self._resampler is None:
                self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            pieces = self._resampler.resample(frame)
        except (av.error.FFmpegError, ValueError):
            # The format changed in mid-stream: the resampler is bound to the first one.
            self._resampler, self._resampled = None, Fraction(0)
            self._count_damage()
            return
        samples = _samples(pieces)
        self._resampled += Fraction(frame.samples * SAMPLE_RATE, frame.sample_rate) - len(samples)
        if len(samples):
            yield Sound(first, samples)

    def _flush_resampler(self) -> Iterator[Sound]:
        if self._resampler is None:
            return
        samples = _samples(self._resampler.resample(None))
        end_us = self._clock.position_us(self._audio_next_us)
        first = round(end_us * SAMPLE_RATE / _US) - len(samples)
        self._resampler, self._resampled = None, Fraction(0)
        if len(samples):
            yield Sound(first, samples)

    def _picture_us(self) -> int:
        rate = self._video.average_rate or self._video.guessed_rate
        return round(_US / rate) if rate else 40_000


def _choose_video(container: Any, height: int) -> Any:
    """Returns the smallest video stream that is high enough, else the highest; never a cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    enough = [s for s in streams if s.codec_context is not None and s.codec_context.height >= height]
    if enough:
        return min(enough, key=lambda s: (s.codec_context.height, s.index))
    return max(streams, key=lambda s: (s.codec_context.height if s.codec_context else -1, -s.index), default=None)


def _choose_audio(container: Any, video: Any) -> Any:
    """Returns the sound of the same HLS variant where there are variants, else the best sound."""
    variant = video.metadata.get("variant_bitrate")
    for stream in container.streams.audio:
        if variant is not None and stream.metadata.get("variant_bitrate") == variant:
            return stream
    return container.streams.best("audio")


def _us(value: int | None, time_base: Fraction | None) -> int | None:
    return None if value is None or time_base is None else round(value * time_base * _US)


def _frame_us(frame: Any, stream: Any) -> int | None:
    # Frames that the decoder gives at the end, when it is drained, have no time base of their own.
    return _us(frame.pts, frame.time_base or stream.time_base)


def _quarter_turns(rotation: int | float) -> int:
    return round(rotation / 90) * 90


def _bgr(frame: Any) -> npt.NDArray[np.uint8]:
    image: npt.NDArray[np.uint8] = frame.to_ndarray(format="bgr24")
    return image


def _samples(pieces: list[Any]) -> npt.NDArray[np.int16]:
    if not pieces:
        return np.zeros(0, np.int16)
    return np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces]).astype(np.int16, copy=False)
