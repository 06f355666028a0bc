"""The scripts that fetch something say what they lack."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "new_pythons.sh"
TOOLS = ("awk", "bash", "cat", "dirname", "find", "grep", "id", "mkdir", "mktemp", "rm", "sed", "sort", "touch")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="not a Unix with bash")


@pytest.fixture
def tree(tmp_path):
    """A source tree that holds the script only, and a PATH without apt."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path


def run(tree):
    command = [tree / "scripts" / "new_pythons.sh"]
    return subprocess.run(command, env={"PATH": str(tree / "bin")}, capture_output=True, text=True, check=False)


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        (None, "this machine has no apt"),
        ("exit 100", "apt names no mirror"),
        ("echo \"'http://host/debian/dists/stable/InRelease' list 0\"; echo 'E: no network'", "E: no network"),
    ],
)
def test_newer_pythons_that_cannot_be_fetched_are_skipped_by_name_and_leave_nothing_behind(tree, apt, reason):
    if apt is not None:
        program(tree / "bin" / "apt-get", apt)
    program(tree / "bin" / "apt-cache", "exit 0")
    done = run(tree)
    assert (done.returncode, done.stdout) == (77, "")
    assert f"skipped: no Python from Debian unstable: {reason}\n" in done.stderr
    assert sorted(path.name for path in tree.iterdir()) == ["bin", "scripts"]


def test_newer_pythons_that_are_there_are_not_fetched_again(tree):
    for name in ("python3.15", "python3.9", "pydoc3.15"):
        program(tree / ".pythons/usr/bin" / name, "exit 1")
    done = run(tree)
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert (done.returncode, names, done.stderr) == (0, ["python3.9", "python3.15"], "")
