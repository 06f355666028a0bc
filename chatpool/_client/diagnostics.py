"""``chatpool check``: examine everything that a call depends on, one thing after the other."""

from __future__ import annotations

import os
import ssl
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional
from urllib.parse import urlsplit

from .._engine import EndpointClient
from .._redaction import printable
from .._transport import CancelToken, RequestAuth, Transport
from .._transport.tls import choose_trust
from .._transport.urls import choose_proxies
from .._values import Verdict
from .._wire import (
    MODELS_REQUEST,
    classify_exception,
    classify_response,
    describe_limits,
    encode,
    model_names_in,
    to_request,
)
from ..clock import current_clock
from ..config import Timeout
from ..errors import (
    APIResponseError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChatPoolError,
    ConfigurationError,
    InsufficientQuotaError,
    NotFoundError,
    RateLimitError,
)
from ..types import ChatCompletion, ChatRequest
from .connect import PUBLIC_URL
from .pool import ChatPool

__all__ = ["OK", "UNKNOWN", "WRONG", "Finding", "findings", "state_of_all"]

OK, WRONG, UNKNOWN = "ok", "WRONG", "unknown"

_PROMPT = "Reply with one word."
_CHOOSE = "check the name of the model"
_NAME_A_MODEL = "name one: --model NAME, or model="


class Finding(NamedTuple):
    """Result of one check.

    Attributes:
        name: of what was checked.
        state: :data:`OK`, :data:`WRONG`, or :data:`UNKNOWN` where it could not be found out.
        text: what was found.
        advice: what to do about it; "" where there is nothing to do.
    """

    name: str
    state: str
    text: str
    advice: str = ""

    def lines(self) -> List[str]:
        """Return the lines that show it."""
        lines = [f"{self.state:<7}  {self.name:<9} {' '.join(self.text.split())}"]
        if self.advice and self.advice not in self.text:
            lines.append(f"{'':<7}  {'':<9} -> {self.advice}")
        return [printable(line) for line in lines]


def state_of_all(found: Iterable[Finding]) -> str:
    """Return :data:`WRONG` if anything is, :data:`UNKNOWN` if a call could not be tried, otherwise :data:`OK`."""
    states = {finding.name: finding.state for finding in found}
    if WRONG in states.values():
        return WRONG
    return UNKNOWN if any(states[name] == UNKNOWN for name in states if name.endswith("call")) else OK


class _Replies(NamedTuple):
    """Replies of the server to the two requests.

    Attributes:
        models: to the one for its models.
        call: to the one for an answer; None if it was not sent.
        model: the model that was asked for.
        elapsed: seconds that the second one took.
    """

    models: Verdict
    call: Optional[Verdict]
    model: Optional[str]
    elapsed: float

    @property
    def reached(self) -> bool:
        """True if a server has answered, whatever it said."""
        return self.models.status is not None or (self.call is not None and self.call.status is not None)

    @property
    def answered(self) -> bool:
        """True if the call has its answer."""
        return self.call is not None and isinstance(self.call.value, ChatCompletion)

    @property
    def listed(self) -> Optional[List[str]]:
        """The server's models, None where it does not list them."""
        return model_names_in(self.models.value)

    @property
    def error(self) -> Optional[ChatPoolError]:
        """The error of the call, or of what kept it from being sent."""
        error: Optional[ChatPoolError] = (self.models if self.call is None else self.call).error
        return error


def findings(pool: ChatPool, *, timeout: float = 30.0) -> Iterator[Finding]:
    """Check what a call of this pool depends on; one call is made, without retries, and the models are listed.

    Args:
        pool: the pool.
        timeout: seconds that each of the two requests may take.
    """
    clients = pool._core.engine.endpoints
    for client in clients:
        for finding in _of_endpoint(pool, client, timeout):
            yield finding._replace(name=f"{client.spec.name}: {finding.name}") if clients.several else finding


def _of_endpoint(pool: ChatPool, client: EndpointClient, timeout: float) -> Iterator[Finding]:
    named = client.spec.model_name(pool._defaults.model)
    # All findings follow from what the server says: a key that it refuses is not right because it is set.
    replies = _ask(pool, client, named, timeout)
    transport = client.transport
    yield _base_url(transport, replies)
    yield _proxy(transport, replies)
    yield _trust(transport, replies)
    yield _server(transport, replies)
    yield _key(transport, replies)
    yield _model(named, replies)
    yield _call(named, replies)
    yield _limits(replies)


def _ask(pool: ChatPool, client: EndpointClient, named: Optional[str], timeout: float) -> _Replies:
    """Ask for the models, and for an answer unless the server cannot be reached."""
    models = _exchange(pool, client, MODELS_REQUEST, timeout)
    model = named or (model_names_in(models.value) or [None])[0]  # type: ignore[list-item]  # its default
    if models.status is None and not isinstance(models.error, (APITimeoutError, APIResponseError)):
        return _Replies(models, None, model, 0.0)
    request = to_request(_PROMPT, model=model, defaults=pool._defaults.body)
    clock = current_clock()
    started = clock.now()
    call = _exchange(pool, client, request, timeout)
    return _Replies(models, call, model, clock.now() - started)


def _base_url(transport: Transport, replies: _Replies) -> Finding:
    url, error = transport.base_url, replies.error
    text = f"{url}, OpenAI's own server" if urlsplit(url).hostname == urlsplit(PUBLIC_URL).hostname else url
    if replies.answered or replies.listed is not None:
        return Finding("base_url", OK, text)
    advice = "" if urlsplit(url).path.strip("/") else "most servers want it to end in /v1"
    if _is_no_api(error) and (replies.call is None or _is_no_api(replies.models.error)):
        assert error is not None
        return Finding("base_url", WRONG, f"{text}: there is no such API", advice or error.advice)
    return Finding("base_url", UNKNOWN, text, advice)


def _is_no_api(error: Optional[ChatPoolError]) -> bool:
    """Return whether an error looks like one of a web page, or of a path that is not there."""
    return isinstance(error, APIResponseError) or (isinstance(error, NotFoundError) and error.code is None)


def _proxy(transport: Transport, replies: _Replies) -> Finding:
    chosen = choose_proxies(transport.base_url, transport.settings.proxies or {}, trust_env=True)
    if not chosen:
        return Finding("proxy", OK, "none")
    proxy = urlsplit(next(iter(chosen.values())))
    host = proxy.hostname or "one without a host"
    address = f"{host}:{proxy.port}" if proxy.port else host
    # An answer may be the proxy's own.
    state = OK if replies.answered or replies.listed is not None else UNKNOWN
    return Finding("proxy", state, address, "to go past it, put the server's host into NO_PROXY")


def _trust(transport: Transport, replies: _Replies) -> Finding:
    settings, advice = transport.settings, "name another file in verify=, REQUESTS_CA_BUNDLE or SSL_CERT_FILE"
    if urlsplit(transport.base_url).scheme != "https":
        return Finding("CA", OK, "not needed for http")
    try:
        trust = choose_trust(settings.verify, settings.cert, trust_env=True, https=True)
        trust.context()
    except ConfigurationError as error:
        return Finding("CA", WRONG, str(error), advice)
    if trust.verify is False:
        return Finding(
            "CA", WRONG, "certificates are not checked", "leave out verify=False: anybody could read the key"
        )
    text = "as the ssl.SSLContext in verify= has it" if trust.verify is True else str(trust.verify)
    if _is_certificate_error(replies.error):
        return Finding("CA", WRONG, f"{text}: the server's certificate is not accepted", advice)
    return Finding("CA", OK if replies.reached else UNKNOWN, text)


def _is_certificate_error(error: Optional[BaseException]) -> bool:
    """Return whether an error comes from one of a certificate, however often it was wrapped."""
    seen: List[BaseException] = []
    queue: List[Any] = [error]
    while queue:
        link = queue.pop()
        if isinstance(link, ssl.SSLCertVerificationError):
            return True
        if isinstance(link, BaseException) and not any(link is each for each in seen):
            seen.append(link)
            queue += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return False


def _server(transport: Transport, replies: _Replies) -> Finding:
    if replies.reached:
        return Finding("server", OK, f"{urlsplit(transport.base_url).netloc.rpartition('@')[2]} answers")
    return Finding("server", WRONG, str(replies.error))


def _key(transport: Transport, replies: _Replies) -> Finding:
    auth = transport.auth
    sent = "none is sent" if auth.header is None else f"sent as {auth.header}"
    if isinstance(auth, RequestAuth):
        sent = "requests are signed (auth=)"
    elif auth.refreshable:
        sent = f"from a function, {sent}"
    elif auth.header is not None and os.environ.get("OPENAI_API_KEY"):
        sent += ", OPENAI_API_KEY is set"
    if replies.answered:
        return Finding("key", OK, sent)
    if isinstance(replies.error, AuthenticationError):
        has_none = auth.header is None and not isinstance(auth, RequestAuth)
        advice = "set OPENAI_API_KEY" if has_none else replies.error.advice
        return Finding("key", WRONG, f"{sent}, and the server refuses that", advice)
    return Finding("key", UNKNOWN, f"{sent}; no call has succeeded that would prove it")


def _model(named: Optional[str], replies: _Replies) -> Finding:
    listed, model = replies.listed, replies.model
    examples = ", ".join(sorted(listed or [])[:5])
    if named is None:
        text = "none is named" + (f"; the server has {examples}" if examples else "")
        return Finding("model", OK if replies.answered else UNKNOWN, text, "" if replies.answered else _NAME_A_MODEL)
    if replies.answered:
        place = f"one of the server's {len(listed)}" if listed and model in listed else "it answers"
        return Finding("model", OK, f"{model}, {place}")
    if listed is None:
        advice = _CHOOSE if isinstance(replies.error, NotFoundError) else ""
        return Finding("model", UNKNOWN, f"{model}; the server's models could not be listed", advice)
    if model in listed:
        return Finding("model", OK, f"{model}, one of the server's {len(listed)}")
    advice = f"choose another, for instance {examples}" if examples else _CHOOSE
    state = WRONG if isinstance(replies.error, (BadRequestError, NotFoundError)) else UNKNOWN
    return Finding("model", state, f"{model} is not among the server's models", advice)


def _call(named: Optional[str], replies: _Replies) -> Finding:
    call, error = replies.call, replies.error
    if call is None:
        return Finding("call", UNKNOWN, "none was made, as the server cannot be reached")
    if replies.answered:
        tokens = "" if call.usage is None else f", {call.usage.total_tokens} tokens"
        return Finding("call", OK, f"answered in {replies.elapsed:.2f} s{tokens}")
    assert error is not None
    if isinstance(error, RateLimitError) and not isinstance(error, InsufficientQuotaError):
        return Finding("call", UNKNOWN, str(error), "the server refuses it for now: check again later")
    if named is None and isinstance(error, (BadRequestError, NotFoundError)) and replies.listed is not None:
        return Finding("call", UNKNOWN, f"{replies.model}, the first model, was asked: {error}", _NAME_A_MODEL)
    return Finding("call", WRONG, str(error), error.advice)


def _limits(replies: _Replies) -> Finding:
    limits = "" if replies.call is None else describe_limits(replies.call.limits)
    return Finding("limits", OK, limits) if limits else Finding("limits", UNKNOWN, "the server does not say")


def _exchange(pool: ChatPool, client: EndpointClient, request: ChatRequest, timeout: float) -> Verdict:
    """Make one attempt."""
    transport = client.transport
    options = pool._call_options()
    body = encode(request.body) if request.body else b""
    limits = Timeout(attempt=timeout)
    try:
        reply = transport.exchange(
            request, body, timeout=limits, cancel=CancelToken(), headers=options.headers, query=options.query
        )
    except ConfigurationError as error:
        return Verdict("fail", error=error)
    except Exception as error:
        return classify_exception(error, url=transport.url_of(request.path), proxy=transport.proxy)
    wall = current_clock().wall()
    return classify_response(reply, request, endpoint_proven=False, model_proven=False, wall=wall)
