"""gunicorn's settings for Prometheus' multiprocess mode."""

from __future__ import annotations

from prometheus_client import multiprocess

preload_app = True
timeout = 100


def child_exit(server, worker):
    """The gauges of a process that has ended count no longer."""
    multiprocess.mark_process_dead(worker.pid)
