"""``chatpool check``: examine everything that a call depends on, one thing after the other."""

from __future__ import annotations

import os
from typing import Iterator, List, NamedTuple, Optional
from urllib.parse import urlsplit

from .._engine import EndpointClient
from .._transport import CancelToken, Transport
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
from ..errors import ChatPoolError, ConfigurationError
from ..types import ChatCompletion, ChatRequest
from .connect import PUBLIC_URL
from .pool import ChatPool

__all__ = ["Finding", "findings"]

_PROMPT = "Reply with one word."


class Finding(NamedTuple):
    """Result of one check.

    Attributes:
        name: of what was checked.
        text: its state.
        advice: what to do about it; None where nothing has to be done.
    """

    name: str
    text: str
    advice: Optional[str] = None


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
    transport = client.transport
    yield _key(transport)
    yield _base_url(transport)
    yield _proxy(transport)
    yield _trust(transport)
    models = _models(pool, client, timeout)
    name = client.spec.model_name(pool._defaults.model)
    yield _model(name, models)
    yield from _call(pool, client, name or (models or [None])[0], timeout)  # type: ignore[list-item]  # its default


def _key(transport: Transport) -> Finding:
    auth = transport.auth
    if auth.header is None:
        return Finding("key", "none is sent: set OPENAI_API_KEY if the server wants one")
    if auth.refreshable:
        return Finding("key", f"from a function, sent as {auth.header}")
    is_in_environment = bool(os.environ.get("OPENAI_API_KEY"))
    return Finding("key", f"sent as {auth.header}" + (", OPENAI_API_KEY is set" if is_in_environment else ""))


def _base_url(transport: Transport) -> Finding:
    url = transport.base_url
    if urlsplit(url).hostname == urlsplit(PUBLIC_URL).hostname:
        return Finding("base_url", f"{url}, OpenAI's own server")
    if not urlsplit(url).path.strip("/"):
        return Finding("base_url", f"{url}; most servers want it to end in /v1")
    return Finding("base_url", url)


def _proxy(transport: Transport) -> Finding:
    chosen = choose_proxies(transport.base_url, transport.settings.proxies or {}, trust_env=True)
    if not chosen:
        return Finding("proxy", "none")
    proxy = urlsplit(next(iter(chosen.values())))
    host = proxy.hostname or "one without a host"
    address = f"{host}:{proxy.port}" if proxy.port else host
    return Finding("proxy", f"{address}; to go past it, put the server's host into NO_PROXY")


def _trust(transport: Transport) -> Finding:
    settings = transport.settings
    if urlsplit(transport.base_url).scheme != "https":
        return Finding("CA", "not needed for http")
    try:
        trust = choose_trust(settings.verify, settings.cert, trust_env=True, https=True)
        trust.context()
    except ConfigurationError as error:
        return Finding("CA", str(error), "name another file in verify=, REQUESTS_CA_BUNDLE or SSL_CERT_FILE")
    if trust.verify is False:
        return Finding("CA", "certificates are not checked", "leave out verify=False: anybody could read the key")
    if trust.verify is True:
        return Finding("CA", "as the ssl.SSLContext in verify= has it")
    return Finding("CA", str(trust.verify))


def _models(pool: ChatPool, client: EndpointClient, timeout: float) -> Optional[List[str]]:
    """Return the names of the server's models, None where it does not list them."""
    return model_names_in(_exchange(pool, client, MODELS_REQUEST, timeout).value)


def _model(model: Optional[str], models: Optional[List[str]]) -> Finding:
    examples = ", ".join(sorted(models or [])[:5])
    if model is None:
        return Finding("model", "none is named" + (f"; the server has {examples}" if examples else ""))
    if models is None:
        return Finding("model", f"{model}; the server does not list what it has")
    if model in models:
        return Finding("model", f"{model}, one of the server's {len(models)}")
    return Finding("model", f"{model} is not among the server's models", f"choose another, for instance {examples}")


def _call(pool: ChatPool, client: EndpointClient, model: Optional[str], timeout: float) -> Iterator[Finding]:
    request = to_request(_PROMPT, model=model, defaults=pool._defaults.body)
    clock = current_clock()
    started = clock.now()
    verdict = _exchange(pool, client, request, timeout)
    elapsed = clock.now() - started
    if isinstance(verdict.value, ChatCompletion):
        tokens = "" if verdict.usage is None else f", {verdict.usage.total_tokens} tokens"
        yield Finding("call", f"answered in {elapsed:.2f} s{tokens}")
    else:
        error: Optional[ChatPoolError] = verdict.error
        yield Finding("call", str(error), None if error is None else error.advice)
    yield Finding("limits", _limits(verdict))


def _limits(verdict: Verdict) -> str:
    return describe_limits(verdict.limits) or "the server does not say"


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
