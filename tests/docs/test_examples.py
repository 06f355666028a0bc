"""Every example of the documentation runs and prints what its page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List

import pytest
from page_examples import Example

from chatpool.testing import FakeServer

MUST_SHOW_CODE = ("tutorial", "howto")
# Pages whose examples need a package that the suite's environment does not have; tests/deploy runs them.
NEEDS = {"howto/gevent.md": "gevent"}


def test_a_page_s_examples_run_and_print_what_it_shows(
    page: Path, docs: Path, run_page: Callable[[str, str], int]
) -> None:
    name = page.relative_to(docs).as_posix()
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    count = run_page(name, page.read_text(encoding="utf-8"))
    if page.parent.name in MUST_SHOW_CODE and page.name != "index.md":
        assert count, "a tutorial or a how-to without a single example"


def test_the_readme_s_example_runs(
    docs: Path,
    tmp_path: Path,
    read: Callable[[str], List[Example]],
    example_server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("Good evening\n")
    (example,) = (one for one in read((docs.parent / "README.md").read_text(encoding="utf-8")) if not one.is_shell)
    exec(compile(example.source, "README.md", "exec"), {})  # noqa: S102 - our own documentation
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "pong"
    assert printed[-1] == "0 Good evening"
