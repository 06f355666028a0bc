"""llama.cpp's own server with the embedded model: what it refuses concerns one row, what it delays is waited for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import programs
import pytest
import requests

import chatpool.local
from benchmarks.debian import quiet_port
from chatpool import BadRequestError, ChatPool
from chatpool.local.model import model_path

pytestmark = pytest.mark.servers

SLOTS = 2
CONTEXT = 1024  # tokens
WORKERS = 16
HUNG = 150  # seconds: what takes as long does not end at all
SHORT = {"max_tokens": 4, "temperature": 0}
CHILD = Path(chatpool.local.__file__).with_name("server_process.py")


@contextlib.contextmanager
def serving(folder, port, path=None, *, wait=True):
    """The server; without ``wait`` it is still to come up."""
    python = programs.environment_python("CHATPOOL_LLAMA_PYTHON", "chatpool[local]")
    settings = {"model": "smollm2", "path": str(path or model_path()), "port": port, "parallel": SLOTS}
    settings.update(context=CONTEXT, answer_tokens=-1, threads=1, embeddings=False)
    command = [python, str(CHILD), json.dumps(settings)]
    with programs.running(command, port, folder, wait=False, stdin=subprocess.PIPE) as process:
        if wait:
            asked_until(port, 200)
        yield process


def asked_until(port, status):
    """Ask the server until it answers with ``status``."""
    body = {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
    end = time.monotonic() + HUNG
    while time.monotonic() < end:
        with contextlib.suppress(requests.exceptions.ConnectionError):
            response = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
            if response.status_code == status:
                return response
    raise AssertionError(f"it never said {status}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = quiet_port()
    with serving(tmp_path_factory.mktemp("llama"), port):
        yield SimpleNamespace(base_url=f"http://127.0.0.1:{port}/v1")


@pytest.fixture
def pool(server):
    with ChatPool("any-name", base_url=server.base_url, max_workers=WORKERS) as pool:
        yield pool


def rows(count):
    return [f"Say the number {number}." for number in range(count)]


@pytest.mark.smoke
def test_more_calls_than_slots_are_all_answered(pool):
    results = pool.map(rows(24), progress=False, run_timeout=HUNG, **SHORT)
    assert not results.failures, results.explain()
    assert {outcome.attempts for outcome in results.outcomes} == {1}
    assert results.usage.completion_tokens <= 24 * SHORT["max_tokens"]


def test_a_stream_comes_in_pieces_with_its_usage(pool):
    with pool.stream("Count from one to ten.", max_tokens=16, temperature=0) as stream:
        pieces = [chunk.text for chunk in stream if chunk.text]
    assert len(pieces) > 3
    assert stream.completion.usage.completion_tokens == 16
    assert stream.completion.finish_reason == "length"


def test_a_row_beyond_the_context_fails_alone(pool):
    results = pool.map([*rows(6), "word " * 2 * CONTEXT, *rows(6)], progress=False, run_timeout=HUNG, **SHORT)
    assert results.fatal is None
    (failure,) = results.failures
    assert failure.index == 6
    assert failure.attempts == 1
    assert isinstance(failure.error, BadRequestError)
    assert "context size" in str(failure.error)


def test_a_row_with_a_schema_that_is_none_fails_alone(pool):
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    bad = {"messages": [{"role": "user", "content": "ping"}], "response_format": wrong, **SHORT}
    results = pool.map([*rows(6), bad, *rows(6)], progress=False, run_timeout=HUNG, **SHORT)
    assert results.fatal is None
    (failure,) = results.failures
    assert (failure.index, failure.attempts) == (6, 1)
    assert isinstance(failure.error, BadRequestError)


def test_embeddings_that_it_was_not_started_for_end_the_run(pool):
    results = pool.embed(["a text"] * 50, max_pack=1, progress=False)
    assert "--embeddings" in str(results.fatal)
    assert sum(outcome.attempts for outcome in results.outcomes) <= WORKERS


def test_a_run_waits_while_the_model_is_loaded(tmp_path):
    path, port = tmp_path / "model.gguf", quiet_port()
    shutil.copy(model_path(), path)
    seen = threading.Event()

    def listen(event):
        if event.kind == "retrying" and "503" in str(event.reason):
            seen.set()

    with held_back(path) as let_go, serving(tmp_path, port, path, wait=False):
        refusal = asked_until(port, 503)
        assert refusal.json()["error"]["message"] == "Loading model"
        base_url = f"http://127.0.0.1:{port}/v1"
        with ChatPool("m", base_url=base_url, max_workers=4, listeners=[listen]) as pool, ThreadPoolExecutor(1) as one:
            running = one.submit(pool.map, rows(12), progress=False, run_timeout=HUNG, **SHORT)
            assert seen.wait(HUNG)
            let_go()
            results = running.result(HUNG)
    assert not results.failures, results.explain()
    assert 503 in {attempt.status for outcome in results.outcomes for attempt in outcome.history}


@contextlib.contextmanager
def held_back(path):
    """Whoever opens the file waits until the function that this yields is called (a lease, see fcntl(2)).

    Linux waits for no longer than 45 seconds (/proc/sys/fs/lease-break-time).
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # says that somebody waits
    file = os.open(path, os.O_RDWR)

    def let_go():
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield let_go
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, before)


def test_a_run_outlives_a_server_that_is_started_again(tmp_path):
    port, some = quiet_port(), threading.Event()

    def listen(event):
        if event.kind == "succeeded":
            some.set()

    base_url = f"http://127.0.0.1:{port}/v1"
    with ChatPool("m", base_url=base_url, max_workers=4, listeners=[listen]) as pool, ThreadPoolExecutor(1) as one:
        with serving(tmp_path, port):
            running = one.submit(pool.map, rows(16), progress=False, run_timeout=HUNG, max_tokens=12, temperature=0)
            assert some.wait(HUNG)
        with serving(tmp_path, port):
            results = running.result(HUNG)
    assert not results.failures, results.explain()
    assert any(outcome.attempts > 1 for outcome in results.outcomes)
