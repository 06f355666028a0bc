"""The facts that stand above a measurement."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from benchmarks.machine import commit, describe

GIT = shutil.which("git") or "git"

needs_git = pytest.mark.skipif(shutil.which(GIT) is None, reason="needs git")


@pytest.fixture
def tree(tmp_path):
    """A source tree with one commit."""
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("# Results")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "First"]):
        subprocess.run([GIT, *command], cwd=tmp_path, check=True)
    return tmp_path


@needs_git
def test_a_commit_is_named_by_its_short_hash(tree):
    head = subprocess.run([GIT, "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True, check=True).stdout
    assert len(commit(tree)) >= 7
    assert head.startswith(commit(tree))


@needs_git
@pytest.mark.parametrize("file", ["code.py", "new.py"])
def test_changes_that_are_in_no_commit_are_mentioned(tree, file):
    (tree / file).write_text("2")
    assert commit(tree).endswith(" with changes")


@needs_git
def test_what_a_run_writes_itself_is_no_change(tree):
    (tree / "benchmarks" / "RESULTS.md").write_text("# Other results")
    (tree / "benchmarks" / "results" / "cost.json").write_text("{}")
    assert not commit(tree).endswith("changes")


def test_a_folder_that_is_no_repository_has_no_commit(tmp_path):
    assert commit(tmp_path) == "unknown"


def test_the_facts_of_a_machine_hold_the_commit():
    assert describe()["commit"] == commit()
