"""``ChatPool``: every method that users call, its private helpers below them.

Most methods do the same three things: they check their keywords (``options``, ``start_run``), make a request or a run
of requests, and wait for its outcomes (``run``, ``streams``) or return what does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import inspect
import math
import time
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
    overload,
)

import requests

from .._engine import CallFuture, CallOptions, EndpointSpec, WorkerHooks, no_worker_in_time
from .._observe.progress import Progress
from .._redaction import secret
from .._reentrancy import defer, is_reentrant, runs_user_code, waits_for_calls
from .._structured.validation import Accept
from .._transport import Auth, Cert, Key, Verify, request_auth
from .._typing import Parse, ParsedT, SlotT, ValueT
from .._wire import check_response_form, embedding_request, responses_request, streamed, with_parts
from ..clock import Clock, interruptible
from ..config import Budget, Limits, RetryPolicyLike, TimeoutLike
from ..errors import CallCancelledError, ChatPoolError
from ..events import Listener
from ..types import ChatChunk, ChatCompletion, ChatRequest, Files, Item, Outcome, PoolStats, ResponseForm, Results
from .api_methods import ApiMethods
from .cache_settings import Cache, CacheLike, cache_of, key_or_none_needed
from .connect import azure_settings, check_pacing, endpoint_spec, endpoint_specs, openai_settings
from .core import PoolCore
from .endpoint import Endpoint, refuse_credentials
from .failures import MaxFailures
from .fallbacks import EndpointNames, FallbacksLike, check_prices
from .options import CallDefaults, RequestMaker, WhenDown, answer_options, body_fields, call_options, streamed_options
from .pickling import PoolRecipe, restore
from .run import Outcomes, collect
from .second_try import call_options_of, failed_of, fill, request_maker_of, run_options_of
from .start_run import ItemKey, JournalPath, OnError, RunOptions, start_embedding_run, start_run, start_streams
from .streams import GRACE_SECONDS, ChatStream
from .time_budget import deadline_on

__all__ = ["ChatPool", "map"]

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024
_CONNECTION = (
    *("api_key", "base_url", "organization", "project", "headers", "query", "max_workers", "session"),
    *("verify", "cert", "proxies", "max_response_bytes", "auth"),
)


class ChatPool(ApiMethods):
    """Calls to an OpenAI-compatible server, or to several, over pooled connections and at most ``max_workers`` threads.

    Args:
        model: the model of every request that names none.
        api_key: the key, or a callable that returns it (called again once when the server refuses the key).
            Default: OPENAI_API_KEY. Only OpenAI's own server needs one.
        base_url: the API's root, usually ending in ``/v1``. Default: OPENAI_BASE_URL, else OpenAI's.
        max_workers: the cap on calls in flight, and the number of connections kept. Default 16.
        timeout: a :class:`~chatpool.Timeout`, seconds for one attempt, or a (connect, read) pair.
        retry: a :class:`~chatpool.RetryPolicy`, or the number of retries.
        limits: :class:`~chatpool.Limits`, what may be sent per minute and per day to each model. Default: the
            server's own limits, found out.
        budget: a :class:`~chatpool.Budget`, what may be spent in the pool's life. Default: no limit.
        cache: a file of answers, or a :class:`~chatpool.Cache`: a request that is identical to an earlier one, also of
            another process, is answered from it. Default: every request is sent.
        endpoints: a list of :class:`~chatpool.Endpoint`, in place of ``api_key`` and ``base_url``: calls go to the one
            that is expected to answer first, and from one that fails to another.
        fallbacks: what is sent in the place of a request for text that has failed, or whose answer is not accepted: a
            list of models (str), changes to the body (``{"service_tier": "default"}``; None leaves a field out) and
            endpoints (:class:`~chatpool.Endpoint`; one that is not in ``endpoints`` gets nothing else), tried in order,
            each once (see ``docs/howto/fallbacks``). ``embed`` and ``request`` have only those of the call.
        when_down: what a single call does while every server for its model is known to be down: ``"wait"`` for the
            return of one, within ``timeout.total``; or ``"raise"`` an :class:`~chatpool.APIConnectionError` at once,
            with ``retry_after``, except that one call at a time is sent as a probe. Runs always wait. Default
            ``"wait"``.
        wait_for_day: whether calls wait, however long, while a limit per day is used up: the server's or that of
            ``limits``. Otherwise a run ends with a :class:`~chatpool.DayLimitError`, which says when to go on, and a
            single call waits if there is room again within its ``timeout.total``. Default False.
        system: text of a system message put before conversations that have none.
        defaults: body fields of every request, for instance ``{"temperature": 0}``.
        headers: extra HTTP headers of every request. They go before those in OPENAI_CUSTOM_HEADERS (``Name: value``,
            one a line).
        query: extra URL parameters of every request.
        organization: the ``OpenAI-Organization`` header. Default: OPENAI_ORG_ID.
        project: the ``OpenAI-Project`` header. Default: OPENAI_PROJECT_ID.
        session: a ``requests.Session`` whose headers, auth, proxies, certificates, hooks, cookies and own
            adapters are copied; the object itself is neither changed nor closed.
        after_call: called with no argument in the worker thread after each call.
        worker_idle: called with no argument in a worker thread that has had no work for half a second, once until it
            has work again; for instance ``django.db.connections.close_all``. A call may have to wait for its end.
        worker_end: called with no argument in a worker thread that ends, because the pool is closed or given up.
        verify: False, the path of a CA bundle, or an ``ssl.SSLContext`` that settles everything about TLS (it gets
            chatpool's class of sockets). Default: REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, else certifi's.
        cert: path of a client certificate, or a (certificate, key) pair.
        proxies: proxy URLs by scheme. Default: from the environment, as requests reads it; loopback needs none, and
            ``socks://`` is ``socks5h://``.
        auth: what signs requests, in the place of a key: a requests auth object, a function that takes a
            ``requests.PreparedRequest`` and returns it, or a (user, password) pair. It is called for every attempt, by
            several threads at once, and sees the whole request.
        max_response_bytes: the longest answer that is accepted, after decompression. Default 64 MiB.
        listeners: callables that get every :class:`~chatpool.Event`.

    A pool can be pickled: it is made anew from its arguments, with a key from a callable or the environment, never
    one passed as a str.  After a fork the child's copy has connections and workers of its own.

    Leaving a ``with`` block finishes what was submitted; leaving it by an exception gives everything up.
    Calls made from inside one of the pool's own workers (a listener, a callback) run there at once.

    Raises:
        ConfigurationError: a value that cannot work (it is a ValueError too); the message names the argument.
        TypeError: an argument of a wrong type, or an unknown one.
    """

    _plain_options: Optional[CallOptions] = None  # of calls without options of their own
    _inline_clock: Optional[Clock] = None  # of a pool without workers (chatpool.testing.MemoryPool)

    def __init__(
        self,
        model: Optional[str] = None,
        *,
        api_key: Key = None,
        base_url: Optional[str] = None,
        max_workers: int = 16,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        limits: Optional[Limits] = None,
        budget: Optional[Budget] = None,
        cache: Optional[CacheLike] = None,
        endpoints: Optional[Sequence[Endpoint]] = None,
        fallbacks: Optional[FallbacksLike] = None,
        when_down: WhenDown = "wait",
        wait_for_day: bool = False,
        system: Optional[str] = None,
        defaults: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        organization: Optional[str] = None,
        project: Optional[str] = None,
        session: Optional[requests.Session] = None,
        after_call: Optional[Callable[[], Any]] = None,
        worker_idle: Optional[Callable[[], Any]] = None,
        worker_end: Optional[Callable[[], Any]] = None,
        verify: Verify = None,
        cert: Cert = None,
        proxies: Optional[Mapping[str, str]] = None,
        auth: Auth = None,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
        listeners: Iterable[Listener] = (),
    ) -> None:
        # From here on a traceback that shows the variables of a frame shows none of them.
        api_key, headers, query, proxies = secret(api_key), secret(headers), secret(query), secret(proxies)
        auth = request_auth(auth)
        arguments = {name: value for name, value in locals().items() if name != "self"}
        connection = {name: arguments[name] for name in _CONNECTION}
        call_defaults: Dict[str, Any] = {"model": model, "system": system, "defaults": defaults, "timeout": timeout}
        call_defaults.update(retry=retry, when_down=when_down, wait_for_day=wait_for_day, fallbacks=fallbacks)
        check_pacing(limits, budget, model)
        answers = cache_of(cache)
        if endpoints is None:
            connection["api_key"] = key_or_none_needed(answers, api_key, auth)
            specs = [endpoint_spec(openai_settings(**connection), limits)]
        else:
            specs = endpoint_specs(endpoints, limits, connection)
        names = EndpointNames(endpoints, specs)
        specs += names.add_standbys(fallbacks, limits, connection)
        self._open(
            specs, call_defaults, WorkerHooks(after_call, worker_idle, worker_end), listeners, budget, names, answers
        )
        check_prices(self._defaults.fallbacks, limits, budget)
        self._recipe = PoolRecipe("", arguments)

    @classmethod
    def azure(
        cls,
        endpoint: Optional[str] = None,
        deployment: Optional[str] = None,
        *,
        api_key: Key = None,
        azure_ad_token_provider: Optional[Callable[[], str]] = None,
        api_version: Optional[str] = None,
        **options: Any,
    ) -> ChatPool:
        """A pool for an Azure OpenAI resource.

        Args:
            endpoint: ``https://NAME.openai.azure.com``. Default: AZURE_OPENAI_ENDPOINT.
            deployment: the deployment that all calls go to. Without one, each request's model names it.
            api_key: the resource's key, or a callable. Default: AZURE_OPENAI_AD_TOKEN, else AZURE_OPENAI_API_KEY.
            azure_ad_token_provider: a function that returns a token of Microsoft Entra ID, to sign in without a
                key; called again once when the server refuses the token.
            api_version: for instance ``"2024-10-21"``. Default for a deployment: OPENAI_API_VERSION.
            options: further arguments of :class:`ChatPool`, ``model`` included.

        Raises:
            ConfigurationError: the endpoint or the key is missing, or the deployment has no API version.
        """
        api_key = secret(api_key)
        options.update({name: secret(options[name]) for name in ("headers", "query", "proxies") if name in options})
        options.update(auth=request_auth(options.get("auth")))
        arguments = {"endpoint": endpoint, "deployment": deployment, "api_key": api_key, "api_version": api_version}
        arguments.update(options, azure_ad_token_provider=azure_ad_token_provider)
        names = ("system", "defaults", "timeout", "retry", "when_down", "wait_for_day", "fallbacks")
        call_defaults = {name: options.pop(name, None) for name in names}
        call_defaults["model"] = options.pop("model", deployment)
        hooks = WorkerHooks(*(options.pop(name, None) for name in WorkerHooks._fields))
        listeners = options.pop("listeners", ())
        limits, budget = options.pop("limits", None), options.pop("budget", None)
        answers = cache_of(options.pop("cache", None))
        signs_in = azure_ad_token_provider or options.get("auth")
        api_key = key_or_none_needed(answers, api_key, signs_in)
        allowed = {
            "headers",
            "query",
            "max_workers",
            "session",
            "verify",
            "cert",
            "proxies",
            "max_response_bytes",
            "auth",
        }
        for name in options:
            if name not in allowed:
                raise TypeError(f"ChatPool.azure() got an unexpected keyword argument {name!r}")
        fixed = {"max_workers": 16, "max_response_bytes": _MAX_RESPONSE_BYTES, "headers": None, "query": None}
        settings = azure_settings(
            endpoint, deployment, api_key, azure_ad_token_provider, api_version, **{**fixed, **options}
        )
        check_pacing(limits, budget, call_defaults["model"])
        pool = cls.__new__(cls)
        spec = endpoint_spec(settings, limits)
        endpoint_names = EndpointNames(None, [spec])
        standbys = endpoint_names.add_standbys(call_defaults["fallbacks"], limits, {**fixed, **options})
        pool._open([spec, *standbys], call_defaults, hooks, listeners, budget, endpoint_names, answers)
        check_prices(pool._defaults.fallbacks, limits, budget)
        pool._recipe = PoolRecipe("azure", arguments)
        return pool

    def with_options(self, **options: Any) -> ChatPool:
        """A view of this pool with other defaults: same connections, same workers, same limits.

        Args:
            options: any of ``model``, ``system``, ``defaults``, ``headers``, ``query``, ``priority``, ``timeout``,
                ``retry``, ``when_down``, ``wait_for_day``, ``fallbacks``.

        Returns:
            A ChatPool. Closing it does nothing; the pool it was made from is closed by its owner.
        """
        view = ChatPool.__new__(ChatPool)
        view._core, view._recipe, view._is_view = self._core, self._recipe, True
        if "fallbacks" in options:
            given = options["fallbacks"]
            options["fallbacks"] = () if given is None else self._core.endpoint_names.entries(given)
        view._defaults = self._defaults.changed(**options)
        return view

    def chat(
        self,
        item: Item,
        *,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        when_down: Optional[WhenDown] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse[ParsedT]] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> ChatCompletion[ParsedT]:
        """Answer one item.

        Args:
            item: a str (one user message), a list of texts and :func:`attachments <chatpool.attach>` (one user
                message too), a list of message dicts, a dict (a whole request body) or a
                :class:`~chatpool.ChatRequest`.
            timeout, retry, headers, query, system: as in :class:`ChatPool`, for this call.
            priority: calls of a higher one are sent first; any int. Among those of one priority, calls that are made
                alone go before the rows of runs, and runs take turns. What is passed over rises by one every 5 seconds,
                until it is sent. Default: that of the pool or its view, else 0.
            when_down, wait_for_day, fallbacks: as in :class:`ChatPool`, for this call; ``fallbacks=[]`` for none. A
                call that waits for the day has its ``timeout.total`` from when it is sent.
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
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, when_down, fallbacks)
        options = answer_options(options, parse, max_reasks, accept, collect_stream)
        make_request = RequestMaker(self._defaults, system, body_fields("chat", extra_body, params))
        return self._wait(item, make_request(item), options)  # type: ignore[no-any-return]  # a chat path answers with one

    def responses(
        self,
        item: Item,
        *,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        when_down: Optional[WhenDown] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse[ParsedT]] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> ChatCompletion[ParsedT]:
        """Answer one item by the Responses API.

        Args:
            item: a str, a list of texts and attachments, a list of input items (messages among them) or a dict (a
                whole body with ``input``).
            system: becomes the body's ``instructions``, unless it has them.
            timeout, retry, headers, query, priority, wait_for_day, when_down, fallbacks, extra_body: as in
                :meth:`chat`.
            parse, max_reasks, accept, collect_stream: as in :meth:`chat`.
            params: body fields, for instance ``max_output_tokens=50`` or ``previous_response_id=reply.id``. With
                ``background=True`` the server makes the response by itself, and is asked until it has ended; no
                worker waits for it, and ``timeout.background`` bounds it (see ``docs/howto/background``).

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
            wait_for_day=wait_for_day,
            when_down=when_down,
            fallbacks=fallbacks,
            extra_body=extra_body,
            system=system,
            parse=parse,
            max_reasks=max_reasks,
            accept=accept,
            collect_stream=collect_stream,
            **params,
        )

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
        wait_for_day: Optional[bool] = None,
        when_down: Optional[WhenDown] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse[ParsedT]] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Future[ChatCompletion[ParsedT]]:
        """Start answering one item; arguments as in :meth:`chat`.

        Returns:
            A ``concurrent.futures.Future`` of a :class:`~chatpool.ChatCompletion`; ``cancel()`` works at any
            time before its end, also while the call waits for its next attempt or is in flight.
        """
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, when_down, fallbacks)
        options = answer_options(options, parse, max_reasks, accept, collect_stream)
        make_request = RequestMaker(self._defaults, system, body_fields("submit", extra_body, params))
        return _send(self._core, item, make_request(item), options)

    def request(
        self,
        path: str,
        body: Optional[Mapping[str, Any]] = None,
        *,
        method: str = "POST",
        files: Optional[Files] = None,
        response: ResponseForm = "json",
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        when_down: Optional[WhenDown] = None,
        fallbacks: Optional[FallbacksLike] = None,
    ) -> Any:
        """Call any endpoint below ``base_url`` with the same guarantees.

        Args:
            path: for instance ``"/moderations"`` or ``"/models"``.
            body: the JSON body; sent as it is, attachments in messages as the API has them. Default: none with GET and
                DELETE, ``{}`` with other methods.
            method: the HTTP method.
            files: files to send as ``multipart/form-data``, beside the fields of ``body``: a dict of names and parts,
                or a list of such pairs. A part is a path (read from the disk at each attempt), bytes, a binary file
                (read at once), or a tuple (filename, content[, content type]).
            response: ``"json"``, ``"text"`` for a str, ``"bytes"``, or a path (``pathlib.Path``): a good answer
                replaces that file once it is whole.
            timeout, retry, headers, query: as in :class:`ChatPool`, for this call.
            priority, wait_for_day, when_down: as in :meth:`chat`.
            fallbacks: as in :class:`ChatPool`, for this call only.

        Returns:
            The decoded answer: a dict, or a :class:`~chatpool.ChatCompletion` from a chat path; None for an answer of
            no bytes. With ``response`` a str, bytes, or the path.

        Raises:
            ConfigurationError: a file cannot be read, or that of the answer not written.
            APIResponseError: a good answer that is not JSON, among others. From a path that is not known to answer with
                JSON it is not asked for again, and ``.body`` has all its bytes.
            ChatPoolError: as :meth:`chat`.
        """
        if not str(path).startswith("/"):
            raise TypeError(f"path must be a str that starts with '/', got {path!r}")
        check_response_form(response)
        fields = with_parts(dict(body or {}), path)
        request = ChatRequest(fields, path, method.upper(), files or (), response)
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, when_down, fallbacks or ())
        return self._wait(None, request, options)

    def _perform(self, request: ChatRequest, options: Mapping[str, Any]) -> Any:
        return self._wait(None, request, self._call_options(**options, fallbacks=()))

    # Compact: an overload is read at a glance, and differs from its neighbours in on_error only.
    # fmt: off
    @overload
    def map(
        self, items: Iterable[Any], *, on_error: Literal["none"] = ...,
        prompt: Optional[Callable[[Any], Item]] = ..., progress: Progress = ...,
        run_timeout: Optional[float] = ..., max_failures: MaxFailures = ..., journal: Optional[JournalPath] = ...,
        key: Optional[ItemKey] = ...,
        dedupe: bool = ..., samples: int = ...,
        timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., system: Optional[str] = ...,
        parse: Optional[Parse[ParsedT]] = ..., max_reasks: Optional[int] = ..., accept: Optional[Accept] = ...,
        collect_stream: bool = ..., **params: Any,
    ) -> Results[ChatCompletion[ParsedT]]: ...

    @overload
    def map(
        self, items: Iterable[Any], *, on_error: Literal["return"],
        prompt: Optional[Callable[[Any], Item]] = ..., progress: Progress = ...,
        run_timeout: Optional[float] = ..., max_failures: MaxFailures = ..., journal: Optional[JournalPath] = ...,
        key: Optional[ItemKey] = ...,
        dedupe: bool = ..., samples: int = ...,
        timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., system: Optional[str] = ...,
        parse: Optional[Parse[ParsedT]] = ..., max_reasks: Optional[int] = ..., accept: Optional[Accept] = ...,
        collect_stream: bool = ..., **params: Any,
    ) -> Results[ChatCompletion[ParsedT], Union[ChatCompletion[ParsedT], ChatPoolError]]: ...

    @overload
    def map(
        self, items: Iterable[Any], *, on_error: Literal["raise"],
        prompt: Optional[Callable[[Any], Item]] = ..., progress: Progress = ...,
        run_timeout: Optional[float] = ..., max_failures: MaxFailures = ..., journal: Optional[JournalPath] = ...,
        key: Optional[ItemKey] = ...,
        dedupe: bool = ..., samples: int = ...,
        timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., system: Optional[str] = ...,
        parse: Optional[Parse[ParsedT]] = ..., max_reasks: Optional[int] = ..., accept: Optional[Accept] = ...,
        collect_stream: bool = ..., **params: Any,
    ) -> Results[ChatCompletion[ParsedT], ChatCompletion[ParsedT]]: ...
    # fmt: on

    def map(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        on_error: OnError = "none",
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        journal: Optional[JournalPath] = None,
        key: Optional[ItemKey] = None,
        dedupe: bool = False,
        samples: int = 1,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse[ParsedT]] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Results[ChatCompletion[ParsedT], Any]:
        """Answer many items in parallel.

        Args:
            items: any iterable of items (see :meth:`chat`), or of anything with ``prompt``. It is read in the
                calling thread, a bounded number of items ahead.
            prompt: a function that makes an item of a row; ``Outcome.item`` is then the row.
            progress: None shows a bar on a terminal or in a notebook; True, False, or a dict of tqdm's options.
            on_error: what a failed item leaves in its slot: ``"none"`` None (and one warning in the log),
                ``"return"`` its error; ``"raise"`` cancels the run at the first failure and raises it.
            run_timeout: seconds for the whole run; what is unfinished then fails with DeadlineExceededError.
            max_failures: how many items may fail before the run ends: a number of them, or a share (0.1) of those that
                have ended, looked at from the 20th on. ``"same"``: it ends when the server refuses the first 50 in the
                same words, each for its own fault, as it does where a parameter is misspelt. None: nothing ends
                it. What ended it is on ``.fatal``, and in the slots of the items that were not sent.
            journal: a file that keeps every outcome before it is given out. With the same file and the same items a
                later run goes on where this one ended, however it ended: an item with an answer, or with a failure
                that would only repeat itself, is not sent again.
            key: a function of an item that returns its key, a str or an int that is unique in the run; only with
                ``journal``. The journal knows an item by its key and its request then, wherever it stands, so that the
                items of a later run may be fewer, more or in another order. Default: its place is its key.
            dedupe: whether items that make the same request share one answer: it is sent once, and the others get
                a copy (with ``attempts`` 0 and no tokens of their own), a failure as well. Keeps every answer in
                memory until the run ends.
            samples: how many answers each item gets, at least 1, as the ``.choices`` of its one
                :class:`~chatpool.ChatCompletion`. They are asked for with ``n`` where the server takes that, and in
                requests of their own otherwise. ``parse`` and ``accept`` look at each of them, and an item fails if one
                does: ``.samples`` of its error has the others.
            timeout, retry, headers, query, priority, wait_for_day, extra_body, system, params: as in :meth:`chat`.
            fallbacks: as in :meth:`chat`. What the server refuses to all items, such as a model, later items of the
                run do not ask for again.
            parse, max_reasks, accept, collect_stream: as in :meth:`chat`.

        Returns:
            A list of :class:`~chatpool.ChatCompletion` in input order, with ``.outcomes``, ``.failures``,
            ``.usage`` and ``.elapsed``. It is as long as the input, whatever happens: after a fatal error (a
            refused key, no credit left) nothing new is sent, and the remaining slots carry the reason.

        Raises:
            ChatPoolError: with ``on_error="raise"``; ``.results`` holds what was done.
            KeyboardInterrupt: the run is cancelled, the pool stays usable; ``.results`` holds what was done.
            TypeError: ``items`` is one item instead of many.
        """
        run_options = RunOptions(
            prompt,
            progress,
            on_error,
            run_timeout,
            journal=journal,
            key=key,
            dedupe=dedupe,
            max_failures=max_failures,
            samples=samples,
        )
        make_request = RequestMaker(self._defaults, system, body_fields("map", extra_body, params))
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, fallbacks=fallbacks)
        options = answer_options(options, parse, max_reasks, accept, collect_stream)
        return self._collect(items, make_request, run_options, options)

    def imap(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        buffersize: Optional[int] = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        journal: Optional[JournalPath] = None,
        key: Optional[ItemKey] = None,
        dedupe: bool = False,
        samples: int = 1,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse[ParsedT]] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Iterator[Outcome[ChatCompletion[ParsedT]]]:
        """Answer many items lazily, in input order; the input may be endless.

        Args:
            buffersize: how many items may be read ahead of those consumed.
                Default ``max(1000, 10 * max_workers)``.
            items, prompt, progress, run_timeout, max_failures, journal, key, dedupe, samples: as in :meth:`map`.
            timeout, retry, headers, query, priority, wait_for_day, fallbacks, extra_body, system,
                params: as in :meth:`map`.
            parse, max_reasks, accept, collect_stream: as in :meth:`chat`.

        Returns:
            An iterator of :class:`~chatpool.Outcome`. Leaving it early (``break``, an exception) cancels the rest.
        """
        run_options = RunOptions(
            prompt,
            progress,
            run_timeout=run_timeout,
            buffersize=buffersize,
            journal=journal,
            key=key,
            dedupe=dedupe,
            max_failures=max_failures,
            samples=samples,
        )
        make_request = RequestMaker(self._defaults, system, body_fields("imap", extra_body, params))
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, fallbacks=fallbacks)
        options = answer_options(options, parse, max_reasks, accept, collect_stream)
        return self._iterate(items, make_request, run_options, options, in_order=True)

    def as_completed(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        buffersize: Optional[int] = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        journal: Optional[JournalPath] = None,
        key: Optional[ItemKey] = None,
        dedupe: bool = False,
        samples: int = 1,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse[ParsedT]] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Iterator[Outcome[ChatCompletion[ParsedT]]]:
        """Answer many items lazily, each :class:`~chatpool.Outcome` as soon as it is there; ``.index`` tells its place.

        Arguments and end as in :meth:`imap`.
        """
        run_options = RunOptions(
            prompt,
            progress,
            run_timeout=run_timeout,
            buffersize=buffersize,
            journal=journal,
            key=key,
            dedupe=dedupe,
            max_failures=max_failures,
            samples=samples,
        )
        make_request = RequestMaker(self._defaults, system, body_fields("as_completed", extra_body, params))
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, fallbacks=fallbacks)
        options = answer_options(options, parse, max_reasks, accept, collect_stream)
        return self._iterate(items, make_request, run_options, options, in_order=False)

    def retry(
        self,
        results: Results[ValueT, SlotT],
        *,
        progress: Progress = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
    ) -> Results[ValueT, SlotT]:
        """Send what has failed in a run once more, as it was sent before, and put what comes of it into its places.

        Args:
            results: what :meth:`map` or :meth:`embed` has returned, or an exception's ``.results``. It is changed:
                its values and outcomes, whose history, tokens and seconds are those of both times.
            progress, run_timeout, max_failures: as in :meth:`map`.
            timeout, retry: as in :meth:`chat`. Default: those of the run. What parses and accepts answers, ``dedupe``
                and the journal are the run's too, unless ``results`` were pickled or copied in between; headers and
                URL parameters are this pool's.

        Returns:
            ``results``, whose ``fatal`` tells how this time ended. Nothing is sent if nothing has failed.

        Raises:
            TypeError: ``results`` are none of a run.
            KeyboardInterrupt: as from :meth:`map`; what came before is in its places.
        """
        failed = failed_of(results)
        run_options = RunOptions(None, progress, "return", run_timeout, max_failures=max_failures)
        run_options = run_options_of(results, run_options)
        options = self._call_options(timeout, retry)
        options = call_options_of(results, options, keeps_timeout=timeout is not None, keeps_retry=retry is not None)
        again: Optional[Results[Any, Any]] = None
        shows_errors = any(isinstance(results[outcome.index], ChatPoolError) for outcome in failed)
        try:
            again = self._send_again(results, failed, run_options, options) if failed else None
        except BaseException as error:
            again = getattr(error, "results", None)
            with contextlib.suppress(Exception):  # a frozen exception takes no attribute
                error.results = results  # type: ignore[attr-defined]  # as map does
            raise
        finally:
            fill(results, again, shows_errors=shows_errors)
        return results

    # Compact, as those of map.
    # fmt: off
    @overload
    def embed(
        self, text: str, *, timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., **params: Any,
    ) -> List[float]: ...

    @overload
    def embed(
        self, text: Iterable[Any], *, on_error: Literal["none"] = ...,
        prompt: Optional[Callable[[Any], str]] = ..., progress: Progress = ..., run_timeout: Optional[float] = ...,
        max_failures: MaxFailures = ..., dedupe: bool = ..., max_pack: Optional[int] = ...,
        timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., **params: Any,
    ) -> Results[List[float]]: ...

    @overload
    def embed(
        self, text: Iterable[Any], *, on_error: Literal["return"],
        prompt: Optional[Callable[[Any], str]] = ..., progress: Progress = ..., run_timeout: Optional[float] = ...,
        max_failures: MaxFailures = ..., dedupe: bool = ..., max_pack: Optional[int] = ...,
        timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., **params: Any,
    ) -> Results[List[float], Union[List[float], ChatPoolError]]: ...

    @overload
    def embed(
        self, text: Iterable[Any], *, on_error: Literal["raise"],
        prompt: Optional[Callable[[Any], str]] = ..., progress: Progress = ..., run_timeout: Optional[float] = ...,
        max_failures: MaxFailures = ..., dedupe: bool = ..., max_pack: Optional[int] = ...,
        timeout: Optional[TimeoutLike] = ..., retry: Optional[RetryPolicyLike] = ...,
        headers: Optional[Mapping[str, str]] = ..., query: Optional[Mapping[str, str]] = ...,
        priority: Optional[int] = ..., wait_for_day: Optional[bool] = ..., fallbacks: Optional[FallbacksLike] = ...,
        extra_body: Optional[Mapping[str, Any]] = ..., **params: Any,
    ) -> Results[List[float], List[float]]: ...
    # fmt: on

    def embed(
        self,
        text: Union[str, Iterable[Any]],
        *,
        prompt: Optional[Callable[[Any], str]] = None,
        progress: Progress = None,
        on_error: OnError = "none",
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        dedupe: bool = False,
        max_pack: Optional[int] = None,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        **params: Any,
    ) -> Union[List[float], Results[List[float], Any]]:
        """The vector of a text, or the vectors of many: as many texts go out in one request as the API takes.

        Args:
            text: a str, or an iterable of them (then this is a run; see :meth:`map` for its keywords).
            prompt: makes the text of a row.
            progress, on_error, run_timeout, max_failures, dedupe: as in :meth:`map`; for many texts only. With
                ``dedupe`` each text goes out in its own request.
            max_pack: how many texts go out in one request at most; for many texts only. Default: 2,048, and about
                300,000 tokens, as OpenAI takes them; less once the server has shown that it takes less.
            timeout, retry, headers, query: as in :class:`ChatPool`, for this call.
            priority, wait_for_day: as in :meth:`chat`.
            fallbacks: as in :class:`ChatPool`, for this call only: vectors of different models do not go together.
            extra_body, params: body fields, for instance ``model=`` or ``dimensions=``.

        Returns:
            ``list[float]`` for a str; :class:`~chatpool.Results` of ``list[float]`` for many, one outcome per text.
            A request that the server finds too large, in which it refuses one text, that meets a 500 or a time-out
            twice, or whose answer lacks vectors, is sent again in parts. A text whose vector has NaN or an infinity
            in it has failed.
        """
        extra = body_fields("embed", extra_body, params)
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, fallbacks=fallbacks or ())

        def make_request(text: Any) -> ChatRequest:
            return embedding_request(text, model=self._defaults.model, defaults=self._defaults.body, extra=extra)

        run_options = RunOptions(
            prompt, progress, on_error, run_timeout, dedupe=dedupe, max_pack=max_pack, max_failures=max_failures
        )
        if isinstance(text, str):
            return self._wait(text, make_request(text), options)  # type: ignore[no-any-return]  # its path answers so
        if dedupe:
            return self._collect(text, make_request, run_options, options)
        return self._collect_embeddings(text, make_request, run_options, options)

    def stream(
        self,
        item: Item,
        *,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        when_down: Optional[WhenDown] = None,
        fallbacks: Optional[FallbacksLike] = None,
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
            item, headers, query, priority, wait_for_day, when_down, extra_body, system, retry, params: as in
                :meth:`chat`. The usage is asked for (``stream_options={"include_usage": True}``) unless
                ``stream_options`` says otherwise.
            fallbacks: as in :meth:`chat`; none follows once there was a chunk.
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
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, when_down, fallbacks)
        make_request = RequestMaker(self._defaults, system, body_fields("stream", extra_body, params), streams=True)
        request = make_request(item)
        streamed(request)
        if self._core.cache is not None:
            self._core.cache.refuse_stream(request)
        engine = self._core.engine
        return ChatStream(engine, item, request, streamed_options(options, engine.streams.hand_off))

    def stream_many(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        buffersize: Optional[int] = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        heartbeat: Optional[float] = None,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        fallbacks: Optional[FallbacksLike] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        **params: Any,
    ) -> Iterator[Tuple[int, Union[ChatChunk, Outcome[ChatCompletion]]]]:
        """Answer many items lazily and in parallel, each chunk by chunk.

        Args:
            items, prompt, progress, run_timeout, max_failures, buffersize: as in :meth:`imap`.
            heartbeat: seconds without a chunk of any item after which ``(None, None)`` comes instead, as in
                :meth:`ChatStream.events`. Default: it never does.
            timeout, retry, headers, query, priority, wait_for_day, fallbacks, extra_body, system,
                params: as in :meth:`stream`.

        Returns:
            An iterator of ``(index, chunk)`` as chunks arrive, and last for each item ``(index, outcome)`` with its
            :class:`~chatpool.Outcome`: the whole answer, or the error, before which no, some or all of its chunks have
            come. A consumer that is slower than the model makes the workers wait, in their slots. Leaving the
            iterator early (``break``, an exception) cancels the rest.
        """
        run_options = RunOptions(
            prompt,
            progress,
            run_timeout=run_timeout,
            buffersize=buffersize,
            max_failures=max_failures,
            heartbeat=heartbeat,
        )
        fields = body_fields("stream_many", extra_body, params)
        make_request = RequestMaker(self._defaults, system, fields, streams=True)
        options = self._call_options(timeout, retry, headers, query, priority, wait_for_day, fallbacks=fallbacks)
        return start_streams(self._core, items, make_request, run_options, options)

    def stats(self) -> PoolStats:
        """The pool's counters at this moment; in a finalizer or a signal handler its lines may be as last asked for."""
        return self._core.stats(reentrant=is_reentrant())

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener`` with every event from now on, as if it stood in ``listeners=``.

        It hears of all views of the pool, but not of every call of a run that has begun before.

        Args:
            listener: a callable that takes an :class:`~chatpool.Event`.

        Raises:
            TypeError: it cannot be called.
        """
        self._core.dispatcher.add(listener)

    def close(self) -> None:
        """Finish what was submitted, then release threads and connections.  Further calls do nothing."""
        if not self._is_view:
            self._end(self._core.engine.close, reentrant=is_reentrant())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End as ``concurrent.futures.Executor.shutdown`` does.

        Args:
            wait: False returns at once, while what was submitted goes on.
            cancel_futures: whether calls that are queued or wait for their next attempt are cancelled.
        """
        if not self._is_view:
            shutdown = partial(self._core.engine.shutdown, wait=wait, cancel_futures=cancel_futures)
            self._end(shutdown, reentrant=is_reentrant())

    def abort(self) -> None:
        """Give up every call of the pool at once and close it; the calls end with PoolClosedError."""
        self._end(self._core.engine.abort, reentrant=is_reentrant())

    def __enter__(self) -> ChatPool:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if self._is_view:
            return
        engine = self._core.engine
        self._end(engine.close if kind is None else engine.abort, reentrant=is_reentrant())

    def __reduce__(self) -> Any:
        # A pool is pickled as its configuration; a key that was passed as a str stays behind.
        refuse_credentials("headers=", self._defaults.headers)
        return restore, (self._recipe.without_key(), self._defaults)

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):
            return "<ChatPool that was not made>"
        queued, parked, in_flight = self._core.engine.counts()
        state = "closed" if self._core.engine.closed else f"queued={queued} parked={parked} in_flight={in_flight}"
        specs = self._core.engine.endpoints.specs
        several = f"endpoints={[spec.name for spec in specs]}"
        where = f"base_url={self._core.transport.base_url!r}" if len(specs) == 1 else several
        return f"<ChatPool model={self._defaults.model!r} {where} max_workers={self._core.engine.max_workers} {state}>"

    def _open(
        self,
        specs: Sequence[EndpointSpec],
        defaults: Mapping[str, Any],
        hooks: WorkerHooks,
        listeners: Iterable[Listener],
        budget: Optional[Budget],
        endpoint_names: EndpointNames,
        cache: Optional[Cache],
    ) -> None:
        """Make the parts of a pool; ``defaults`` are those of its calls, None where it has none."""
        known = _without_none(defaults)
        if "fallbacks" in known:
            known["fallbacks"] = endpoint_names.entries(known["fallbacks"])
        self._defaults = CallDefaults().changed(**known)
        self._core = PoolCore(specs, hooks, listeners, budget, self._inline_clock, cache)
        self._core.endpoint_names = endpoint_names
        self._is_view = False

    def _end(self, end_engine: Callable[[], None], *, reentrant: bool) -> None:
        """End now, or as soon as another thread can: a finalizer or a signal handler waits for nothing."""
        self._core.engine.accept_no_more()
        if reentrant:
            defer(self._core.end, end_engine)
        else:
            self._core.end(end_engine)

    def _call_options(
        self,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        wait_for_day: Optional[bool] = None,
        when_down: Optional[WhenDown] = None,
        fallbacks: Optional[FallbacksLike] = None,
    ) -> CallOptions:
        """Return the options of a single call: the pool's, and those of the method call over them."""
        entries = None if fallbacks is None else self._core.endpoint_names.entries(fallbacks)
        if entries == self._defaults.fallbacks:
            entries = None
        is_plain = timeout is None and retry is None and not headers and not query and priority is None
        is_plain = is_plain and when_down is None and wait_for_day is None and entries is None
        if is_plain and deadline_on(self._core.engine.clock) is None:
            if self._plain_options is None:
                self._plain_options = call_options(self._core, self._defaults, {})
            return self._plain_options
        keywords: Dict[str, Any] = {"timeout": timeout, "retry": retry, "headers": headers, "query": query}
        keywords.update(priority=priority, wait_for_day=wait_for_day, when_down=when_down, fallbacks=entries)
        return call_options(self._core, self._defaults, _without_none(keywords))

    @waits_for_calls
    def _wait(self, item: Any, request: ChatRequest, options: CallOptions) -> Any:
        with self._core.engine.waiting():
            return _wait_for(self._core, _send(self._core, item, request, options), options)

    def _collect(
        self,
        items: Iterable[Any],
        make_request: Callable[[Any], ChatRequest],
        run_options: RunOptions,
        options: CallOptions,
    ) -> Results[Any, Any]:
        started_at = self._core.engine.clock.now()
        run = start_run(self._core, items, make_request, run_options, options)
        window = run_options.window(self._core.engine.max_workers)
        return collect(run, window=window, on_error=run_options.on_error, started_at=started_at)

    def _collect_embeddings(
        self,
        texts: Iterable[Any],
        make_request: Callable[[Any], ChatRequest],
        run_options: RunOptions,
        options: CallOptions,
    ) -> Results[Any, Any]:
        started_at = self._core.engine.clock.now()
        run = start_embedding_run(self._core, texts, make_request, run_options, options)
        return collect(run, window=1, on_error=run_options.on_error, started_at=started_at)

    def _iterate(
        self,
        items: Iterable[Any],
        make_request: Callable[[Any], ChatRequest],
        run_options: RunOptions,
        options: CallOptions,
        *,
        in_order: bool,
    ) -> Outcomes:
        run = start_run(self._core, items, make_request, run_options, options)
        return Outcomes(run, in_order=in_order)

    def _send_again(
        self, results: Results[Any, Any], failed: List[Outcome[Any]], run_options: RunOptions, options: CallOptions
    ) -> Results[Any, Any]:
        is_batched = results._origin is not None and results._origin.is_batched
        collect_again = self._collect_embeddings if is_batched else self._collect
        return collect_again(failed, request_maker_of(results), run_options, options)


_POOL_KEYWORDS = frozenset(inspect.signature(ChatPool).parameters)


# Compact, as those of ChatPool.map.
# fmt: off
@overload
def map(  # noqa: A001 - as below
    items: Iterable[Any], *, on_error: Literal["none"] = "none",
    model: Optional[str] = None, max_workers: int = 16, parse: Optional[Parse[ParsedT]] = None, **keywords: Any,
) -> Results[ChatCompletion[ParsedT]]: ...


@overload
def map(  # noqa: A001 - as below
    items: Iterable[Any], *, on_error: Literal["return"],
    model: Optional[str] = None, max_workers: int = 16, parse: Optional[Parse[ParsedT]] = None, **keywords: Any,
) -> Results[ChatCompletion[ParsedT], Union[ChatCompletion[ParsedT], ChatPoolError]]: ...


@overload
def map(  # noqa: A001 - as below
    items: Iterable[Any], *, on_error: Literal["raise"],
    model: Optional[str] = None, max_workers: int = 16, parse: Optional[Parse[ParsedT]] = None, **keywords: Any,
) -> Results[ChatCompletion[ParsedT], ChatCompletion[ParsedT]]: ...
# fmt: on


@runs_user_code
def map(  # noqa: A001 - the name says what it does, as in concurrent.futures
    items: Iterable[Any], *, model: Optional[str] = None, max_workers: int = 16, **keywords: Any
) -> Results[Any, Any]:
    """Answer many items with a pool that is made for it and closed after it.

    Args:
        items: as in :meth:`ChatPool.map`.
        model, max_workers: as in :class:`ChatPool`.
        keywords: any other argument of :class:`ChatPool`, of :meth:`ChatPool.map`, or a body field.

    Returns:
        What :meth:`ChatPool.map` returns.
    """
    pool_keywords = {name: value for name, value in keywords.items() if name in _POOL_KEYWORDS}
    map_keywords = {name: value for name, value in keywords.items() if name not in _POOL_KEYWORDS}
    with ChatPool(model, max_workers=max_workers, **pool_keywords) as pool:
        return pool.map(items, **map_keywords)


def _without_none(keywords: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}


def _send(core: PoolCore, item: Any, request: ChatRequest, options: CallOptions) -> CallFuture:
    """Submit one call; its ``timeout.total`` counts from now.

    Raises:
        PoolClosedError: the pool is closed.
    """
    core.engine.check_open()
    future = CallFuture() if core.cache is None else core.cache.future()
    call = core.engine.make_call(request, options, future, item=item)
    future.attach(call, core.engine)
    if core.cache is not None and core.cache.answers(call):
        return future
    try:
        core.engine.submit([call])
    except BaseException:
        core.engine.resync()
        future.give_up()
        raise
    return future


def _wait_for(core: PoolCore, future: CallFuture, options: CallOptions) -> Any:
    """Return the future's result; give the call up when its time is over, or the wait is interrupted.

    Raises:
        ChatPoolError: the call failed.
    """
    timeout, began_at = options.timeout, time.monotonic()
    until_deadline = math.inf if options.deadline is None else options.deadline - core.engine.clock.now()
    try:
        while True:
            total, limit = timeout.in_background if future.is_in_background() else (timeout.total, "timeout.total")
            if until_deadline < total:
                total, limit = until_deadline, options.deadline_limit
            left = began_at + total + GRACE_SECONDS - time.monotonic()
            if left <= 0:
                break
            if future.wait(interruptible(left)):
                return _result_of(future)
    except BaseException:
        if not future.done():  # it was not the call that raised
            core.engine.resync()
            future.give_up()
        raise
    future.give_up()
    raise no_worker_in_time(limit)


def _result_of(future: CallFuture) -> Any:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        pass
    # The caller never saw the future, so ``shutdown(cancel_futures=True)`` has cancelled it; and a caller that made no
    # future does not expect an error of concurrent.futures.
    raise CallCancelledError("the pool was shut down before the call was sent")
