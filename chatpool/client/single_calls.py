"""The methods of a pool that make one call."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Mapping, Optional

from ..config import RetryPolicyLike, TimeoutLike
from ..types import ChatCompletion, ChatRequest, Item
from .base import PoolBase
from .options import RequestMaker, body_fields
from .singular import send

__all__ = ["SingleCalls"]


class SingleCalls(PoolBase):
    """``chat``, ``submit`` and ``request``."""

    def chat(
        self,
        item: Item,
        *,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        **params: Any,
    ) -> ChatCompletion:
        """Answer one item.

        Args:
            item: a str (one user message), a list of message dicts, a dict (a whole request body) or a
                :class:`~chatpool.ChatRequest`.
            timeout, retry, headers, query, system: as in :class:`ChatPool`, for this call.
            extra_body: body fields whose names are taken by keywords of this method.
            params: body fields, for instance ``temperature=0`` or ``model="gpt-4o"``.

        Raises:
            APIError: no usable answer came, after the retries that the policy allows.
            DeadlineExceededError: ``timeout.total`` ran out.
            PoolClosedError: the pool is closed.
            TypeError: the item is of no such kind.
        """
        how = self._how(timeout, retry, headers, query)
        make = RequestMaker(self._defaults, system, body_fields("chat", extra_body, params))
        return self._wait(item, make(item), how)  # type: ignore[no-any-return]  # a chat path answers with one

    def submit(
        self,
        item: Item,
        *,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        **params: Any,
    ) -> Future[ChatCompletion]:
        """Start answering one item; arguments as in :meth:`chat`.

        Returns:
            A ``concurrent.futures.Future`` of a :class:`~chatpool.ChatCompletion`; ``cancel()`` works at any
            time before its end, also while the call waits for its next attempt or is in flight.
        """
        how = self._how(timeout, retry, headers, query)
        make = RequestMaker(self._defaults, system, body_fields("submit", extra_body, params))
        return send(self._core, item, make(item), how)

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
    ) -> Any:
        """Call any JSON endpoint below ``base_url`` with the same guarantees.

        Args:
            path: for instance ``"/moderations"`` or ``"/models"``.
            body: the JSON body; sent as it is.
            method: the HTTP method.
            timeout, retry, headers, query: as in :class:`ChatPool`, for this call.

        Returns:
            The decoded answer: a dict, or a :class:`~chatpool.ChatCompletion` from a chat path.
        """
        if not str(path).startswith("/"):
            raise TypeError(f"path must be a str that starts with '/', got {path!r}")
        sent = ChatRequest(dict(body or {}), path, method.upper())
        return self._wait(None, sent, self._how(timeout, retry, headers, query))
