"""The tests of the packages that a call passes through again, in a process that gevent has patched."""

from __future__ import annotations

import pathlib

import pytest

pytestmark = pytest.mark.deploy

TESTS = pathlib.Path(__file__).parents[1]

EXCLUDED = {
    "client": [
        # A handler of signals runs in whatever greenlet is the current one, and interrupts no other.
        "a_stream_ends_that_a_handler_closes",
        "it_cannot_make_a_call",
        # So does Ctrl-C: here in that of the server.
        "an_interruption_keeps_what_came_before",
        # gevent's own functions would count.
        "functions_are_called_less",
    ],
    "faults": [
        # It is to hit exchanges that last 5 ms at most, which TLS on greenlets does not always allow.
        "(around_their_completion and deadline and tls)",
    ],
}


@pytest.mark.parametrize("folder", ["client", pytest.param("engine", marks=pytest.mark.smoke), "transport", "faults"])
def test_their_tests_pass_on_greenlets(python, folder):
    excluded = EXCLUDED.get(folder, [])
    chosen = ["-k", " and ".join(f"not {name}" for name in excluded)] if excluded else []
    program = python(
        *("patched_pytest.py", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent), str(TESTS / folder), *chosen)
    )
    code = program.ended(400)
    assert "patched by gevent: True" in program.output
    assert code == 0, program.output[-6000:]
