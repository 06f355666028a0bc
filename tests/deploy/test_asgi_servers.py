"""FastAPI and Django under uvicorn: how many visitors at once, and what ends when one of them leaves."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatpool.testing import FakeServer, Stall, Stream

pytestmark = pytest.mark.deploy

ROOT = pathlib.Path(__file__).parents[2]
HUNG = 60  # seconds


@pytest.fixture
def server(gate):
    def script(request):
        if request.prompt == "held":
            gate.wait(HUNG)
        return {"silent": Stall(), "begun": Stream(["Once"], end="stall")}.get(request.prompt)

    with FakeServer(script) as server:
        yield server


@pytest.fixture
def uvicorn(python, server):
    """A function that starts an application; returns its host and port."""

    def uvicorn(app):
        folders = [str(ROOT / "examples"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        program = python(
            *("-W", "error::Warning:django", "-m", "uvicorn", "--port", "0", app),
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="key-of-the-tests",
            PYTHONPATH=os.pathsep.join(folders),
        )
        host, port = program.wait_for(r"Uvicorn running on http://([\d.]+):(\d+)").groups()
        started.append(program)
        return host, int(port)

    started = []
    yield uvicorn
    for program in started:
        program.end()
        assert "Traceback" not in program.output
        assert "never retrieved" not in program.output


def get(address, path, body=None):
    request = urllib.request.Request("http://{}:{}".format(*address) + path, body and json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=HUNG) as response:
        return json.load(response)


def leave_when(address, path, body, may_leave):
    """Send a request, and close its connection once the function has returned."""
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address, HUNG) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        may_leave(connection)


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [("/answer?question=held", None, {"answer": "held"}), ("/answers", ["held"], {"answers": ["held"]})],
    ids=["in threads", "on the event loop"],
)
def test_sixty_visitors_are_served_at_once(uvicorn, server, gate, path, body, answer):
    address = uvicorn("fastapi_app:app")
    with ThreadPoolExecutor(60) as visitors:
        answers = [visitors.submit(get, address, path, body) for _ in range(60)]
        server.wait_until(lambda: server.in_flight == 60, HUNG)  # AnyIO's own limit is 40
        gate.set()
        assert [each.result(HUNG) for each in answers] == [answer] * 60


@pytest.mark.smoke
def test_calls_of_a_visitor_who_leaves_are_cancelled(uvicorn, server):
    address = uvicorn("fastapi_app:app")
    leave_when(address, "/answers", json.dumps(["silent"] * 20), lambda _: server.wait_for(20, HUNG))
    server.wait_until(lambda: server.in_flight == 0, HUNG)
    assert get(address, "/answers", ["ping"]) == {"answers": ["ping"]}


@pytest.mark.parametrize("question", ["silent", "begun"])
@pytest.mark.parametrize("app", ["counted_fastapi:app", "asgi_django:app"])
def test_a_stream_ends_with_its_visitor(uvicorn, server, app, question):
    address = uvicorn(app)

    def may_leave(connection):
        server.wait_for(1, HUNG)
        received = b""
        while (b"Once" if question == "begun" else b"\r\n\r\n") not in received:
            piece = connection.recv(4096)
            assert piece, received
            received += piece

    leave_when(address, f"/stream?question={question}", "", may_leave)
    server.wait_until(lambda: server.open_connections == 0, HUNG)
