"""Protocols that PyAV's FFmpeg was built without (SRT, as of PyAV 18): relayed by the `ffmpeg` command as MPEG-TS."""

import os
import select
import shutil
import subprocess
import tempfile

from workers.capture.media import BadSource, SourceDown

_KILL_TIMEOUT_S = 5.0


class Relay:
    """A child `ffmpeg` that copies a stream, unchanged, to where PyAV reads it; a file object for `av.open`.

    Attributes:
        failure: Why reading came to an end; None if the stream ended by itself. (PyAV reads on after an exception
            and keeps only the last one, so none is raised from `read`.)

    Raises:
        BadSource: There is no `ffmpeg` command.
    """

    def __init__(self, url: str, open_timeout_s: float, stall_timeout_s: float) -> None:
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            scheme = url.partition(":")[0]
            raise BadSource(f"{url}: {scheme} needs the `ffmpeg` command: install it, or use rtmp, rtsp or HLS")
        self.failure: SourceDown | None = None
        self._url = url
        self._timeout_s = open_timeout_s
        self._connected = False
        self._stall_timeout_s = stall_timeout_s
        self._errors = tempfile.TemporaryFile()
        # The input's own time-out (µs) ends the child even if the parent was killed.
        patience_us = str(round(2 * max(open_timeout_s, stall_timeout_s) * 1_000_000))
        command = [ffmpeg, "-nostdin", "-v", "error", "-timeout", patience_us]
        # A second is enough to see an MPEG-TS stream's tracks; PyAV looks closer.
        command += ["-analyzeduration", "1000000", "-i", url, "-map", "0:v?", "-map", "0:a?", "-c", "copy", "-copyts"]
        command += ["-f", "mpegts", "-flush_packets", "1", "pipe:1"]
        self._process = subprocess.Popen(  # noqa: S603 - no shell; the URL is one argument after -i
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )

    def read(self, size: int) -> bytes:
        """Returns the next bytes; empty at the end, and when nothing came within the time-out."""
        assert self._process.stdout is not None  # noqa: S101 - we asked for a pipe
        if self.failure is not None:
            return b""
        descriptor = self._process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], self._timeout_s)
        data = os.read(descriptor, size) if ready else b""
        if not ready:
            self.failure = SourceDown(
                f"{self._url}: has sent nothing for {self._timeout_s:g} s: check that the stream is being published"
            )
        elif not data and not self._connected:
            self.failure = SourceDown(
                f"{self._url}: cannot be reached ({self._reason()}): check the address and the network"
            )
        self._timeout_s, self._connected = self._stall_timeout_s, True
        return data

    def close(self) -> None:
        """Ends the child."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(_KILL_TIMEOUT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _reason(self) -> str:
        self._process.wait(_KILL_TIMEOUT_S)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return (
            lines[-1].removeprefix(f"{self._url}: ").lower()
            if lines
            else f"ffmpeg ended with status {self._process.returncode}"
        )
