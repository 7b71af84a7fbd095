"""Which package plays which role."""

from importlib import import_module
from typing import Any

from topology.settings import Role, Settings
from topology.worker import Worker


def build(worker: Worker, **parts: Any) -> None:
    """Registers the agents of the worker's role, from `workers.<role>`."""
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
