"""Real deployments: processes of gunicorn, Celery and Redis against a FakeServer in this one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from chatpool.testing import FakeServer, Stall

HUNG = 60  # seconds: what takes as long does not end at all


class Program:
    """A process whose output is read as it comes; ``folder`` is its working directory."""

    def __init__(self, command, environment, folder):
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._changed = threading.Condition()
        self._lines = []
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="output", daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self):
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern, timeout=HUNG):
        """The match for ``pattern`` in the output, as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or re.search(pattern, "".join(self._lines)), timeout)
            match = re.search(pattern, "".join(self._lines))
            assert match, f"nothing matches {pattern!r} in:\n{''.join(self._lines)}"
            return match

    @property
    def pid(self):
        """The number of the process."""
        return self._process.pid

    def signal(self, number):
        """Send a signal to the process, and to none of its children."""
        self._process.send_signal(number)

    def end(self):
        """Ask it to end; returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self, timeout=HUNG):
        """Wait for its end; returns its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on for more than {timeout} s:\n{self.output[-6000:]}") from None
        self._reader.join(HUNG)
        return code

    def kill(self):
        """End it, whatever it does, and what it has started."""
        if self._process.poll() != 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(HUNG)
        self._process.stdout.close()


@pytest.fixture
def server():
    """Answers with the prompt; stalls when that says so."""
    with FakeServer(lambda request: Stall() if request.prompt == "stall" else None) as server:
        yield server


@pytest.fixture
def start(request):
    """A function that starts a program in the folder ``apps`` beside the test; ended, by its id, with the test."""
    folder = request.path.with_name("apps")
    started = []

    def start(*command, **environment):
        started.append(Program(command, environment, folder))
        return started[-1]

    yield start
    for program in started:
        program.kill()


@pytest.fixture
def python(start):
    """A function that starts this interpreter."""
    return lambda *arguments, **environment: start(sys.executable, *arguments, **environment)


@pytest.fixture
def redis(start):
    """The URL of a Redis of the test's own, on a socket in a folder of its own."""
    program = shutil.which("redis-server")
    assert program, "there is no redis-server: scripts/deploy-tests.sh installs Debian's"
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:  # pytest's own are too long for a socket's name
        path = f"{folder}/socket"
        process = start(
            program, "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "", "--appendonly", "no"
        )
        process.wait_for("(?i)ready to accept connections")
        yield f"redis+socket://{path}"
        process.end()
