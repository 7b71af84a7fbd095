"""Which package plays which role."""

from importlib import import_module
from typing import Any

from topology.settings import Role, Settings
from topology.worker import Worker


def create_worker(role: Role, settings: Settings, **parts: Any) -> Worker:
    """Returns a worker of the given role, ready to start.

    Args:
        role: The package `workers.<role>` builds it.
        settings: The worker's settings.
        parts: What the role takes instead of making its own, e.g. an `encoder` shared by the roles of one process.
    """
    worker = Worker(role, settings)
    import_module(f"workers.{role}.agent").build(worker, **parts)
    return worker
