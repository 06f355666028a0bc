"""gunicorn's settings: the parent goes on using the pool between one fork and the next."""

from __future__ import annotations

preload_app = True
timeout = 40


def pre_fork(server, worker):
    """Runs in the parent before each worker is forked."""
    import gunicorn_app

    gunicorn_app.use(f"master-{worker.age}")
