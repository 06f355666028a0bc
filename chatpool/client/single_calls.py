"""The methods of a pool that make one call."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Mapping, Optional

from ..config import RetryPolicyLike, TimeoutLike
from ..reentrancy import waits_for_calls
from ..types import ChatCompletion, ChatRequest, Item
from ..wire import responses_request
from .base import PoolBase
from .options import RequestMaker, body_fields
from .parsing import Parse
from .review import Accept
from .singular import send

__all__ = ["SingleCalls"]


class SingleCalls(PoolBase):
    """``chat``, ``responses``, ``submit`` and ``request``."""

    def chat(
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
        parse: Optional[Parse] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> ChatCompletion:
        """Answer one item.

        Args:
            item: a str (one user message), a list of message dicts, a dict (a whole request body) or a
                :class:`~chatpool.ChatRequest`.
            timeout, retry, headers, query, system: as in :class:`ChatPool`, for this call.
            priority: calls of a higher one are sent first; any int. Among those of one priority, calls that are made
                alone go before the rows of runs, and runs take turns. What is passed over rises by one every 5 seconds,
                until it is sent. Default: that of the pool or its view, else 0.
            extra_body: body fields whose names are taken by keywords of this method.
            parse: makes ``.parsed`` of the answer's text: a function of the text; a dataclass, a TypedDict, a
                NamedTuple, a pydantic model or TypeAdapter, or a list, Optional, Union, Literal ... of such types; or a
                JSON schema (a dict; needs jsonschema). For all but a function the text has to be JSON, alone or in
                its only fence.
            max_reasks: how often an answer that ``parse`` cannot use is asked for again, with the reason. Default 2.
                That is where ``parse`` raises a ValueError, TypeError, LookupError, AssertionError or
                :class:`~chatpool.Reask`; any other exception ends the call.
            accept: finish reasons of answers that are taken. Default: ``("stop", "tool_calls")`` with ``parse``, and
                every one without.
            collect_stream: ask for a stream, and put the answer together from it. For servers behind proxies that cut
                connections on which nothing comes for long. A stream that breaks off is asked for again, from its
                beginning; ``timeout.read`` (here 60 s by default) bounds each wait for an event
                after its first content.
            params: body fields, for instance ``temperature=0`` or ``model="gpt-4o"``.

        Raises:
            APIError: no usable answer came, after the retries that the policy allows.
            ParseError: ``parse`` could make nothing of the last answer, or raised what the model cannot mend.
            LengthError, ContentFilterError: the answer was cut, or refused, and ``accept`` does not take that.
            DeadlineExceededError: ``timeout.total`` ran out.
            PoolClosedError: the pool is closed.
            TypeError: the item is of no such kind.
        """
        how = self._how(timeout, retry, headers, query, priority).reviewed(parse, max_reasks, accept)
        how = how.collected(collect_stream)
        make = RequestMaker(self._defaults, system, body_fields("chat", extra_body, params))
        return self._wait(item, make(item), how)  # type: ignore[no-any-return]  # a chat path answers with one

    @waits_for_calls
    def submit(
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
        parse: Optional[Parse] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Future[ChatCompletion]:
        """Start answering one item; arguments as in :meth:`chat`.

        Returns:
            A ``concurrent.futures.Future`` of a :class:`~chatpool.ChatCompletion`; ``cancel()`` works at any
            time before its end, also while the call waits for its next attempt or is in flight.
        """
        how = self._how(timeout, retry, headers, query, priority).reviewed(parse, max_reasks, accept)
        how = how.collected(collect_stream)
        make = RequestMaker(self._defaults, system, body_fields("submit", extra_body, params))
        return send(self._core, item, make(item), how)

    def responses(
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
    ) -> ChatCompletion:
        """Answer one item by the Responses API.

        Args:
            item: a str, a list of input items (messages among them) or a dict (a whole body with ``input``).
            system: becomes the body's ``instructions``, unless it has them.
            timeout, retry, headers, query, priority, extra_body: as in :meth:`chat`.
            params: body fields, for instance ``max_output_tokens=50`` or ``previous_response_id=reply.id``, and
                the further keywords of :meth:`chat`.

        Returns:
            The answer in chat's words: ``finish_reason`` is ``"length"`` where the API says ``incomplete`` because
            of ``max_output_tokens``; ``usage`` and ``tool_calls`` as ever. ``raw["output"]`` has all output items.

        Raises:
            as :meth:`chat`.
        """
        return self.chat(
            responses_request(item),
            timeout=timeout,
            retry=retry,
            headers=headers,
            query=query,
            priority=priority,
            extra_body=extra_body,
            system=system,
            **params,
        )

    def request(
        self,
        path: str,
        body: Optional[Mapping[str, Any]] = None,
        *,
        method: str = "POST",
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
    ) -> Any:
        """Call any JSON endpoint below ``base_url`` with the same guarantees.

        Args:
            path: for instance ``"/moderations"`` or ``"/models"``.
            body: the JSON body; sent as it is. Default: none with GET and DELETE, ``{}`` with other methods.
            method: the HTTP method.
            timeout, retry, headers, query: as in :class:`ChatPool`, for this call.
            priority: as in :meth:`chat`.

        Returns:
            The decoded answer: a dict, or a :class:`~chatpool.ChatCompletion` from a chat path; None for an answer of
            no bytes.

        Raises:
            APIResponseError: a good answer that is not JSON, among others. From a path that is not known to answer with
                JSON it is not asked for again, and ``.body`` has all its bytes.
            ChatPoolError: as :meth:`chat`.
        """
        if not str(path).startswith("/"):
            raise TypeError(f"path must be a str that starts with '/', got {path!r}")
        sent = ChatRequest(dict(body or {}), path, method.upper())
        return self._wait(None, sent, self._how(timeout, retry, headers, query, priority))
