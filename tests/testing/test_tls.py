"""The server over TLS.  The certificate and its key are made for these tests and guard nothing."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
import requests

from chatpool.testing import Delay, FakeServer, Reset, Stall

CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"
KEY = Path(__file__).parent / "tls" / "key.pem"
BODY = {"messages": [{"role": "user", "content": "ping"}]}


@pytest.fixture
def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(CERTIFICATE)
        yield session


def test_https_is_served_and_kept_alive(tls, session, make_server):
    server = make_server(tls=tls)
    assert server.base_url.startswith("https://127.0.0.1:")
    for _ in range(2):
        answer = session.post(f"{server.base_url}/chat/completions", json=BODY, timeout=10)
        assert answer.json()["choices"][0]["message"]["content"] == "ping"
    assert server.connections == 1


def test_faults_work_over_tls(tls, session, make_server):
    server = make_server([Delay(0.01), Reset(), Stall()], tls=tls)
    url = f"{server.base_url}/chat/completions"
    assert session.post(url, json=BODY, timeout=10).status_code == 200
    with pytest.raises(requests.ConnectionError):
        session.post(url, json=BODY, timeout=10)
    with pytest.raises(requests.Timeout):
        session.post(url, json=BODY, timeout=(10, 0.05))
    server.wait_until(lambda: server.in_flight == 0)


def test_closing_ends_a_handshake_that_never_comes(tls, open_socket):
    with FakeServer(tls=tls) as server:
        open_socket(server, b"")
        server.wait_until(lambda: server.connections == 1)
        before = time.monotonic()
    assert time.monotonic() - before < 4


def test_plain_text_on_a_tls_port_is_no_request(tls, make_server, open_socket):
    server = make_server(tls=tls)
    open_socket(server)
    server.wait_until(lambda: server.connections == 1 and server.open_connections == 0)
    assert server.requests == []
