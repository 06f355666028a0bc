"""The arithmetic inside Redis, as one script: what :mod:`chatpool._quota.gcra` says, in Lua.

A limit that processes on several hosts share, through Redis.
"""

from __future__ import annotations

from typing import Any, List, Tuple

from ..errors import ConfigurationError
from .gcra import LimitStatus, Rates, SlotReservation
from .scope import RedisAddress
from .shared_limit import Unavailable

__all__ = ["CLOCK", "RULES", "SCRIPT", "RedisBackend"]


# Redis' own clock: those of the sharers' hosts may differ.
CLOCK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

# KEYS: the limit.  ARGV: the operation; limit, emission and burst of requests, then of tokens; its own arguments.
RULES = """
local max, min, floor = math.max, math.min, math.floor
local touched, requests_due, tokens_due, last, paused_until, window, seen = 0, 0, 0, 0, 0, {}, {}
local stored = redis.call('GET', KEYS[1])
if stored then
  touched, requests_due, tokens_due, last, paused_until, window, seen = unpack(cmsgpack.unpack(stored))
end

local operation = ARGV[1]
local request_emission, request_burst = tonumber(ARGV[3]), tonumber(ARGV[4])
local token_limit, token_emission, token_burst = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

-- A clock that was set back: as if no time had passed.
local back = floor(touched - now)
if back > 0 then
  touched, requests_due, tokens_due = touched - back, requests_due - back, tokens_due - back
  last, paused_until = last - back, paused_until - back
  for i = 1, #window, 2 do window[i] = window[i] - back end
  for i = 2, #seen, 2 do seen[i] = seen[i] - back end
end
touched = max(touched, now)
now = touched

local function see(sharer)
  local still, first = {}, #seen > 510 and 3 or 1  -- at most 256 are counted
  for i = first, #seen, 2 do
    if seen[i] ~= sharer and seen[i + 1] + 120 > now then
      still[#still + 1] = seen[i]
      still[#still + 1] = seen[i + 1]
    end
  end
  still[#still + 1] = sharer
  still[#still + 1] = now
  seen = still
end

local function free(requests, tokens)
  local requests_free = requests_due - max(0, request_burst - requests) * request_emission
  local tokens_free = tokens_due - max(0, token_burst - tokens) * token_emission
  return max(now, paused_until, last, requests_free, tokens_free)
end

local function free_in_window(at, tokens)
  local total = tokens
  for i = 1, #window, 2 do
    if window[i] + 61.5 > at then total = total + window[i + 1] end
  end
  for i = 1, #window, 2 do
    if total <= token_limit + 1e-9 then break end
    if window[i] + 61.5 > at then
      total = total - window[i + 1]
      at = window[i] + 61.5
    end
  end
  return at
end

local function forget()
  local kept, given = {}, max(now, last)
  for i = 1, #window, 2 do
    if window[i] + 61.5 > given then
      kept[#kept + 1] = window[i]
      kept[#kept + 1] = window[i + 1]
    end
  end
  window = kept
end

local function note(second, tokens)
  if tokens == 0 then return end
  if #window > 0 and window[#window - 1] == second then
    window[#window] = window[#window] + tokens
  else
    window[#window + 1] = second
    window[#window + 1] = tokens
  end
end

local function store()
  local state = cmsgpack.pack({touched, requests_due, tokens_due, last, paused_until, window, seen})
  local latest = max(now, requests_due, tokens_due, last, paused_until)
  redis.call('SET', KEYS[1], state, 'PX', math.ceil((latest - now + 180) * 1000))
end

local function shown(number) return string.format('%.17g', number) end

if operation == 'reserve' then
  local requests, tokens, patience = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  see(tonumber(ARGV[11]))
  forget()
  local at = free_in_window(free(requests, tokens), tokens)
  local wait = at - now
  local granted = wait <= patience and 1 or 0
  if granted == 1 then
    last = at
    requests_due = max(requests_due, at) + requests * request_emission
    tokens_due = max(tokens_due, at) + tokens * token_emission
    note(floor(at), tokens)
  end
  store()
  return {granted, shown(wait), shown(at), #seen / 2}
elseif operation == 'correct' then
  local at, tokens = floor(tonumber(ARGV[8])), tonumber(ARGV[9])
  local due = max(tokens_due, now)
  tokens_due = due + tokens * token_emission
  if tokens > 0 then tokens_due = max(due, min(tokens_due, max(now, last) + token_limit * token_emission)) end
  for i = 1, #window, 2 do
    if window[i] == at then window[i + 1] = max(0, window[i + 1] + tokens) end
  end
  store()
  return {}
elseif operation == 'pause' then
  paused_until = max(paused_until, now + tonumber(ARGV[8]))
  requests_due = max(requests_due, paused_until + request_burst * request_emission)
  tokens_due = max(tokens_due, paused_until + token_burst * token_emission)
  store()
  return {}
else
  return {shown(free(1, 0) - now), shown(max(0, paused_until - now)), #seen / 2}
end
"""

SCRIPT = CLOCK + RULES


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

    def reserve(
        self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float
    ) -> SlotReservation:
        granted, wait, at, sharers = self._run("reserve", rates, requests, tokens, patience, sharer)
        return SlotReservation(bool(granted), float(wait), float(at), int(sharers))

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        # Given back twice, the same tokens could be used twice: what is not answered may have been heard.
        self._run("correct", rates, at, tokens, tries=_TRIES if tokens > 0 else 1)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        self._run("pause", rates, seconds)

    def standing(self, rates: Rates) -> LimitStatus:
        wait, paused_for, sharers = self._run("standing", rates)
        return LimitStatus(float(wait), float(paused_for), int(sharers))

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
