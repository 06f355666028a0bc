"""Where the interpreters of a benchmark come from."""

from __future__ import annotations

import platform
import sys

import pytest

from benchmarks import interpreters
from benchmarks.answer import TEXT
from benchmarks.children import run_child
from chatpool.testing import Answer, FakeServer


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder of scripts in place of the real ones; writes one that runs some shell."""
    monkeypatch.setattr(interpreters, "_SCRIPTS", tmp_path)

    def write(name, shell):
        (tmp_path / name).write_text(f"#!/bin/sh\n{shell}\n")
        (tmp_path / name).chmod(0o755)

    return write


def test_they_are_the_running_one_and_those_that_the_scripts_print(scripts):
    scripts("new_pythons.sh", "echo /p/python3.14; echo /p/python3.15")
    scripts("freethreaded_python.sh", 'echo "/q/python3.13${1:-t}"')
    assert list(interpreters._pythons()) == [
        ("this one", sys.executable),
        ("3.14", "/p/python3.14"),
        ("3.15", "/p/python3.15"),
        ("3.13 with the lock", "/q/python3.13--with-gil"),
        ("3.13 without the lock", "/q/python3.13t"),
    ]


def test_those_that_cannot_be_had_are_left_out(scripts):
    scripts("new_pythons.sh", "exit 77")
    scripts("freethreaded_python.sh", "exit 77")
    assert [name for name, _ in interpreters._pythons()] == ["this one"]


def test_a_script_that_fails_is_named(scripts):
    scripts("new_pythons.sh", "exit 2")
    with pytest.raises(RuntimeError, match=r"new_pythons\.sh has ended with exit code 2"):
        list(interpreters._pythons())


@pytest.mark.parametrize("contender", ["urllib3", "chatpool"])
def test_a_child_tells_the_share_of_heads_that_http_client_has_read(contender):
    with FakeServer(lambda request: Answer(TEXT)) as server:
        target = {"base_url": server.base_url, "workers": 2}
        spec = {"contender": contender, "target": target, "calls": 20, "warm_up": 5}
        used = run_child("interpreters_child", spec)
    assert (used["python"], used["calls"], used["lost"]) == (platform.python_version(), 20, 0)
    assert used["line_by_line"] == (1 if contender == "urllib3" else 0)
