"""Software that people put in front of a model, as Debian has it, with a model of the tests' own behind it."""

from __future__ import annotations

import contextlib
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from benchmarks.debian import binary
from benchmarks.overload.fronts import Haproxy, Nginx, running
from chatpool import ChatPool
from chatpool.testing import FakeServer

sys.path.insert(0, str(Path(__file__).parent))

import programs

PROGRAMS = {Nginx: "nginx", Haproxy: "haproxy"}


@pytest.fixture
def start():
    """``start(front)`` starts it; ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(front):
            program = PROGRAMS[type(front)]
            assert Path(binary(program)).exists(), f"there is no {program}: scripts/server-tests.sh installs Debian's"
            return stack.enter_context(running(front))

        yield start


@pytest.fixture
def open_pool():
    """``open_pool(front, workers)`` makes a pool with every default; closed with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda front, workers: stack.enter_context(
            ChatPool("m", base_url=front.base_url, api_key="key", max_workers=workers)
        )


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """The file of a CA's certificate, and a server's context for 127.0.0.1 and localhost."""
    ca, file = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return str(file), context


@pytest.fixture(params=["http", "https"])
def origin(request, authority):
    """The server behind a proxy, of both kinds in turn."""
    with FakeServer(tls=authority[1] if request.param == "https" else None) as server:
        yield server


@pytest.fixture
def start_proxy(tmp_path_factory):
    """``start_proxy("tinyproxy", ...)``, or ``"microsocks"``, gives ``host:port``; ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda name, *options: stack.enter_context(
            getattr(programs, name)(tmp_path_factory.mktemp(name), *options)
        )


@pytest.fixture
def behind(authority):
    """``behind(proxy, base_url, ...)`` makes a pool that goes through a proxy; closed with the test."""
    with contextlib.ExitStack() as stack:

        def behind(proxy, base_url, **settings):
            if proxy is not None:
                settings["proxies"] = {"all": proxy}
            pool = ChatPool("m", base_url=base_url, api_key="key", max_workers=4, verify=authority[0], **settings)
            return stack.enter_context(pool)

        yield behind
