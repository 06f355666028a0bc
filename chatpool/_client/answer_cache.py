"""The cache of a pool: which calls it answers, and when answers are kept.

A call is looked up before it is queued, and its answer kept when it is delivered; both in threads that hold no lock of
the pool.
"""

from __future__ import annotations

import json
import logging
from typing import Any, Dict, Optional, Sequence, Tuple

from .._cache import Entry, ForeignDatabase, Store
from .._engine import Alternative, Call, CallFuture, CallOptions, Engine
from .._engine.call import report_end
from .._journal import decode_value, encode_value
from .._reentrancy import holds_locks
from .._wire import without_secrets
from .._wire.operations import may_be_cached
from .._wire.request import beginning_of
from .._wire.sampling import alone
from ..errors import CacheMissError, ChatPoolError, ConfigurationError
from ..types import ChatCompletion, ChatRequest, Outcome, Usage
from .cache_keys import CacheKey, CacheKeys, after_reasks, check_account, digest_sent
from .cache_settings import Cache
from .cache_values import encoded, may_be_kept, value_in

__all__ = ["AnswerCache"]

logger = logging.getLogger("chatpool")


class AnswerCache:
    """The cache of one pool.

    Args:
        settings: the file, and how it is used.
        engine: knows the endpoints of the pool.

    Attributes:
        keys: what calls are known by.

    Raises:
        ConfigurationError: the file is none of a cache, or nothing stands for the account.
    """

    def __init__(self, settings: Cache, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self.keys = CacheKeys(settings, engine)
        self._store = Store(settings.path, settings.max_age, settings.max_bytes, is_read_only=settings.offline)
        check_account(settings, [client.transport for client in engine.endpoints])
        try:
            self._store.check()
        except ForeignDatabase as error:
            raise ConfigurationError(f"cache: {settings.path} cannot be used, {error}: name another file") from error

    @holds_locks
    def close(self) -> None:
        """Close the file."""
        self._store.close()

    # -- look-ups ----------------------------------------------------------------------------------------------

    def future(self) -> CallFuture:
        """Return a future whose answer is kept when it comes."""
        return _KeptFuture(self)

    def answers(self, call: Call) -> bool:
        """Look a single call up, and deliver its outcome if it is not to be sent; return whether that was done."""
        call.cache_key = self.keys.of_call(call)
        outcome = self.outcome_of(call)
        if outcome is not None:
            call.sink.deliver(call, outcome)
        return outcome is not None

    def outcome_of(self, call: Call) -> Optional[Outcome[Any]]:
        """Return the outcome of a call that is not sent, and tell its listeners; None for one that is to be sent.

        A kept answer is reviewed as any other, in the call's own context.
        """
        return call.context.run(self._outcome_of, call, call.cache_key)

    def _outcome_of(self, call: Call, key: Optional[CacheKey]) -> Optional[Outcome[Any]]:
        error: Optional[ChatPoolError] = None
        value, problem = (None, "") if key is None else self._value_of(call, key)
        if value is None and key is not None and self._settings.offline:
            value = self._recorded_fallback(call, key)
        if value is None:
            if not self._settings.offline:
                return None
            error = self.miss(call.request, problem)
        now = self._engine.clock.now()
        call.payload = b""
        call.usage = None if error is not None else Usage()
        outcome = call.outcome(now, value=value, error=error)
        outcome.cached = error is None
        report_end(call, now, error=error, usage=None, answer=value, cached=outcome.cached)
        return outcome

    def answer_to_fallback(self, call: Call) -> Any:
        """Return the value of the answer that is kept for the fallback that a call begins, None without one.

        Its answer is kept as that of the fallback from now on.
        """
        key, fallbacks = call.cache_key, call.options.fallbacks
        if key is None or fallbacks is None:
            return None
        endpoint = fallbacks.entries[call.fallback - 1].endpoint
        try:
            call.cache_key = self.keys.of_fallback(call, key, Alternative(call.fallback, call.request, endpoint))
        except ConfigurationError:  # the attempt will fail with it
            call.cache_key = None
            return None
        return self._value_of(call, call.cache_key)[0]

    def _recorded_fallback(self, call: Call, key: CacheKey) -> Any:
        """Make the first fallback that has an answer that of a call, and return the value; None without any."""
        fallbacks = call.options.fallbacks
        for fallback in () if fallbacks is None else fallbacks.alternatives(call.first_request):
            if not fallback.number:
                continue
            fallback_key = self.keys.of_fallback(call, key, fallback)
            value, _ = self._value_of(call, fallback_key)
            if value is not None:
                call.begin_fallback(fallback.number, fallback.request)
                call.move_to((fallback.endpoint or call.upstream_key[0], fallback.request.model))
                if isinstance(value, ChatCompletion):
                    value._fallback = fallback.number
                return value
        return None

    def _value_of(self, call: Call, key: CacheKey) -> Tuple[Any, str]:
        """Return the value of a kept answer, None without one; and why the call's review did not take it."""
        review = call.options.review
        digests = list(key.digests.values())
        if review is not None:
            digests += [after_reasks(digest) for digest in digests]
        entry = self._store.find(digests, self._engine.clock.wall())
        value = None if entry is None else self._decoded(key.request, entry)
        if value is None or review is None:
            return value, ""
        reviewed = review(key.request, value, 0)
        if reviewed.error is None and reviewed.request is None:
            return reviewed.value, ""
        return None, reviewed.reason

    def _decoded(self, request: ChatRequest, entry: Entry) -> Any:
        """Return the value that the caller gets, None where the entry cannot be used."""
        try:
            facts = json.loads(entry.facts)
            value = value_in(request, entry.answer, facts.get("request_id"))
        except Exception as error:  # written by another version, say
            logger.debug("an answer in the cache %s cannot be used: %s", self._store.path, type(error).__name__)
            return None
        if isinstance(value, ChatCompletion):
            value.usage, value.cached = Usage(), True
        return value

    def has(self, request: ChatRequest, options: CallOptions, occurrence: int, samples: int = 1) -> bool:
        """Return whether there are all answers to a request, for an item that another process sends.

        Raises:
            ConfigurationError: a file of it cannot be read.
        """
        if not may_be_cached(request):
            return False
        keys, wall = self.keys.of_samples(request, options, occurrence, samples), self._engine.clock.wall()
        return all(self._store.find(list(key.digests.values()), wall) is not None for key in keys)

    def find(self, key: CacheKey) -> Any:
        """Return the JSON of the answer that is kept under a key, None without one."""
        entry = self._store.find(list(key.digests.values()), self._engine.clock.wall())
        try:
            return None if entry is None else decode_value(entry.answer)
        except ValueError:
            return None

    @property
    def is_offline(self) -> bool:
        """True if nothing is sent."""
        return self._settings.offline

    def miss(self, request: ChatRequest, problem: str = "") -> CacheMissError:
        """Return the error of a request that is not sent because nothing is.

        Args:
            request: the request.
            problem: why the review did not take the answer that is kept; "" where none is.
        """
        prompt = beginning_of(request)
        for transport in self._engine.endpoints.transports:
            prompt = transport.auth.scrub(prompt)
        model = "" if request.model is None else f", model {request.model!r}"
        begins = "" if not prompt else f", that begins {prompt!r}"
        reason = "has no answer to" if may_be_cached(request) else "keeps no answers to"
        reason = f"has no answer that is accepted ({problem}) to" if problem else reason
        return CacheMissError(
            f"the cache {self._settings.path} {reason} {request.method.upper()} {request.path}{model}{begins}, and "
            "offline=True sends nothing",
            path=request.path,
            model=request.model,
            prompt=prompt,
        )

    def refuse_stream(self, request: Optional[ChatRequest] = None) -> None:
        """Refuse a stream where nothing is sent: streams are not kept.

        Raises:
            CacheMissError: nothing is sent.
        """
        if self._settings.offline:
            raise (
                self.miss(request)
                if request is not None
                else CacheMissError("the cache keeps no streams, and offline=True sends nothing")
            )

    # -- answers ------------------------------------------------------------------------------------------------

    def keep(self, call: Call, outcome: Outcome[Any]) -> None:
        """Keep the answer to a call, if it was sent and the answer is one of those that are kept."""
        value, key, history = outcome.value, call.cache_key, outcome.history
        if outcome.error is not None or value is None or outcome.cached or key is None or not history:
            return
        digest = digest_sent(call, key)
        if digest is not None and may_be_kept(call.request, value):
            self._keep(call.upstream_key[0], [(call.request, digest, key.occurrence, value)], history[-1].request_id)

    def keep_samples(self, call: Call, samples: Sequence[Tuple[CacheKey, ChatCompletion]]) -> None:
        """Keep samples of an item that came in one answer, each as if it had been asked for alone."""
        endpoint = call.upstream_key[0]
        answers = [
            (key.request, key.digests[endpoint], key.occurrence, alone(answer))
            for key, answer in samples
            if endpoint in key.digests and may_be_kept(key.request, answer)
        ]
        if answers:
            self._keep(endpoint, answers, samples[0][1].request_id)

    def keep_rows(self, call: Call, rows: Sequence[Tuple[CacheKey, Any]]) -> None:
        """Keep the answers to requests for embeddings that went out as one call."""
        endpoint, fallbacks = call.upstream_key[0], call.options.fallbacks
        if call.fallback and fallbacks is not None:
            fallback = fallbacks.entries[call.fallback - 1]
            rows = [
                (
                    self.keys.of_request(
                        fallback.applied_to(key.request), call.options, key.occurrence, endpoint=fallback.endpoint
                    ),
                    answer,
                )
                for key, answer in rows
            ]
        known = [(key, key.digests.get(endpoint), answer) for key, answer in rows]
        answers = [(key.request, digest, key.occurrence, answer) for key, digest, answer in known if digest is not None]
        self._keep(endpoint, answers, None)

    def _keep(
        self, endpoint: str, answers: Sequence[Tuple[ChatRequest, bytes, int, Any]], request_id: Optional[str]
    ) -> None:
        if self._settings.offline:
            return
        try:
            entries = [
                (digest, self._facts(request, endpoint, occurrence, request_id), encoded(request, answer))
                for request, digest, occurrence, answer in answers
            ]
        except Exception as error:  # a file that was taken away, say: it must not cost the answer
            logger.debug("an answer is not kept: %s: %s", type(error).__name__, error)
            return
        self._store.keep(entries, self._engine.clock.wall())

    def _facts(self, request: ChatRequest, endpoint: str, occurrence: int, request_id: Optional[str]) -> bytes:
        """Return what ``chatpool cache export`` shows of an answer, besides the answer."""
        urls = {client.spec.name: client.transport.base_url for client in self._engine.endpoints}
        facts: Dict[str, Any] = {
            "endpoint": without_secrets(urls.get(endpoint, "")),
            "path": request.path,
            "model": request.model,
            "form": request.response if isinstance(request.response, str) else "bytes",
            "occurrence": occurrence,
            "request_id": request_id,
        }
        return encode_value(facts)


class _KeptFuture(CallFuture):
    """A future whose answer is kept when it comes.

    Args:
        cache: keeps it.
    """

    def __init__(self, cache: AnswerCache) -> None:
        super().__init__()
        self._cache = cache

    def kept_answer(self, call: Call) -> Any:
        return self._cache.answer_to_fallback(call)

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        self._cache.keep(call, outcome)
        super().deliver(call, outcome)
