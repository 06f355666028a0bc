"""Every example of the documentation runs and prints what its page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

pytestmark = pytest.mark.docs

MUST_SHOW_CODE = ("tutorial", "howto")
# Pages whose examples need a package that the suite's environment does not have; tests/deploy runs them.
NEEDS = {
    "howto/celery.md": "celery",
    "howto/fastapi.md": "fastapi",
    "howto/flask.md": "flask",
    "howto/gevent.md": "gevent",
}


def test_a_page_s_examples_run_and_print_what_it_shows(
    page: Path, docs: Path, run_page: Callable[[str, str], int]
) -> None:
    name = page.relative_to(docs).as_posix()
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    count = run_page(name, page.read_text(encoding="utf-8"))
    if page.parent.name in MUST_SHOW_CODE and page.name != "index.md":
        assert count, "a tutorial or a how-to without a single example"
