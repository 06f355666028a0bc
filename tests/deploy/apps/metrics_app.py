"""A WSGI application under gunicorn --preload in Prometheus' multiprocess mode: ``/metrics``, and calls elsewhere."""

from __future__ import annotations

import os
from urllib.parse import unquote

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

import chatpool
from chatpool.contrib.prometheus import Collector

pool = chatpool.ChatPool("m", base_url=os.environ["CHAT_URL"], max_workers=16)
Collector(pool)
pool.chat("preload")


def application(environ, start_response):
    """Answers with the metrics of all processes, or with the process and what the model says to the query."""
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        answer = pool.chat(unquote(environ["QUERY_STRING"]), headers={"X-Process": str(os.getpid())}).text
        body = f"{os.getpid()} {answer}".encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
