"""A fixture for pytest.  Opt in from a ``conftest.py`` at the root of the tests::

    pytest_plugins = ["chatpool.contrib.django.pytest"]

Then a test asks for it::

    def test_a_text_is_summarised(client, chatpool_replies):
        chatpool_replies.set("short")
        assert b"short" in client.get("/summary/1/").content
        assert chatpool_replies.outbox[0]["model"] == "gpt-4o-mini"

PYTEST_DONT_REWRITE (there are no assertions in it).
"""

from __future__ import annotations

from typing import Iterator

import pytest

from .test import ChatPoolReplies, pools_in_memory

__all__ = ["chatpool_replies"]


@pytest.fixture
def chatpool_replies(request: pytest.FixtureRequest) -> Iterator[ChatPoolReplies]:
    """All pools of the site answer from memory: the last user message, until ``set`` says what the model says.

    ``outbox`` has the bodies that were sent.  A call through another pool fails the test.
    """
    replies = ChatPoolReplies()
    with pools_in_memory(request.node.nodeid, replies) as refused:
        yield replies
    if refused:
        pytest.fail(refused[0])
