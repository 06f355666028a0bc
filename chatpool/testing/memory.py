"""A pool that answers from memory: the real one, with every call made in the thread that asks for it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Union
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.models import PreparedRequest
from urllib3.response import HTTPResponse

from .._client.pool import ChatPool
from .._engine import Call, Engine
from .._values import CallerError
from ..clock import Clock
from ..config import Limits
from ..errors import ConfigurationError
from .http_parts import parse_response
from .http_server import Send, Wait
from .model import FakeModel
from .received import Headers, RawRequest, ReceivedRequest
from .routing import Router, api_path
from .steps import Answer, Step, Stream

__all__ = ["MemoryPool", "Replies", "RepliesLike", "forbid_sending"]

Reply = Union[str, Mapping[str, Any], Step]
RepliesLike = Union[None, Reply, Sequence[Reply], Callable[[Any], Optional[Reply]]]

_BASE_URL = "http://memory.invalid/v1"  # a name that no resolver knows (RFC 6761)
_TEXT_PATHS = ("/chat/completions", "/completions", "/responses")

# Nothing is connected to, and there is no worker: settings of a real pool may stay where they are.
_WITHOUT_EFFECT = (
    *("api_key", "auth", "base_url", "cert", "endpoints", "organization", "project", "proxies", "session", "verify"),
    *("after_call", "worker_end", "worker_idle"),
)


class MemoryPool(ChatPool):
    """A :class:`chatpool.ChatPool` that is answered from memory, for tests of what a program does with answers.

    It is the real pool, retries, ``parse=``, runs, streams, budgets, journals and listeners included, but nothing
    leaves the process: there is no socket and no thread.  Each call is made in the thread that asks for it, before
    that goes on; so ``parse=``, callbacks and listeners see its transactions and its patches.  Waits before retries
    are skipped.  A stream is written whole before its first chunk is read.

    Args:
        model: as in :class:`chatpool.ChatPool`.
        replies: what the model says:

            - None: the last user message;
            - a str: that, to everything;
            - a dict ``{prompt: reply}``; any other prompt is an AssertionError that names it;
            - a list of replies, for the first, second, ... request; one more is an AssertionError;
            - a function of the body, which returns a reply, or None for the last user message. What it raises is
              raised to the caller of the pool, and not made an outcome;
            - an ``Error(503)`` or another :class:`Step`.

            A reply is a text, a whole body as a dict (:func:`chat_completion`), or a :class:`Step`. Embeddings,
            moderations and the list of models are answered as a :class:`FakeServer` does, unless a function or a Step
            says otherwise.
        outbox: a list that gets the body of each request that is sent, retries included. Default: a new one.
        options: other arguments of :class:`chatpool.ChatPool`. Those about connections, keys and workers have no
            effect, nor has the scope of ``limits``.

    Attributes:
        outbox: the bodies that were sent.

    Example::

        pool = MemoryPool(replies={"What is the capital of France?": "Paris"})
        assert pool.chat("What is the capital of France?").text == "Paris"
        assert len(pool.outbox) == 1

    Raises:
        TypeError: ``replies`` is none of these, or an option is unknown.
    """

    def __init__(
        self,
        model: Optional[str] = None,
        *,
        replies: Union[RepliesLike, Replies] = None,
        outbox: Optional[List[Dict[str, Any]]] = None,
        **options: Any,
    ) -> None:
        self._inline_clock = _SkippingClock()
        self._replies = replies if isinstance(replies, Replies) else Replies(replies)
        self.outbox: List[Dict[str, Any]] = [] if outbox is None else outbox
        super().__init__(
            model,
            base_url=_BASE_URL,
            session=_session(_MemoryAdapter(self._replies, self.outbox)),
            **_with_effect(options),
        )

    @property
    def replies(self) -> RepliesLike:
        """Replies of the model; may be set at any time."""
        return self._replies.source

    @replies.setter
    def replies(self, replies: RepliesLike) -> None:
        self._replies.set(replies)


def _with_effect(options: Mapping[str, Any]) -> Dict[str, Any]:
    kept = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    if isinstance(kept.get("limits"), Limits):
        kept["limits"] = replace(kept["limits"], scope=None)  # a file or a Redis of other processes
    return kept


class Replies:
    """Replies to choose from, shared by any number of pools.

    Args:
        source: as ``replies`` of :class:`MemoryPool`.

    Attributes:
        source: the same.

    Raises:
        TypeError: ``source`` is no replies.
    """

    def __init__(self, source: RepliesLike = None) -> None:
        self.set(source)

    def set(self, source: RepliesLike) -> None:
        """Replace the replies; a list begins anew.

        Raises:
            TypeError: ``source`` is no replies.
        """
        if isinstance(source, type) or not (
            source is None or callable(source) or isinstance(source, (str, Mapping, Sequence, Step))
        ):
            raise TypeError(
                "replies must be a text, a dict from prompts to replies, a list of replies, a step such as Error(503) "
                f"or a function of the body, got {source!r}"
            )
        self.source = source
        self._following: Iterator[Any] = iter(source if _is_list(source) else ())  # type: ignore[arg-type]  # a list

    def step_for(self, request: ReceivedRequest) -> Step:
        """Return the step that answers a request.

        Raises:
            AssertionError: there is no reply to it.
            TypeError: what there is is none.
        """
        source = self.source
        if isinstance(source, Step):
            return source
        if callable(source):
            return _step_of(source(request.body))
        if api_path(request.path) not in _TEXT_PATHS:
            return Answer()
        if isinstance(source, Mapping):
            if request.prompt not in source:
                raise AssertionError(f"there is no reply to the prompt {request.prompt!r}, only to {list(source)!r}")
            return _step_of(source[request.prompt])
        if not _is_list(source):
            return _step_of(source)
        reply = next(self._following, None)
        if reply is None:
            raise AssertionError(
                f"no reply is left for request {request.number + 1}, whose prompt is {request.prompt!r}"
            )
        return _step_of(reply)


def _is_list(source: Any) -> bool:
    return isinstance(source, Sequence) and not isinstance(source, str)


def _step_of(reply: Any) -> Step:
    if reply is None or isinstance(reply, str):
        return Answer(reply)
    if isinstance(reply, Mapping):
        return Stream(body=reply)
    if isinstance(reply, Step):
        return reply
    raise TypeError(f"a reply must be a text, a whole body as a dict, or a step such as Error(503), got {reply!r}")


class _SkippingClock(Clock):
    """Real time, in which every wait of a known length is skipped."""

    def __init__(self) -> None:
        self._skipped_seconds = 0.0

    def now(self) -> float:
        """Return real monotonic seconds, plus those that were skipped."""
        return time.monotonic() + self._skipped_seconds

    def wait(self, condition: threading.Condition, seconds: Optional[float] = None) -> bool:
        """Put the time forward by ``seconds``; without them, wait to be notified."""
        if seconds is None:
            return super().wait(condition)
        self._skipped_seconds += max(0.0, seconds)
        return False


class _MemoryAdapter(BaseAdapter):
    """Answers the requests of a session.

    Args:
        replies: the replies.
        outbox: gets the bodies.
    """

    never_blocks = True

    def __init__(self, replies: Replies, outbox: List[Dict[str, Any]]) -> None:
        super().__init__()
        self._replies = replies
        self._outbox = outbox
        self._model = Router(FakeModel())
        self._numbers = itertools.count()
        self._http = HTTPAdapter()

    def send(self, request: PreparedRequest, *args: Any, **keywords: Any) -> requests.Response:
        """Answer a request.

        Raises:
            CallerError: there is no reply, or the function of the replies has raised.
            ConnectionError: the answer breaks off before its body.
        """
        try:
            answer = self._answer(_received(request, next(self._numbers)))
        except Exception as error:
            raise CallerError(error) from error
        try:
            return self._http.build_response(request, _parsed(answer, str(request.method)))
        except (OSError, http.client.HTTPException) as error:
            raise requests.exceptions.ConnectionError(error) from error

    def _answer(self, request: ReceivedRequest) -> bytes:
        """Return the bytes of the whole answer."""
        if request.body is not None:
            self._outbox.append(request.body)
        step = self._replies.step_for(request)
        sent = []
        for action in step.actions(request, self._model):
            if isinstance(action, Send):
                sent.append(action.head + action.body)
            elif not isinstance(action, Wait):
                break
            elif action.seconds is None:
                raise ConfigurationError(f"a reply cannot be {step!r}, which never ends: use a FakeServer")
        return b"".join(sent)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def __copy__(self) -> _MemoryAdapter:
        return self  # for a forked child, where it works as it does here

    def __reduce__(self) -> Any:
        raise TypeError("a MemoryPool cannot be pickled: its replies and its outbox are those of this process")


def _session(adapter: BaseAdapter) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", adapter)
    return session


def _received(request: PreparedRequest, number: int) -> ReceivedRequest:
    parts = urlsplit(str(request.url))
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = Headers([(name, str(value)) for name, value in request.headers.items()])
    body: Any = request.body or b""
    if not isinstance(body, bytes):
        body = body.encode() if isinstance(body, str) else b"".join(body)  # a stream, for an upload
    raw = RawRequest(str(request.method), target, "HTTP/1.1", headers, body)
    return ReceivedRequest(raw, number=number, connection=1, time=time.monotonic())


def _parsed(answer: bytes, method: str) -> HTTPResponse:
    response = parse_response(answer, method)
    return HTTPResponse(
        body=response,
        headers=dict(response.headers.items()),
        status=response.status,
        reason=response.reason,
        version=response.version,
        preload_content=False,
        original_response=response,
        request_method=method,
    )


@contextlib.contextmanager
def forbid_sending(who: str) -> Iterator[List[str]]:
    """Return a context in which pools of this process send nothing; memory pools go on as before.

    Each call and each run of another pool ends with an AssertionError in the thread that makes it.

    Args:
        who: named in the error.

    Yields:
        a list that gets the message of each error, since a program may catch it.
    """
    refused: List[str] = []
    submit = Engine.submit

    def submit_in_memory(engine: Engine, calls: Sequence[Call]) -> None:
        if not engine.runs_inline:
            refused.append(f"{who} makes a call to {engine.transport.base_url}, and not from memory")
            raise AssertionError(refused[-1])
        submit(engine, calls)

    Engine.submit = submit_in_memory  # type: ignore[method-assign, assignment]  # names its parameters otherwise
    try:
        yield refused
    finally:
        Engine.submit = submit  # type: ignore[method-assign]
