"""Media sources through PyAV (FFmpeg): files and rtmp, rtsp, srt, HLS and HTTP-FLV streams."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import Any

import av
import av.error

from topology.settings import Settings, load_settings
from workers.capture.address import check_allowed, is_camera, local_path, scheme_of
from workers.capture.clock import AUDIO_OFFSET_US, FORWARD_GAP_US, FORWARD_JUMP_US, DecodingTimes, MediaClock, Unwrap
from workers.capture.colour import Renderer
from workers.capture.explain import explain
from workers.capture.joined import JoinedSource, Part
from workers.capture.losses import Losses
from workers.capture.media import BadSource, MediaItem, MediaSource, NewEpoch, Picture, Sound, SourceDown, SourceInfo
from workers.capture.mixdown import Mixdown
from workers.capture.opening import open_container
from workers.capture.relay import Relay
from workers.capture.repeats import LIVE_PAST_S, PacketMemory
from workers.capture.tracks import NOT_VIDEO, choose_audio, choose_video, leave_others

_US = 1_000_000

# Failed reads in a row after which a file is given up. A damaged spot takes a few; each skips a few hundred bytes, so
# many more would be needed to cross megabytes of noise.
_BROKEN_READS = 20

# Pictures and pieces of sound that a probe decodes in search of a picture: some 40 s of sound.
_PROBED_ITEMS = 2_000

# Non-reference pictures may be skipped if enough others remain for the sampling grid.
_SPARSE_FACTOR = 4

# Pictures that a decoder may hold back.
_DECODER_DELAY = 4

# Packets of a track in a row without output after which its codec may have changed. A decoder holds back 16 pictures at
# most; each check that finds nothing costs as much as opening the file.
_UNDECODED, _UNDECODED_KEYFRAMES = 20, 3

# Between decoding and display: 16 pictures of one in two seconds.
_LONGEST_LAG_US = 32_000_000

# Shortest stretch without pictures at the end of a recording that is reported. Sound often goes on a little longer.
_UNSEEN_S = 2.0

# Containers with an index, whose time stamps come from one clock: a gap means that the picture stands still.
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"
_INDEXED = (_MP4, _MATROSKA, "avi")

# Containers that can be read from any place on.
_ANYWHERE = ("mpegts", "mpeg")

# FLV has 31 bits for milliseconds, FFmpeg reads 32: after 25 days, a stream would seem to jump.
_FLV_WRAP_MS = 1 << 31


def open_source(url: str, settings: Settings, seen: PacketMemory | None = None) -> MediaSource:
    """Opens a source, within about twice `open_timeout_s` (connecting, then finding its streams).

    Args:
        url: A path or URL.
        settings: Time-outs, sampling, height.
        seen: `AvSource.seen` of the connection before, if there was one.

    Raises:
        BadSource: It is not a video, or not there, and trying again will not change that.
        SourceDown: It cannot be reached now.
    """
    check_allowed(url, settings)

    def opened(part: Part | None = None, has_changed: Callable[[int], bool] | None = None) -> AvSource:
        container, relay = open_container(url, settings, part)
        try:
            source = AvSource(url, container, settings, seen, relay, has_changed)
            if part is not None and len(part) > 1:  # FFmpeg takes the last time stamp for the length
                source.info = replace(source.info, duration_ms=None)
            return source
        except BaseException:
            container.close()
            if relay is not None:
                relay.close()
            raise

    path = local_path(url)
    is_file = not scheme_of(url) and path.is_file() and os.access(path, os.R_OK)
    return JoinedSource(opened, path) if is_file else opened()


def probe(url: str, settings: Settings | None = None) -> SourceInfo:
    """Checks whether a source can be played before other work begins. For a file, one picture is decoded.

    Raises:
        UserError: It cannot; the line names the source and the mend.
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


@dataclass
class _Nothing:
    """Packets of a track in a row that gave no picture or sound.

    Attributes:
        pos: Position of the first of them in the file, in bytes.
        pts: Time stamp of the first of them.
        heard_us: How far sound had come then.
    """

    pos: int | None
    pts: int | None
    heard_us: int
    packets: int = 0
    damaged: int = 0


class AvSource:
    """An open container, decoded as cheaply as the sampling policy allows. See `MediaSource`."""

    def __init__(
        self,
        url: str,
        container: Any,
        settings: Settings,
        seen: PacketMemory | None = None,
        relay: Relay | None = None,
        has_changed: Callable[[int], bool] | None = None,
    ) -> None:
        self.url = url
        self.over = False
        self.seen = seen or PacketMemory()
        self.losses = Losses()
        self._container = container
        self._relay = relay
        self._settings = settings
        self._only_keyframes = settings.sampling == "keyframes"
        self._is_hls = container.format.name == "hls"
        self._scheme = scheme_of(url)
        if NOT_VIDEO.match(container.format.name):
            raise BadSource(f"{url}: not a video ({container.format.long_name}): name a video file or stream")
        self._video = choose_video(container, settings.frame_height)
        if self._video is None:
            what = "has sound but no picture" if container.streams.audio else "has neither picture nor sound"
            raise BadSource(f"{url}: {what}: name a source with a video stream")
        if self._video.codec_context is None:
            raise BadSource(f"{url}: its video codec is unknown here: convert it to H.264 and AAC")
        self._audio = choose_audio(container, self._video)
        leave_others(container, (self._video, self._audio))
        duration_ms = container.duration // 1000 if container.duration and container.duration > 0 else None
        if duration_ms and container.format.name == _MATROSKA:  # counts from 0, whenever its first picture is
            duration_ms -= max(0, container.start_time or 0) // 1000
        self.info = SourceInfo(
            duration_ms=duration_ms,
            has_audio=self._audio is not None,
            live=is_camera(url) or (bool(self._scheme) and not self._is_recording(duration_ms)),
            width=self._video.codec_context.width or 0,
            height=self._video.codec_context.height or 0,
            codecs=tuple(track.codec_context.name for track in (self._video, self._audio) if track is not None),
        )
        # FFmpeg finds the tracks of these from any place on.
        self._has_changed = has_changed if container.format.name in _ANYWHERE else None
        self._is_changed = self._heard = False
        self._nothing: dict[int, _Nothing] = {}  # by track
        self._video.codec_context.skip_frame = self._skip_frame()
        # Streams are the unit of parallel work; threads within a decoder add delay and memory to each.
        self._video.codec_context.thread_count = 1
        self._may_lose = self.info.live or self._is_hls  # elsewhere, a hole means that the picture stands still
        # Servers of these may repeat earlier media after a reconnect.
        self._may_repeat = self.info.live and self._scheme in ("http", "https")
        indexed = container.format.name in _INDEXED and not self.info.live
        self._forward_us = FORWARD_GAP_US if indexed else FORWARD_JUMP_US
        self._lag_us = max(self._forward_us, _LONGEST_LAG_US)
        self._clock, self._decoding = MediaClock(self._forward_us), DecodingTimes(self._lag_us)
        self._unwrap = Unwrap(_FLV_WRAP_MS) if "flv" in container.format.name else None
        self._render = Renderer()
        self._mixdown = Mixdown()
        self._broken_off = ""  # why reading ended before the end
        self._joined = False  # its clock changed
        self._video_next_us = self._audio_next_us = 0
        self._end_us: int | None = None  # latest end of a picture or sound in the epoch
        self._seen_us: int | None = None  # latest end of a decoded picture in the epoch
        self._old_pictures: set[int] = set()  # time stamps of pictures that the connection before has given
        self._cut = ""  # why a recording is shorter than its header says
        # When the last picture came, and the stream's time stamp then; and packets since that should have given one.
        self._picture_at: tuple[float, int | None] = (time.monotonic(), None)
        self._undecoded = 0
        self._read_bytes = 0  # end of the last packet in the file

    @property
    def detail(self) -> str:
        """What was wrong with the source so far."""
        return "; ".join([note for note in (self._broken_off, *self.losses.notes(), self._cut) if note])

    def __iter__(self) -> Iterator[MediaItem]:
        """Yields pictures, sound and epoch changes in the order of the container."""
        self.seen.connect()
        began_s = time.monotonic()
        self._picture_at = (began_s, None)
        for packet in self._packets():
            if self._unwrap is not None:
                self._unwrap.packet(packet)
            if self._may_repeat and self.seen.knows(packet):
                self._old_packet(packet)
            elif packet.stream is self._video:
                yield from self._video_packet(packet)
            else:
                yield from self._audio_packet(packet)
            if self.info.live:
                self._check_progress(packet)
            if self._may_repeat and not self._is_hls:
                _keep_pace(self._length_us() / _US - (time.monotonic() - began_s))
        yield from self._drain()
        if not self._is_changed:
            self._finish()

    def seek(self, media_ms: int) -> None:
        """Goes to the last keyframe before a media time of the first epoch, once a picture of it has come.

        Where the container cannot, it stays where it is.
        """
        zero_us = self._clock.zero_us or 0
        try:
            self._container.seek(zero_us + 1000 * media_ms)
        except (av.error.FFmpegError, OSError):
            return
        for stream in (self._video, self._audio):
            if stream is not None:
                stream.codec_context.flush_buffers()
        self._clock, self._decoding = MediaClock(self._forward_us), DecodingTimes(self._lag_us)
        self._clock.zero_us = zero_us

    def close(self) -> None:
        """Closes the container."""
        self._container.close()
        if self._relay is not None:
            self._relay.close()

    def _is_recording(self, duration_ms: int | None) -> bool:
        """Says whether a network source has an end: a closed HLS playlist, or a file on a web server.

        A file has a length, or says in its header how long it plays; live streams have and say neither.
        """
        if self._is_hls or self._scheme not in ("http", "https"):
            return self._is_hls and duration_ms is not None
        return self._container.size > 0 or duration_ms is not None

    def _skip_frame(self) -> str:
        if self._only_keyframes:
            return "NONKEY"
        rate = self._video.average_rate or self._video.guessed_rate
        return "NONREF" if rate and rate >= _SPARSE_FACTOR * self._settings.frames_per_second else "DEFAULT"

    # ------------------------------------------------------------------ packets

    def _packets(self) -> Iterator[Any]:
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        broken = 0
        read_at = time.monotonic()
        while True:
            try:
                for packet in self._container.demux(streams):
                    if packet.size:  # PyAV ends with empty packets
                        broken, read_at = 0, time.monotonic()
                        self._read_bytes = max(self._read_bytes, (packet.pos or 0) + packet.size)
                        yield packet
                        if self._is_changed:
                            return
                break
            except IndexError:  # PyAV's, at the end, where tracks were found on the way
                break
            except av.error.InvalidDataError:
                self.losses.damage()
                broken += 1
                if broken > _BROKEN_READS:
                    if self._scheme:
                        raise SourceDown(f"{self.url}: sends data that cannot be read") from None
                    break
            except (av.error.FFmpegError, OSError) as error:
                if self._end_us is None and error.errno == errno.EIO:  # FFmpeg's, where it cannot go back
                    self._check_index()
                if self._scheme or self.info.live:
                    after_s = self._settings.stall_timeout_s
                    raise explain(self.url, error, network=True, after_s=after_s, opened=True) from error
                self._broken_off = f"reading broke off: {error.strerror}"
                break
        if self._relay is not None and self._relay.failure is not None:
            raise self._relay.failure
        waited_s = time.monotonic() - read_at
        if self._is_hls and self.info.live and waited_s >= self._settings.stall_timeout_s:
            # FFmpeg reports a playlist without new segments as the end.
            raise SourceDown(f"{self.url}: its playlist has had no new segment for {waited_s:.0f} s")

    def _video_packet(self, packet: Any) -> Iterator[MediaItem]:
        duration_us = _us(packet.duration, packet.time_base) or self._picture_us()
        pts_us = _us(packet.pts, packet.time_base)
        order_us = self._decoding.time_us(_us(packet.dts, packet.time_base), pts_us, self._video_next_us)
        pts_us = order_us if pts_us is None else pts_us
        known_zero = self._clock.zero_us
        if self._may_lose:
            self.losses.follow("picture", order_us, duration_us, known_zero or 0)
        verdict = self._clock.video(order_us, pts_us, duration_us)
        if verdict == "new":
            new_zero, self._clock.zero_us = self._clock.zero_us, known_zero
            yield from self._drain()  # what the decoders hold belongs to the old epoch
            self._tell_unseen()
            for stream in (self._video, self._audio):
                if stream is not None:
                    stream.codec_context.flush_buffers()
            self._joined = True
            self._clock.zero_us, self._end_us, self._audio_next_us = new_zero, None, pts_us
            yield NewEpoch()
        self._video_next_us = order_us + duration_us
        self._end_us = _later(self._end_us, pts_us + duration_us)
        yield from self._decode(self._video, packet)

    def _audio_packet(self, packet: Any) -> Iterator[MediaItem]:
        pts_us = _us(packet.pts if packet.pts is not None else packet.dts, packet.time_base)
        if pts_us is None:
            pts_us = self._audio_next_us
        duration_us = _us(packet.duration, packet.time_base) or 0
        if self._clock.audio(pts_us, duration_us) == "stale":
            self.losses.stale(duration_us)
            return
        if self._may_lose:
            self.losses.follow("sound", pts_us, duration_us, self._clock.zero_us or 0)
        self._audio_next_us = pts_us + duration_us
        self._end_us = _later(self._end_us, self._audio_next_us)
        yield from self._decode(self._audio, packet)

    def _old_packet(self, packet: Any) -> None:
        """Decodes a packet that was read before, which later packets need. Its output is dropped."""
        if packet.stream is self._video and self.seen.is_near:
            if packet.pts is not None:
                self._old_pictures.add(packet.pts)
            for _ in self._decode(self._video, packet):
                pass

    # ------------------------------------------------------------------ pictures and sound

    def _drain(self) -> Iterator[MediaItem]:
        for stream in (self._video, self._audio):
            if stream is not None:
                yield from self._decode(stream, None)
        yield from self._mixdown.flush(self._clock.position_us(self._audio_next_us))

    def _decode(self, stream: Any, packet: Any) -> Iterator[MediaItem]:
        try:
            frames = stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            frames = None
        if frames is None:
            self.losses.damage()
        if packet is not None and not self._is_changed:
            self._follow_codec(stream, packet, frames)
        for frame in frames or ():
            if frame.is_corrupt:
                self.losses.damage()
            elif stream is not self._video:
                yield from self._sound(frame)
            elif frame.pts is None or frame.pts not in self._old_pictures:
                yield self._picture(frame)

    def _follow_codec(self, stream: Any, packet: Any, frames: Any) -> None:
        """Checks whether a track's codec has changed, if its packets give no output."""
        since = self._nothing.get(stream.index)
        if frames:
            # Pictures that the decoder held back do not show that later packets can be decoded.
            if since is not None and any((frame.pts or 0) >= (since.pts or 0) for frame in frames):
                del self._nothing[stream.index]
            return
        only_keyframes = stream is self._video and self._only_keyframes
        if only_keyframes and not packet.is_keyframe:
            return
        if since is None:
            since = self._nothing[stream.index] = _Nothing(packet.pos, packet.pts, self._audio_next_us)
        since.packets += 1
        since.damaged += frames is None
        most = _UNDECODED_KEYFRAMES if only_keyframes else _UNDECODED
        if since.packets == most and self._has_changed is not None and since.pos is not None:
            self._is_changed = self._has_changed(since.pos)
            if self._is_changed:
                self.losses.damaged -= since.damaged

    def _picture(self, frame: Any) -> Picture:
        self._picture_at, self._undecoded = (time.monotonic(), self._video_next_us), 0
        time_us = _frame_us(frame, self._video)
        time_us = self._video_next_us if time_us is None else time_us
        length_us = _us(frame.duration, frame.time_base or self._video.time_base) or self._picture_us()
        self._seen_us = _later(self._seen_us, time_us + length_us)
        position_us = self._clock.position_us(time_us)
        aspect = self._video.sample_aspect_ratio
        return Picture(
            pts_ms=max(0, round(position_us / 1000)),
            render=lambda: self._render(frame),
            keyframe=bool(frame.key_frame),
            rotation=_quarter_turns(frame.rotation),
            pixel_aspect=float(aspect) if aspect else 1.0,
        )

    def _sound(self, frame: Any) -> Iterator[Sound]:
        self._heard = True
        time_us = _frame_us(frame, self._audio)
        try:
            yield from self._mixdown.take(
                frame, self._clock.position_us(self._audio_next_us if time_us is None else time_us)
            )
        except (av.error.FFmpegError, ValueError):
            self.losses.damage()

    # ------------------------------------------------------------------ what went wrong

    def _check_progress(self, packet: Any) -> None:
        """Checks whether a live stream's packets still give pictures and sound.

        Raises:
            SourceDown: It gives no pictures any more.
        """
        is_video = packet.stream is self._video
        now_s, now_us = time.monotonic(), self._video_next_us if is_video else self._audio_next_us
        since_s, since_us = self._picture_at
        if is_video and self._only_keyframes and not packet.is_keyframe:
            if self._undecoded < _DECODER_DELAY:  # it is not to be decoded
                self._picture_at = now_s, now_us
        elif is_video:
            self._undecoded += 1
        if since_us is None:
            self._picture_at = since_s, now_us
            return
        stall_s = self._settings.stall_timeout_s
        # Wall time alone would also report a connection that pauses between two packets.
        if now_s - since_s > stall_s and now_us - since_us > stall_s * _US:
            what = "only sound" if not self._undecoded else "only data that cannot be decoded"
            raise SourceDown(f"{self.url}: no picture for {stall_s:g} s, {what}")
        unheard = None if self._audio is None or not self._heard else self._nothing.get(self._audio.index)
        if unheard is not None and self._audio_next_us - unheard.heard_us > stall_s * _US:
            raise SourceDown(f"{self.url}: no sound for {stall_s:g} s, only data that cannot be decoded")
        if self._audio is not None and self._clock.zero_us is not None:
            silent_us = max(self._audio_next_us, self._clock.zero_us)
            is_silent = self._video_next_us - silent_us > AUDIO_OFFSET_US
            self.losses.silence(self._clock.position_us(silent_us) if is_silent else None)

    def _tell_unseen(self) -> None:
        """Reports an epoch of a recording that ends without pictures (a codec that has changed), or without sound."""
        if self.info.live or self._end_us is None:
            return
        if self._audio is not None and self._end_us - self._audio_next_us > AUDIO_OFFSET_US:
            self.losses.silence(self._clock.position_us(self._audio_next_us))
        since_us, self._seen_us = self._seen_us, None
        since_us = self._clock.zero_us if since_us is None else since_us
        patience_s = self._settings.stall_timeout_s if self._only_keyframes else _UNSEEN_S
        if since_us is not None and self._end_us - since_us > patience_s * _US:
            self.losses.unseen(self._clock.position_us(since_us), self._length_us())

    def _finish(self) -> None:
        """Determines how the source ended."""
        self._tell_unseen()
        if self.info.live:
            # From its first packet on, there was nothing new: a recording that does not say so.
            self.over = self.seen.again and not self.seen.has_new
        elif self._end_us is None:
            self._check_index()
        elif self._scheme and self._unwrap is not None and self._read_bytes < 0.9 * self._container.size:
            # FFmpeg's FLV ends for us where another recording or codec begins. Of files, `JoinedSource` plays the rest.
            unread = 1 - self._read_bytes / self._container.size
            self._cut = (
                f"{unread:.0%} of it is another recording or of another codec, and not shown: name a downloaded copy"
            )
        elif self.info.duration_ms is not None and not self._joined:
            # A source whose clock changed was read to its end; what its header says of it is the length of a part.
            # Durations in headers are estimates in some containers: a twentieth or two seconds are not damage.
            end_ms, expected_ms = self._length_us() // 1000, self.info.duration_ms
            if end_ms < expected_ms - max(2_000, expected_ms // 20):
                self._cut = f"ends after {end_ms / 1000:.0f} s of {expected_ms / 1000:.0f} s: truncated or damaged"

    def _check_index(self) -> None:
        """Finds out why a recording on a web server gave nothing."""
        if self._scheme and self._container.format.name == _MP4:
            raise BadSource(
                f"{self.url}: its index comes last, and its server sends it only from the beginning: move the index to "
                "the front (ffmpeg -movflags +faststart), or name a downloaded copy"
            )

    def _length_us(self) -> int:
        return 0 if self._end_us is None else self._clock.position_us(self._end_us)

    def _picture_us(self) -> int:
        rate = self._video.average_rate or self._video.guessed_rate
        return round(_US / rate) if rate else 40_000


def _keep_pace(ahead_s: float) -> None:
    """Waits where a stream that looks live comes faster than real time: it is a recording and must not lose parts."""
    if ahead_s > LIVE_PAST_S:
        time.sleep(min(1.0, float(ahead_s - LIVE_PAST_S)))


def _us(value: int | None, time_base: Fraction | None) -> int | None:
    if value is None or time_base is None:
        return None
    over, under = time_base.as_integer_ratio()  # in fractions these times took a twentieth of capture's CPU
    return (value * over * _US + under // 2) // under


def _later(before_us: int | None, now_us: int) -> int:
    return now_us if before_us is None else max(before_us, now_us)


def _frame_us(frame: Any, stream: Any) -> int | None:
    # Frames that the decoder gives at the end, when it is drained, have no time base of their own.
    return _us(frame.pts, frame.time_base or stream.time_base)


def _quarter_turns(rotation: int | float) -> int:
    return round(rotation / 90) * 90
