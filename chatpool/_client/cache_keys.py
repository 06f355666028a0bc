"""By what a request is known to the cache: a digest of it, of where it goes to and of whose account it is."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .._engine import Alternative, Call, CallOptions, EndpointClient, Engine
from .._transport import KeyAuth, Transport, identity_of, payload_of, with_files_of
from .._values import LazyBody
from .._wire.operations import may_be_cached
from .._wire.sampling import with_seed_of
from ..errors import ConfigurationError
from ..types import ChatRequest
from .cache_settings import Cache

__all__ = ["CacheKey", "CacheKeys", "after_reasks", "check_account", "digest_sent"]

_AFTER_REASKS = b"after reasks"

# Gateways have headers of their own for keys and accounts. One too many costs answers, one too few gives them away.
_OF_ACCOUNT = re.compile("auth|key|token|secret|cookie|credential|organi[sz]ation|project|tenant|account|workspace")
_NOT_OF_ACCOUNT = re.compile("idempotency")


class CacheKey(NamedTuple):
    """What a call is known by.

    Attributes:
        request: its request; that of the fallback, once it has begun one.
        digests: of this at each endpoint that it may go to, by the endpoint's name.
        occurrence: its number among the identical requests of its run, from 0.
    """

    request: ChatRequest
    digests: Mapping[str, bytes]
    occurrence: int = 0


class CacheKeys:
    """What the calls of one pool are known by.

    Args:
        settings: of the cache.
        engine: knows the endpoints of the pool.
    """

    def __init__(self, settings: Cache, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._accounts: Dict[str, Tuple[str, str]] = {}  # of endpoints, for calls without headers of their own

    def of_call(self, call: Call, occurrence: int = 0) -> Optional[CacheKey]:
        """Return what a call is known by; None for one whose answer is not kept, or whose files cannot be read."""
        request, options = call.request, call.options
        if not may_be_cached(request):
            return None
        try:
            # As it is when it is not streamed: that makes no other answer.
            payload = call.payload if options.reading is None else payload_of(request)
            return self.of_request(request, options, occurrence, payload)
        except ConfigurationError:  # the attempt will fail with it
            return None

    def of_request(
        self,
        request: ChatRequest,
        options: CallOptions,
        occurrence: int = 0,
        payload: Union[bytes, LazyBody, None] = None,
        endpoint: Optional[str] = None,
    ) -> CacheKey:
        """Return what a request is known by.

        Args:
            request: the request.
            options: of its call.
            occurrence: its number among identical ones.
            payload: its body, where that was encoded before.
            endpoint: the only one that it may go to; None for those that get more than fallbacks.

        Raises:
            ConfigurationError: a file of it cannot be read.
        """
        body = payload_of(request) if payload is None else payload
        digests = {
            client.spec.name: self._digest(client, request, options, body, occurrence)
            for client in self._engine.endpoints
            if (not client.spec.is_standby if endpoint is None else client.spec.name == endpoint)
        }
        return CacheKey(request, digests, occurrence)

    def of_samples(self, request: ChatRequest, options: CallOptions, occurrence: int, samples: int) -> List[CacheKey]:
        """Return what the samples of an item are known by, however they are asked for.

        With a seed each has a request of its own; otherwise each is one of so many identical ones.

        Raises:
            ConfigurationError: a file of the request cannot be read.
        """
        requests = [with_seed_of(request, place) for place in range(samples)]
        if requests[-1] != request:
            return [self.of_request(each, options, occurrence) for each in requests]
        first, payload = occurrence * samples, payload_of(request)
        return [self.of_request(request, options, first + place, payload) for place in range(samples)]

    def of_fallback(self, call: Call, key: CacheKey, fallback: Alternative) -> CacheKey:
        """Return what a call is known by once it has begun a fallback.

        Args:
            call: the call.
            key: that of its own request.
            fallback: which one, and its request.

        Raises:
            ConfigurationError: a file of it cannot be read.
        """
        request = fallback.request
        payload = with_files_of(call.payload, request) if request.files else payload_of(request)
        return self.of_request(request, call.options, key.occurrence, payload, fallback.endpoint)

    def _digest(
        self,
        client: EndpointClient,
        request: ChatRequest,
        options: CallOptions,
        payload: Union[bytes, LazyBody],
        occurrence: int,
    ) -> bytes:
        settings = client.transport.settings
        query: List[Any] = sorted({**settings.query, **options.query}.items())
        if settings.session is not None and settings.session.params:
            query.append(settings.session.params)
        parts = (
            *self._account_of(client, options),
            client.transport.base_url,
            json.dumps(query, default=str) if query else "",
            f"{request.method.upper()} {request.path}",
            request.response if isinstance(request.response, str) else "bytes",
            str(occurrence),
            identity_of(client.renamed(request, payload)),
        )
        digest = hashlib.blake2b(digest_size=32)
        for part in parts:
            data: bytes = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(b"%d:" % len(data))
            digest.update(data)
        return digest.digest()

    def _account_of(self, client: EndpointClient, options: CallOptions) -> Tuple[str, str]:
        if options.headers:
            return _account_of(self._settings, client.transport, options.headers)
        account = self._accounts.get(client.spec.name)
        if account is None:
            account = self._accounts[client.spec.name] = _account_of(self._settings, client.transport, {})
        return account


def digest_sent(call: Call, key: CacheKey) -> Optional[bytes]:
    """Return the digest of the request that the answer is to, at the endpoint that has answered.

    An answer that came after reasks is kept for calls that have ``parse=`` too, and under the request before those:
    the one that was sent last has the text of an answer in it that never comes again.
    """
    digest = key.digests.get(call.upstream_key[0])
    return after_reasks(digest) if digest is not None and call.reasks else digest


def after_reasks(digest: bytes) -> bytes:
    """Return the digest of a request whose answer came after reasks."""
    return hashlib.blake2b(digest + _AFTER_REASKS, digest_size=32).digest()


def check_account(settings: Cache, transports: Sequence[Transport]) -> None:
    """Refuse a cache where nothing tells one account from another.

    Raises:
        ConfigurationError: the key may change, or there is something else in its place.
    """
    for transport in transports:
        session = transport.settings.session
        is_known = type(transport.auth) is KeyAuth and not transport.auth.refreshable
        if settings.account is None and not (is_known and (session is None or session.auth is None)):
            raise ConfigurationError(
                "cache: requests are signed by a function, which does not tell one account from another: name the "
                "account, cache=Cache(path, account='...')"
            )


def _account_of(settings: Cache, transport: Transport, headers: Mapping[str, Any]) -> Tuple[str, str]:
    """Return what tells an account from others; nobody sees it but the digest."""
    if settings.account is not None:
        return "account", settings.account
    connection, session = transport.settings, transport.settings.session
    all_headers = {**({} if session is None else session.headers), **connection.headers}
    of_account: Dict[str, Any] = {}
    for header, value in (*all_headers.items(), *headers.items()):
        name = str(header).lower()
        if _OF_ACCOUNT.search(name) and not _NOT_OF_ACCOUNT.search(name):
            of_account[name] = value
    facts: List[Any] = [transport.auth.identity(), sorted(of_account.items()), connection.cert]
    if session is not None:
        cookies = sorted((each.domain, each.path, each.name, each.value or "") for each in session.cookies)
        facts += [session.cert, cookies] if session.cert or cookies else []
    # JSON, as the repr of a secret is the same for all of them.
    return "key", json.dumps(facts, default=str)
