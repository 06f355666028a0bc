"""A limit that processes on several hosts share, through Redis."""

from __future__ import annotations

from typing import Any, List, Tuple

from ..errors import ConfigurationError
from .address import RedisAddress
from .arithmetic import Rates, Reservation, Standing
from .backend import Unavailable
from .script import SCRIPT

__all__ = ["RedisBackend"]

_TIMEOUT = 0.5  # seconds
_TRIES = 2  # a Redis that takes as long twice is none to wait for
_IDLE = 30  # seconds after which a connection is looked at before it is used


class RedisBackend:
    """The state in Redis (5 or newer, or a compatible server), changed by a script of one command and by its clock.

    Args:
        address: where it is.
        name: of the limit; a part of the key.

    Raises:
        ConfigurationError: the package ``redis`` is not installed, or cannot read the address.
    """

    def __init__(self, address: RedisAddress, name: str) -> None:
        self.shown = f"Redis at {address.shown}"
        self._key = f"chatpool:quota:{name}"
        self._address = address
        self._connect()

    def _connect(self) -> None:
        self._client, self._errors, self._passing = _client(self._address)
        self._script = self._client.register_script(SCRIPT)

    def reserve(self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float) -> Reservation:
        granted, wait, at, sharers = self._run("reserve", rates, requests, tokens, patience, sharer)
        return Reservation(bool(granted), float(wait), float(at), int(sharers))

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        # Given back twice, the same tokens could be used twice: what is not answered may have been heard.
        self._run("correct", rates, at, tokens, tries=_TRIES if tokens > 0 else 1)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        self._run("pause", rates, seconds)

    def standing(self, rates: Rates) -> Standing:
        wait, paused_for, sharers = self._run("standing", rates)
        return Standing(float(wait), float(paused_for), int(sharers))

    def _run(self, operation: str, rates: Rates, *arguments: float, tries: int = _TRIES) -> List[Any]:
        numbers = (*rates.requests, *rates.tokens, *arguments)
        words = [operation, *(repr(float(number)) for number in numbers)]
        while True:
            tries -= 1
            try:
                # By the script's hash; redis-py sends the script itself to a server that does not know it yet.
                answer: List[Any] = self._script(keys=[self._key], args=words)
                return answer
            except self._errors as error:
                if tries <= 0 or not isinstance(error, self._passing):
                    raise Unavailable(f"{self.shown} does not answer as it should ({_in_short(error)})") from None

    def close(self) -> None:
        self._client.close()

    def after_fork_in_child(self) -> None:
        self._connect()


def _client(address: RedisAddress) -> Tuple[Any, Tuple[Any, ...], Tuple[Any, ...]]:
    """Return the client, the errors that it raises, and those of them after which it is asked again."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ConfigurationError(
            "Limits(scope='redis://...') needs the package redis: pip install 'chatpool[redis]'"
        ) from None
    try:
        client = redis.Redis.from_url(
            address.url,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            health_check_interval=_IDLE,
            retry=Retry(NoBackoff(), 0),
        )
    except (TypeError, ValueError):
        raise ConfigurationError(f"the URL of Limits(scope=) for {address.shown} cannot be read by redis") from None
    # A connection that the server has closed meanwhile, and a machine that is busy for a moment.
    return client, (redis.RedisError, OSError), (redis.ConnectionError, redis.TimeoutError)


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
