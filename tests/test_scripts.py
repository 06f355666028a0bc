"""The scripts that fetch something say what they lack, and the one that counts prints every figure."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("new_pythons.sh", "freethreaded_python.sh", "private_apt.sh")
TOOLS = ("awk", "bash", "cat", "dirname", "find", "grep", "id", "mkdir", "mktemp", "rm", "sed", "sort", "touch")

# An apt that names a mirror, which has no such source package.
NO_SOURCE = """case "$*" in
    *source*) echo 'E: no network'; exit 100 ;;
    *) echo "'http://host/debian/dists/stable/InRelease' list 0" ;;
esac"""

needs_bash = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="not a Unix with bash")


@pytest.fixture
def tree(tmp_path):
    """A source tree that holds the scripts only, and a PATH without apt."""
    (tmp_path / "scripts").mkdir()
    for script in SCRIPTS:
        shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path


def run(tree, script="new_pythons.sh"):
    command = [tree / "scripts" / script]
    return subprocess.run(command, env={"PATH": str(tree / "bin")}, capture_output=True, text=True, check=False)


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@needs_bash
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


@needs_bash
@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        (None, "this machine has no apt"),
        ("exit 100", "apt names no mirror"),
        (NO_SOURCE, "E: no network"),
    ],
)
def test_a_python_that_cannot_be_built_is_skipped_by_name_and_leaves_nothing_behind(tree, apt, reason):
    if apt is not None:
        program(tree / "bin" / "apt-get", apt)
    program(tree / "bin" / "dpkg", "exit 0")
    done = run(tree, "freethreaded_python.sh")
    assert (done.returncode, done.stdout) == (77, "")
    assert f"skipped: no Python 3.13t: {reason}\n" in done.stderr
    assert sorted(path.name for path in tree.iterdir()) == ["bin", "scripts"]


@needs_bash
def test_a_python_that_was_built_is_not_built_again(tree):
    program(tree / ".pythons-built/python3.13t/bin/python3.13t", "exit 1")
    done = run(tree, "freethreaded_python.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("/.pythons-built/python3.13t/bin/python3.13t\n")


@needs_bash
def test_newer_pythons_that_are_there_are_not_fetched_again(tree):
    for name in ("python3.15", "python3.9", "pydoc3.15"):
        program(tree / ".pythons/usr/bin" / name, "exit 1")
    done = run(tree)
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert (done.returncode, names, done.stderr) == (0, ["python3.9", "python3.15"], "")


@pytest.fixture(scope="module")
def figures():
    """What ``scripts/structure.py`` prints: the figures by their names."""
    command = [sys.executable, ROOT / "scripts" / "structure.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.stdout.splitlines())


@pytest.mark.docs
def test_the_structure_script_prints_every_figure_of_the_architecture_page(figures):
    page = (ROOT / "docs" / "reference" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## Figures\n", 1)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == list(figures)
    assert all(len(row) == 3 and all(row) for row in rows)


@pytest.mark.docs
def test_every_figure_of_the_structure_script_starts_with_a_number(figures):
    assert len(figures) == 12
    assert all(re.match(r"\d", value) for value in figures.values()), figures


@pytest.mark.docs
def test_the_structure_script_counts_circles_and_follows_a_call(figures):
    assert figures["import circles at import time"] == "0"
    assert int(figures["files that one `pool.chat` passes through"]) > 10
    assert int(figures["function calls of one `pool.chat`"]) > 100
