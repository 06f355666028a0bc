"""The applications of the examples under each server: crowds, visitors who leave, ends while calls are in flight."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import sysconfig
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from chatpool.testing import FakeServer, Stream

pytestmark = pytest.mark.deploy

ROOT = pathlib.Path(__file__).parents[2]
HUNG = 300  # seconds
QUESTIONS = 20  # on a page
IN_FLIGHT = 32  # calls, of the Flask application's pool
# At most so many threads stay, for the next calls and the next visitors: the pool's, gunicorn's and uWSGI's.
KEPT_THREADS = {"MainThread": 1, "chatpool": 100, "chatpool-expiry": 1, "ThreadPoolExecutor-": 30, "uWSGIWorker": 30}

GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--timeout", "300", "--graceful-timeout", "300")
UWSGI = (
    *(str(pathlib.Path(sys.executable).with_name("uwsgi")), "--master", "--need-app"),
    *("--enable-threads", "--py-call-uwsgi-fork-hooks", "--threads", "30", "--worker-reload-mercy", "300"),
    *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all", "--listen", "100"),
)
SERVERS = {
    "gunicorn sync": (*GUNICORN, "--worker-class", "sync"),
    "gunicorn gthread": (*GUNICORN, "--worker-class", "gthread", "--threads", "30"),
    "gunicorn preload": (*GUNICORN, "--preload", "--worker-class", "gthread", "--threads", "30"),
    "gunicorn gevent": (*GUNICORN, "--worker-class", "gevent"),
    "uWSGI": UWSGI,
    "uvicorn": ("-m", "uvicorn", "--port", "0"),
}
APPLICATIONS = {"Flask": "counted_flask:app", "FastAPI": "counted_fastapi:app", "Django": "counted_django:app"}
KINDS = [
    f"{framework} on {server}"
    for framework in APPLICATIONS
    for server in SERVERS
    if framework == "Django" or (framework == "FastAPI") == (server == "uvicorn")
]
OF_WSGI = [kind for kind in KINDS if "uvicorn" not in kind]  # whose parent process stays when a child is replaced
SMOKE = ("Flask on gunicorn gthread", "Django on gunicorn gthread")
LISTENS = r"(?:Listening at: |bound to TCP address |Uvicorn running on )(?:http://)?(127\.0\.0\.1:\d+)"
# The server has read the signal.
HEARD = r"(?i)handling signal: (hup|term)|gracefully|shutting down"


class Site:
    """A server with one of the applications, and its visitors."""

    def __init__(self, program, kind):
        self.program = program
        self.framework, _, self.server = kind.partition(" on ")
        self.host, port = program.wait_for(LISTENS).group(1).split(":")
        self.port = int(port)

    def get(self, path, body=None, content_type=""):
        request = urllib.request.Request(f"http://{self.host}:{self.port}{path}", body)
        request.add_header("Content-Type", content_type)
        with urllib.request.urlopen(request, timeout=HUNG) as response:
            return json.load(response)

    def page(self, name, questions=QUESTIONS):
        """The answers to a visitor's questions, which have to be the questions."""
        asked = [f"{name} asks {number}" for number in range(questions)]
        if self.framework == "FastAPI":
            replies = self.get("/answers", json.dumps(asked).encode(), "application/json")
        else:
            body = urlencode([("question", question) for question in asked]).encode()
            replies = self.get("/answers", body, "application/x-www-form-urlencoded")
        assert replies["answers"] == asked

    def leave(self, _=None):
        """Read the first piece of an answer, and leave."""
        with socket.create_connection((self.host, self.port), HUNG) as connection:
            connection.sendall(b"GET /stream?question=silent HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            received = b""
            while b"Once" not in received:
                piece = connection.recv(4096)
                assert piece, f"it ended with {received}"
                received += piece

    def wait_until_closed(self, sockets):
        """Ask for what the process has open until that is no more sockets than before, and no thread but those kept.

        The workers' connections to a database, which parsing has opened, have to be closed as well.
        """
        ends_at = time.monotonic() + HUNG
        while True:
            now = self.get("/counts")
            closed = now["sockets"] <= sockets and not now.get("databases")
            if closed and all(count <= KEPT_THREADS.get(kind, 0) for kind, count in now["threads"].items()):
                assert now.get("opened") != 0
                return
            assert time.monotonic() < ends_at, f"open now: {now}, sockets before: {sockets}"


@pytest.fixture
def server(gate):
    def script(request):
        if request.prompt == "silent":
            return Stream(["Once"], end="stall")
        if request.prompt.startswith("held"):
            gate.wait(HUNG)
        return None

    with FakeServer(script) as server:
        yield server


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.fixture
def serve(python, server, tmp_path):
    """A function that starts a server with its application."""

    def serve(kind, *options):
        folders = [str(ROOT / "examples"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        framework, _, name = kind.partition(" on ")
        command = [*SERVERS[name], *options]
        if name == "uWSGI":
            # Reloading, it finds its socket again by a port of its own only, and starts the Python below the venv.
            command += ["--http-socket", f"127.0.0.1:{free_port()}", "--module"]
            folders.append(sysconfig.get_path("purelib"))
        program = python(
            *command,
            APPLICATIONS[framework],
            SITE_DATABASE=str(tmp_path / "site.sqlite3"),
            SITE_IS_ASYNC="1" if name == "uvicorn" else "",
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="key-of-the-tests",
            PYTHONPATH=os.pathsep.join(folders),
        )
        return Site(program, kind)

    return serve


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.smoke if kind in SMOKE else ()) for kind in KINDS]
)
def test_fifty_visitors_with_twenty_questions_each_get_their_answers(serve, server, kind):
    site = serve(kind)
    with ThreadPoolExecutor(50) as visitors:
        list(visitors.map(site.page, [f"visitor {number}" for number in range(50)]))
    assert len(server.requests) == 50 * QUESTIONS


@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_who_leave_their_stream_leave_nothing_behind(serve, server, kind):
    site = serve(kind)
    with ThreadPoolExecutor(30) as visitors:
        list(visitors.map(site.page, [f"visitor {number}" for number in range(30)]))
        sockets = site.get("/counts")["sockets"]
        list(visitors.map(site.leave, range(500)))
    server.wait_until(lambda: server.in_flight == 0, HUNG)
    site.wait_until_closed(sockets)
    site.page("the last visitor")


@contextlib.contextmanager
def held_pages(site, server, gate):
    """Visitors whose questions are all with the model; once this is left they have to get their answers."""
    visitors = 1 if site.server == "gunicorn sync" else 4
    with ThreadPoolExecutor(visitors) as executor:
        pages = [executor.submit(site.page, f"held visitor {number}", 5) for number in range(visitors)]
        try:
            server.wait_for(visitors * 5, HUNG)
            yield
        finally:
            gate.set()
        for page in pages:
            page.result(HUNG)


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_while_calls_are_in_flight_loses_no_answer(serve, server, gate, kind):
    site = serve(kind)
    with held_pages(site, server, gate):
        site.program.signal(signal.SIGTERM)
        site.program.wait_for(HEARD)
    assert site.program.ended(HUNG) in (0, -signal.SIGTERM)  # uvicorn raises it again at its end
    assert "Traceback" not in site.program.output
    server.wait_until(lambda: server.open_connections == 0, HUNG)


@pytest.mark.parametrize("kind", OF_WSGI)
def test_sighup_while_calls_are_in_flight_loses_no_answer(serve, server, gate, kind):
    site = serve(kind)
    old = site.get("/counts")["process"]
    with held_pages(site, server, gate):
        site.program.signal(signal.SIGHUP)
        site.program.wait_for(HEARD)
    while site.get("/counts")["process"] == old:
        pass
    site.page("one of the new process")
    assert "Traceback" not in site.program.output


@pytest.mark.parametrize("kind", OF_WSGI)
def test_processes_that_end_after_some_requests_lose_no_answer(serve, server, kind):
    site = serve(kind, *("--max-requests", "10"))
    with ThreadPoolExecutor(10) as visitors:
        list(visitors.map(site.page, [f"visitor {number}" for number in range(50)]))
    assert "Traceback" not in site.program.output


def test_a_page_of_questions_is_not_starved_by_another_visitors_list(serve, server):
    site = serve("Flask on gunicorn gthread")
    with ThreadPoolExecutor(1) as executor:
        of_list = executor.submit(site.page, "list", 5000)
        server.wait_for(500, HUNG)
        site.page("page")
        assert not of_list.done()
        of_list.result(HUNG)
    sent = [request.prompt.startswith("page") for request in server.requests]
    first, last = sent.index(True), len(sent) - sent[::-1].index(True)
    # Every other call is the page's; those in flight at its beginning and its end may arrive in any order.
    assert last - first <= 2 * QUESTIONS + 2 * IN_FLIGHT, "the list got more than its turns"
