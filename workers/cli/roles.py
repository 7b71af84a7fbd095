"""Builds the worker of a role."""

from functools import partial
from importlib import import_module
from typing import Any

from topology.settings import Role, Settings
from topology.worker import Worker


def build(worker: Worker, **parts: Any) -> None:
    """Registers the agents of the worker's role, from `workers.<role>`."""
    if worker.role == "monitor":
        parts.setdefault("read_stretch", partial(_read_stretch, worker.settings))
    import_module(f"workers.{worker.role}.agent").build(worker, **parts)


def create_worker(role: Role, settings: Settings, *, serve_http: bool = True, **parts: Any) -> Worker:
    """Returns a worker of the given role, ready to start.

    Args:
        role: What it does.
        settings: The worker's settings.
        serve_http: Serve /metrics and /healthz.
        parts: What the role takes instead of making its own, e.g. an `encoder` shared by the roles of one process.
    """
    worker = Worker(role, settings, serve_http=serve_http)
    build(worker, **parts)
    return worker


def _read_stretch(settings: Settings, url: str, from_ms: int, to_ms: int) -> list[tuple[int, bytes]]:
    """Reads a stretch of a file by capture, which monitor must not import: see `workers.monitor.again.ReadStretch`."""
    from workers.capture.stretch import read_stretch  # brings FFmpeg along

    return [(one.pts_ms, one.jpeg(settings.jpeg_quality)) for one in read_stretch(url, settings, from_ms, to_ms)]
