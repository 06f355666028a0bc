"""The pages whose examples need a framework: here it is installed."""

from __future__ import annotations

import pathlib

import pytest

pytestmark = [pytest.mark.deploy, pytest.mark.smoke]

EXAMPLES = pathlib.Path(__file__).parents[1] / "docs" / "test_examples.py"


@pytest.mark.parametrize("page", ["fastapi", "flask", "gevent"])
def test_the_examples_of_a_page_run(python, page):
    program = python("-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLES), "-m", "docs", "-k", f"howto/{page}.md")
    code = program.ended(120)
    assert "1 passed" in program.output
    assert code == 0, program.output[-6000:]
