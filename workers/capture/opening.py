"""Opens sources: files, cameras, network streams, and what platforms' web pages show."""

import os
from collections.abc import Mapping
from typing import Any

import av
import av.error

from topology.addresses import Allowed
from topology.errors import BadInput
from topology.settings import Settings
from workers.capture.address import NETWORK_SCHEMES, check_camera, check_file, is_camera, local_path, scheme_of
from workers.capture.explain import explain
from workers.capture.guard import proxy_of
from workers.capture.media import BadSource
from workers.capture.platforms import stream_of_page
from workers.capture.playlist import check_named_files, check_playlist, is_dash, is_playlist, target_duration_s
from workers.capture.relay import Relay

# A server adds a segment at the latest one and a half target durations after the one before (RFC 8216, 6.2.1).
_SEGMENTS_PATIENCE = 1.5
# Many servers name segments and keys of HLS without an extension or like pictures, so their content decides.
_ANY_NAME = {"extension_picky": "0", "allowed_extensions": "ALL", "allowed_segment_extensions": "ALL"}


def open_container(
    url: str, settings: Settings, part: tuple[tuple[int, int], ...] | None = None
) -> tuple[Any, Relay | None]:
    """Opens a source, within about twice `open_timeout_s` (connecting, then finding its streams).

    Args:
        url: A path or URL.
        settings: Time-outs, addresses that may be opened.
        part: Where the recording begins and ends in a file, in bytes.

    Returns:
        PyAV's container, and the relay that feeds it where FFmpeg's library does not know the protocol.

    Raises:
        BadSource: It is not a video, or not there, and trying again will not change that.
        SourceDown: It cannot be reached now.
    """
    scheme = scheme_of(url)
    timeout = (settings.open_timeout_s, settings.stall_timeout_s)
    options: Mapping[str, str] = {}
    if not scheme and is_camera(url):
        return _open_camera(url, timeout), None
    if not scheme:
        check_file(url)
        path = local_path(url).absolute()
        target = f"file:{path}"
        if is_playlist(path):
            try:
                check_named_files(path, Allowed.of(settings))
            except BadInput as error:
                raise BadSource(f"{url}: {error}") from error
            options = _ANY_NAME
        if part is not None:
            pieces = [f"subfile,,start,{begin},end,{end},,:{target}" for begin, end in part]
            target = pieces[0] if len(pieces) == 1 else f"concat:{'|'.join(pieces)}"
    elif scheme not in NETWORK_SCHEMES:
        raise BadSource(f"{url}: unknown scheme `{scheme}`: use a file's path or one of {', '.join(NETWORK_SCHEMES)}")
    else:
        target = url
        if scheme.startswith("rtsp"):
            # RTP over UDP loses packets behind most firewalls; over TCP it is the same stream.
            options = {"rtsp_transport": "tcp"}
        elif scheme in ("http", "https"):
            options = {**_ANY_NAME, **_guarded(settings)}
    relay: Relay | None = None
    try:
        try:
            container = _open(target, timeout, options)
        except av.error.ProtocolNotFoundError:
            relay = Relay(url, *timeout)
            return av.open(relay, format="mpegts", metadata_errors="replace"), relay
        except av.error.InvalidDataError:
            is_web, proxy = scheme in ("http", "https"), options.get("http_proxy")
            if is_dash(url, settings.open_timeout_s, proxy):
                raise BadSource(
                    f"{url}: MPEG-DASH, which PyAV's FFmpeg does not read: name its HLS playlist (.m3u8), or a file"
                ) from None
            check_playlist(url, settings.open_timeout_s, proxy)
            page_stream = stream_of_page(url, settings.frame_height, proxy) if is_web else None
            if page_stream is None:
                raise
            target = page_stream
            container = _open(target, timeout, options)
        if container.format.name == "hls" and scheme and container.duration is None:
            patience_s = _SEGMENTS_PATIENCE * target_duration_s(
                target, settings.open_timeout_s, options.get("http_proxy")
            )
            if patience_s > settings.stall_timeout_s:  # else waiting for each segment would look like a stall
                container.close()
                container = _open(target, (settings.open_timeout_s, patience_s), options)
        elif container.format.name == "mpjpeg" and scheme:
            # Cameras that send JPEGs one after another send no times, so arrival times are used.
            container.close()
            container = _open(target, timeout, {**options, "use_wallclock_as_timestamps": "1"})
        return container, None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        _close(relay)
        if relay is not None and relay.failure is not None:
            raise relay.failure from error
        raise explain(url, error, network=bool(scheme), after_s=settings.open_timeout_s) from error
    except BaseException:
        _close(relay)
        raise


def _guarded(settings: Settings) -> dict[str, str]:
    """Returns the proxy that checks addresses, unless all are allowed or the operator has set a proxy.

    The operator's proxy resolves names and follows redirects, so it decides which addresses are opened.
    """
    allowed = Allowed.of(settings)
    if allowed.everywhere or os.environ.get("http_proxy", "").startswith("http://"):  # as FFmpeg reads it
        return {}
    # Without a proxy of the operator's, FFmpeg would leave out the hosts that `no_proxy` lists from ours.
    os.environ.pop("no_proxy", None)
    return {"http_proxy": proxy_of(allowed)}


def _open(target: str, timeout: tuple[float, float], options: Mapping[str, str]) -> Any:
    return av.open(target, timeout=timeout, options=dict(options), metadata_errors="replace")


def _open_camera(url: str, timeout: tuple[float, float]) -> Any:
    check_camera(url)
    try:
        return av.open(str(local_path(url)), format="video4linux2", timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise BadSource(f"{url}: gives no picture ({reason}): check that it is a camera, and not in use") from error


def _close(relay: Relay | None) -> None:
    if relay is not None:
        relay.close()
