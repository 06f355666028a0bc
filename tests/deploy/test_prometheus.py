"""gunicorn with three workers in Prometheus' multiprocess mode: a scrape of any of them tells of all."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.deploy

WORKERS = 3
HUNG = 60  # seconds


def fetch(address, path):
    with urllib.request.urlopen(address + path, timeout=HUNG) as response:
        return response.read().decode()


class Metrics:
    """One scrape."""

    def __init__(self, text):
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def sum(self, name, **labels):
        return sum(
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def open(self):
        return self.sum("chatpool_in_flight") + self.sum("chatpool_queued")


@pytest.fixture
def site(python, chatpool_server_factory, tmp_path):
    """The server of the model, and the address of the application."""
    release = threading.Event()

    def answer(request):
        if request.prompt == "hold":
            release.wait(HUNG)

    server = chatpool_server_factory(answer)
    server.release = release
    program = python(
        *("-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", str(WORKERS)),
        *("--worker-class", "gthread", "--threads", "16"),  # more than are held: a scrape finds one free
        *("--config", "metrics_config.py", "metrics_app:application"),
        CHAT_URL=server.base_url,
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
    )
    address = program.wait_for(r"Listening at: (http://\S+)").group(1)
    yield server, address
    release.set()
    program.end()


def scraped_until(address, is_so):
    """The first scrape of which that is so: gauges are at most a second or two old."""
    ends_at = time.monotonic() + HUNG
    while True:
        metrics = Metrics(fetch(address, "/metrics"))
        if is_so(metrics):
            return metrics
        assert time.monotonic() < ends_at, fetch(address, "/metrics")
        time.sleep(0.1)


@pytest.mark.smoke
def test_every_worker_tells_of_the_calls_of_all(site):
    server, address = site
    answered = Counter()
    while len(answered) < WORKERS or sum(answered.values()) < 60:
        answered[fetch(address, "/?hello").split()[0]] += 1
    total = sum(answered.values()) + 1  # and one in the parent, before it forked
    metrics = Metrics(fetch(address, "/metrics"))
    assert metrics.sum("chatpool_calls_total", outcome="succeeded", model="m") == total
    assert metrics.sum("chatpool_attempts_total", reason="ok") == total
    assert metrics.sum("chatpool_call_seconds_count") == metrics.sum("chatpool_queue_seconds_count") == total
    assert metrics.sum("chatpool_tokens_total", direction="input") == total


def test_gauges_are_sums_over_the_processes_that_live(site):
    server, address = site
    holding = [threading.Thread(target=hold, args=[address]) for _ in range(6)]
    for thread in holding:
        thread.start()
    # A pool that knows nothing of a server yet does not send all at once.
    scraped_until(address, lambda metrics: metrics.open == 6 and metrics.sum("chatpool_in_flight"))
    os.kill(int(server.requests[-1].headers["x-process"]), signal.SIGKILL)
    scraped_until(address, lambda metrics: metrics.open < 6)
    server.release.set()
    for thread in holding:
        thread.join(HUNG)
    scraped_until(address, lambda metrics: metrics.open == 0)


def hold(address):
    with contextlib.suppress(OSError):  # its process was killed
        fetch(address, "/?hold")
