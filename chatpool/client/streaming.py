"""The methods of a pool that stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Iterable, Iterator, Mapping, Optional, Tuple, Union

from ..config import RetryPolicyLike, TimeoutLike
from ..observe.progress import Progress
from ..types import ChatChunk, ChatCompletion, Item, Outcome
from ..wire import streamed
from .base import PoolBase
from .failure_limit import MaxFailures
from .options import RequestMaker, body_fields
from .runs import RunSettings, start_streams
from .stream import ChatStream

__all__ = ["StreamingCalls"]


class StreamingCalls(PoolBase):
    """``stream`` and ``stream_many``."""

    def stream(
        self,
        item: Item,
        *,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        **params: Any,
    ) -> ChatStream:
        """Answer one item chunk by chunk, as the model writes.

        ::

            with pool.stream("Tell me a story.") as stream:
                for chunk in stream:
                    print(chunk.text, end="", flush=True)

        Args:
            item, headers, query, priority, extra_body, system, retry, params: as in :meth:`chat`. The usage is
                asked for (``stream_options={"include_usage": True}``) unless ``stream_options`` says otherwise.
            timeout: as in :class:`ChatPool`: ``attempt`` bounds the time from send to the first content, ``read``
                (60 s by default) each wait for an event after that, which comments extend up to ``attempt``, and
                ``total`` all the time that is spent waiting for the server; the reader's own time between two chunks is
                never counted.

        Returns:
            A :class:`ChatStream`, to be iterated over and best used in a ``with`` block. Nothing is sent before the
            first chunk is asked for.

        Raises:
            TypeError: the item is of no such kind, or its path does not stream.
        """
        how = self._how(timeout, retry, headers, query, priority)
        make = RequestMaker(self._defaults, system, body_fields("stream", extra_body, params), streams=True)
        request = make(item)
        streamed(request)
        engine = self._core.engine
        return ChatStream(engine, item, request, replace(how, reading=engine.streams.hand_over).singular)

    def stream_many(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        buffersize: Optional[int] = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        **params: Any,
    ) -> Iterator[Tuple[int, Union[ChatChunk, Outcome[ChatCompletion]]]]:
        """Answer many items lazily and in parallel, each chunk by chunk.

        Args:
            items, prompt, progress, run_timeout, max_failures, buffersize: as in :meth:`imap`.
            timeout, retry, headers, query, priority, extra_body, system, params: as in :meth:`stream`.

        Returns:
            An iterator of ``(index, chunk)`` as chunks arrive, and last for each item ``(index, outcome)`` with its
            :class:`~chatpool.Outcome`: the whole answer, or the error, before which no, some or all of its chunks have
            come. A consumer that is slower than the model makes the workers wait, in their slots. Leaving the
            iterator early (``break``, an exception) cancels the rest.
        """
        settings = RunSettings(
            prompt, progress, run_timeout=run_timeout, buffersize=buffersize, max_failures=max_failures
        )
        make = RequestMaker(self._defaults, system, body_fields("stream_many", extra_body, params), streams=True)
        return start_streams(self._core, items, make, settings, self._how(timeout, retry, headers, query, priority))
