"""Fixtures around ScriptedServer: servers, a CA, transports, and one exchange in a line."""

from __future__ import annotations

import ssl
import threading
from types import SimpleNamespace

import pytest
from scripted_server import FullListener, ScriptedServer

from chatpool._transport import CancelToken, KeyAuth, Transport, TransportSettings
from chatpool.config import Timeout
from chatpool.types import ChatRequest

__all__ = ["authority", "exchange", "full_listener", "in_thread", "serve", "start_transport"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A CA: ``.file`` (its certificate) and ``.context`` (a server's, for 127.0.0.1 and localhost)."""
    trustme = pytest.importorskip("trustme")  # it has no wheels for Pythons without the global lock
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return SimpleNamespace(file=str(file), context=context, ca=ca)


@pytest.fixture
def serve(authority):
    """``serve(script, tls=False)``: a ScriptedServer, closed after the test."""
    servers = []

    def start(script, *, tls=False):
        servers.append(ScriptedServer(script, authority.context if tls else None))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def full_listener():
    """``full_listener(address)``: a port on which connecting hangs."""
    listeners = []

    def start(address="127.0.0.1"):
        listeners.append(FullListener(address))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def start_transport(authority, monkeypatch):
    """``start_transport(base_url, **settings)``: a Transport that trusts the test's CA, closed after the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    transports = []

    def start(base_url, *, key="sk-a-secret-key", **settings):
        settings = {"max_workers": 4, "verify": authority.file, **settings}
        transports.append(Transport(TransportSettings(base_url, KeyAuth(key), **settings)))
        return transports[-1]

    yield start
    for transport in transports:
        transport.close()


@pytest.fixture
def exchange():
    """``exchange(transport, body=b"{}", ...)``: one exchange."""

    def send(transport, body=b"{}", *, path="/chat/completions", method="POST", cancel=None, timeout=None, **kwargs):
        return transport.exchange(
            ChatRequest({}, path, method),
            body,
            timeout=timeout or Timeout(connect=60, attempt=60),
            cancel=cancel or CancelToken(),
            **kwargs,
        )

    return send


@pytest.fixture
def in_thread():
    """``in_thread(function)``: runs it in a thread; ``.result(90)`` gives what it returned or raised within 90 s."""
    threads = []

    def start(function):
        box = SimpleNamespace(value=None, error=None)

        def run():
            try:
                box.value = function()
            except BaseException as error:
                box.error = error

        thread = threading.Thread(target=run, daemon=True)
        threads.append(thread)
        thread.start()

        def result(seconds=90):
            thread.join(seconds)
            assert not thread.is_alive(), "it hangs"
            if box.error is not None:
                raise box.error
            return box.value

        return SimpleNamespace(result=result)

    yield start
    for thread in threads:
        thread.join(60)
