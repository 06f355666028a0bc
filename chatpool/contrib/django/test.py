"""Tests of a site without a server: its pools answer from memory, and ``outbox`` has what was sent."""

from __future__ import annotations

import contextlib
import unittest
from typing import Any, Dict, Iterator, List, Optional

from django.test.utils import TestContextDecorator

from ...testing.memory import Replies, RepliesLike, forbid_sending
from ...testing.received import ReceivedRequest
from ...testing.steps import Step
from .conf import DEFAULT_ALIAS, pool_settings
from .memory_backend import MemoryBackend, outbox
from .pools import pools

__all__ = ["ChatPoolReplies", "ChatPoolTestMixin", "outbox", "override_pool", "pools_in_memory"]


class override_pool(TestContextDecorator):  # noqa: N801 - as override_settings
    """Have a pool answer from memory: a context manager, and a decorator of functions and of ``TestCase`` classes.

    It has the other settings of its alias: model, system message, budget ...

    Args:
        alias: the alias in ``CHATPOOL``.
        replies: what the model says, as in :class:`chatpool.testing.MemoryPool`. Default: the last user message.

    Returns:
        On entering, the pool, whose ``replies`` can be changed.

    Example::

        with override_pool(replies={"What is the capital of France?": "Paris"}):
            response = self.client.get("/capital/France/")

    Raises:
        InvalidPoolError: on entering, there is no such alias, or its settings cannot work.
    """

    def __init__(self, alias: str = DEFAULT_ALIAS, replies: RepliesLike = None) -> None:
        super().__init__()
        Replies(replies)  # wrong ones are refused here
        self._alias = alias
        self._replies = replies
        self._entered: List[contextlib.ExitStack] = []  # a decorated function may call itself

    def enable(self) -> MemoryBackend:
        """Put the pool in its place."""
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(_pool_in_memory(self._alias, self._replies))
            self._entered.append(stack.pop_all())
        return pool

    def disable(self) -> None:
        """Put back what was there before."""
        self._entered.pop().close()


@contextlib.contextmanager
def _pool_in_memory(alias: str, replies: Any) -> Iterator[MemoryBackend]:
    pool = MemoryBackend(**{**pool_settings(alias).options, "replies": replies})
    with pool, pools.replaced(alias, pool):
        yield pool


class ChatPoolReplies(Replies):
    """Replies of the model in a test; ``set`` changes them.

    Attributes:
        outbox: the bodies that were sent in the test.
    """

    outbox: List[Dict[str, Any]] = outbox


@contextlib.contextmanager
def pools_in_memory(who: str, replies: Replies) -> Iterator[List[str]]:
    """Have all pools of ``CHATPOOL`` answer from memory, with an empty :data:`outbox`, and let no other pool send.

    Args:
        who: the name of the test.
        replies: what the model says.

    Yields:
        a list that gets a sentence for each call of another pool, which was refused.
    """
    outbox.clear()
    with contextlib.ExitStack() as stack:
        for alias in pools:
            stack.enter_context(_pool_in_memory(alias, replies))
        yield stack.enter_context(forbid_sending(who))


class _RepliesOf(Replies):
    """The replies that stand in ``chat_reply`` of a test at the moment."""

    def __init__(self, test: Any) -> None:
        self._test = test
        super().__init__(test.chat_reply)

    def step_for(self, request: ReceivedRequest) -> Step:
        if self._test.chat_reply is not self.source:
            self.set(self._test.chat_reply)
        return super().step_for(request)


class ChatPoolTestMixin:
    """A mixin for ``TestCase`` classes, Django's and others: pools answer from memory, whatever backends they have.

    A call through a pool that is none of ``CHATPOOL`` ends with an AssertionError that names the test, and so does the
    test itself.  :data:`outbox` is empty when a test begins.

    Attributes:
        chat_reply: what the model says, as ``replies`` of :class:`chatpool.testing.MemoryPool`; set it in the class for
            all tests, or in a test (``self.chat_reply = ...``) for what follows. A function in the class is a method:
            ``def chat_reply(self, body)``. Default: the last user message.

    Example::

        class SummaryTest(ChatPoolTestMixin, TestCase):
            def test_a_text_is_summarised(self):
                self.chat_reply = "short"
                self.assertContains(self.client.get("/summary/1/"), "short")
                self.assertEqual(outbox[0]["model"], "gpt-4o-mini")
    """

    chat_reply: RepliesLike = None

    @classmethod
    def setUpClass(cls) -> None:
        """Answer from memory what the class makes for its tests, in ``setUpTestData`` for instance."""
        # A method needs an object; before there is one, the last user message is the answer.
        replies = Replies(None if callable(cls.chat_reply) else cls.chat_reply)
        with pools_in_memory(cls.__qualname__, replies) as refused:
            super().setUpClass()  # type: ignore[misc]  # of the TestCase
        _fail_if_any(refused)

    def run(self, result: Optional[unittest.TestResult] = None) -> Any:
        """Run the test."""
        with self._in_memory():
            return super().run(result)  # type: ignore[misc]  # of the TestCase

    def debug(self) -> None:
        """Run the test without collecting errors, for ``--pdb``."""
        with self._in_memory():
            super().debug()  # type: ignore[misc]  # of the TestCase

    @contextlib.contextmanager
    def _in_memory(self) -> Iterator[None]:
        test: Any = self
        with pools_in_memory(test.id(), _RepliesOf(test)) as refused:
            test.addCleanup(_fail_if_any, refused)
            yield


def _fail_if_any(refused: List[str]) -> None:
    """Fail a test whose calls were refused, though the site may have handled the error.

    Raises:
        AssertionError: there was such a call.
    """
    if refused:
        raise AssertionError(refused[0])
