"""A limit that processes on several hosts share, through Redis.

A script in Lua changes the state inside Redis; it does what :mod:`chatpool._quota.gcra` does, step by step.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from .._policy.day_window import DayLimits
from ..errors import ConfigurationError
from .day import DayCharge
from .gcra import LimitStatus, Rates, ReserveResult
from .scope import RedisAddress
from .shared_limit import Unavailable

__all__ = ["RULES", "RedisBackend"]


# Redis' own clock: those of the sharers' hosts may differ.
_CLOCK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

# KEYS: the limit; where it is limited per day, also the day's count.  ARGV: operation; limit, emission and burst of
# requests, then of tokens; arguments of the operation; where it is limited per day, those limits.
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
local clock = now
local back = floor(touched - now)
if back > 0 then
  touched, requests_due, tokens_due = touched - back, requests_due - back, tokens_due - back
  last, paused_until = last - back, paused_until - back
  for i = 1, #window, 2 do window[i] = window[i] - back end
  for i = 2, #seen, 2 do seen[i] = seen[i] - back end
end
touched = max(touched, now)
now = touched

local function record_sharer(sharer)
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

local function earliest(requests, tokens)
  local requests_free = requests_due - max(0, request_burst - requests) * request_emission
  local tokens_free = tokens_due - max(0, token_burst - tokens) * token_emission
  return max(now, paused_until, last, requests_free, tokens_free)
end

local function earliest_in_window(at, tokens)
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

local function forget_old()
  local kept, latest = {}, max(now, last)
  for i = 1, #window, 2 do
    if window[i] + 61.5 > latest then
      kept[#kept + 1] = window[i]
      kept[#kept + 1] = window[i + 1]
    end
  end
  window = kept
end

local function add_to_window(second, tokens)
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

local function exact(number) return string.format('%.17g', number) end

-- The day, as in chatpool._policy.day_window.
local day_requests, day_tokens, day_touched, slots
local day_life, day_slot = 86700.5, 300

local function load_day()
  day_tokens = tonumber(table.remove(ARGV))
  day_requests = tonumber(table.remove(ARGV))
  day_touched, slots = 0, {}
  local stored_day = redis.call('GET', KEYS[2])
  if stored_day then day_touched, slots = unpack(cmsgpack.unpack(stored_day)) end
  local day_back = floor(day_touched - clock)
  if day_back > 0 then
    day_touched = day_touched - day_back
    for i = 1, #slots, 3 do slots[i] = slots[i] - day_back end
  end
  day_touched = max(day_touched, clock)
  local still = {}
  for i = 1, #slots, 3 do
    if #still > 0 or slots[i] + day_life > day_touched then
      for j = i, i + 2 do still[#still + 1] = slots[j] end
    end
  end
  slots = still
end

local function store_day()
  local latest = #slots > 0 and slots[#slots - 2] or day_touched
  local life = math.ceil((max(latest, day_touched) - day_touched + day_life) * 1000)
  redis.call('SET', KEYS[2], cmsgpack.pack({day_touched, slots}), 'PX', life)
end

local function day_used()
  local requests, tokens = 0, 0
  for i = 1, #slots, 3 do
    requests = requests + slots[i + 1]
    tokens = tokens + slots[i + 2]
  end
  return requests, tokens
end

local function day_wait(requests, tokens)
  local total_requests, total_tokens = day_used()
  total_requests = total_requests + requests
  total_tokens = total_tokens + tokens
  local wait = 0
  for i = 1, #slots, 3 do
    if total_requests <= day_requests + 1e-9 and total_tokens <= day_tokens + 1e-9 then break end
    total_requests = total_requests - slots[i + 1]
    total_tokens = total_tokens - slots[i + 2]
    wait = slots[i] + day_life - day_touched
  end
  return wait
end

local function day_take(at, requests, tokens)
  local newest = #slots - 2
  if newest > 0 and at < slots[newest] + day_slot then
    slots[newest + 1] = slots[newest + 1] + requests
    slots[newest + 2] = slots[newest + 2] + tokens
  else
    slots[#slots + 1] = at
    slots[#slots + 1] = requests
    slots[#slots + 1] = tokens
  end
end

local function day_correct(at, requests, tokens)
  if requests > 0 or tokens > 0 then day_take(day_touched, max(0, requests), max(0, tokens)) end
  for i = #slots - 2, 1, -3 do
    if slots[i] <= at then
      slots[i + 1] = max(0, slots[i + 1] + min(0, requests))
      slots[i + 2] = max(0, slots[i + 2] + min(0, tokens))
      return
    end
  end
end

local function day_left()
  local requests, tokens = day_used()
  local left_requests = day_requests >= 1e300 and day_requests or max(0, day_requests - requests)
  local left_tokens = day_tokens >= 1e300 and day_tokens or max(0, day_tokens - tokens)
  return exact(left_requests), exact(left_tokens)
end

if KEYS[2] then load_day() end

if operation == 'reserve' then
  local requests, tokens, max_wait = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  if KEYS[2] then
    local wait = day_wait(requests, tokens)
    if wait > 0 then
      store_day()
      return {0, exact(wait), '0', max(1, #seen / 2), exact(day_touched), day_left()}
    end
  end
  record_sharer(tonumber(ARGV[11]))
  forget_old()
  local at = earliest_in_window(earliest(requests, tokens), tokens)
  local wait = at - now
  local granted = wait <= max_wait and 1 or 0
  if granted == 1 then
    last = at
    requests_due = max(requests_due, at) + requests * request_emission
    tokens_due = max(tokens_due, at) + tokens * token_emission
    add_to_window(floor(at), tokens)
  end
  store()
  if KEYS[2] then
    local day_at = day_touched + wait
    if granted == 1 then day_take(day_at, requests, tokens) end
    store_day()
    return {granted, exact(wait), exact(at), #seen / 2, exact(day_at), day_left()}
  end
  return {granted, exact(wait), exact(at), #seen / 2}
elseif operation == 'correct' then
  local at, tokens = floor(tonumber(ARGV[8])), tonumber(ARGV[9])
  if KEYS[2] then
    day_correct(tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]))
    store_day()
  end
  if tokens == 0 then return {} end
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
  return {exact(earliest(1, 0) - now), exact(max(0, paused_until - now)), #seen / 2}
end
"""

_SCRIPT = _CLOCK + RULES


_TIMEOUT_SECONDS = 0.5
_MAX_TRIES = 2  # a Redis that takes as long twice is not worth waiting for
_HEALTH_CHECK_SECONDS = 30  # a connection that was idle for longer is checked before it is used


class RedisBackend:
    """The state in Redis (5 or newer, or a compatible server), changed by a script of one command and by its clock.

    Args:
        address: address of the server.
        name: name of the limit; a part of the key.

    Raises:
        ConfigurationError: the package ``redis`` is not installed, or cannot read the address.
    """

    def __init__(self, address: RedisAddress, name: str) -> None:
        self.display_name = f"Redis at {address.display_url}"
        key = f"chatpool:quota:{name}"
        self._keys = [key, f"{{{key}}}:day"]  # in braces: of the same slot, where a server spreads keys over several
        self._address = address
        self._connect()

    def _connect(self) -> None:
        self._client, self._errors, self._transient_errors = _client(self._address)
        self._script = self._client.register_script(_SCRIPT)

    def reserve(self, rates: Rates, *, requests: float, tokens: float, max_wait: float, sharer: float) -> ReserveResult:
        granted, wait, at, sharers, *of_day = self._run("reserve", rates, requests, tokens, max_wait, sharer)
        result = ReserveResult(bool(granted), float(wait), float(at), int(sharers))
        if not of_day:
            return result
        day_at, *left = map(float, of_day)
        return result._replace(day_at=day_at, day_left=DayLimits(*left))

    def correct(self, rates: Rates, *, at: float, tokens: float, day: Optional[DayCharge] = None) -> None:
        of_day = () if rates.day is None else day or (0.0, 0.0, 0.0)
        # What is given back is given back once only, or it could be used twice: Redis may have run what it did not
        # answer.
        gives_back = min(tokens, *of_day[1:]) < 0 if of_day else tokens < 0
        self._run("correct", rates, at, tokens, *of_day, tries=1 if gives_back else _MAX_TRIES)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        self._run("pause", rates, seconds)

    def status(self, rates: Rates) -> LimitStatus:
        wait, paused_for, sharers = self._run("status", rates)
        return LimitStatus(float(wait), float(paused_for), int(sharers))

    def _run(self, operation: str, rates: Rates, *arguments: float, tries: int = _MAX_TRIES) -> List[Any]:
        numbers = (*rates.requests, *rates.tokens, *arguments)
        if rates.day is not None:
            numbers += rates.day
        script_arguments = [operation, *(repr(float(number)) for number in numbers)]
        keys = self._keys if rates.day is not None else self._keys[:1]
        while True:
            tries -= 1
            try:
                # By the script's hash; redis-py sends the script itself to a server that does not know it yet.
                result: List[Any] = self._script(keys=keys, args=script_arguments)
                return result
            except self._errors as error:
                if tries <= 0 or not isinstance(error, self._transient_errors):
                    raise Unavailable(f"{self.display_name} does not answer as it should ({_summary(error)})") from None

    def close(self) -> None:
        self._client.close()

    def after_fork_in_child(self) -> None:
        self._connect()


def _client(address: RedisAddress) -> Tuple[Any, Tuple[Any, ...], Tuple[Any, ...]]:
    """Return the client, the errors that it raises, and those of them after which a command is tried again."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ConfigurationError("Limits(scope='redis://...') needs redis: pip install 'chatpool[redis]'") from None
    try:
        client = redis.Redis.from_url(
            address.url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            health_check_interval=_HEALTH_CHECK_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"the URL of Limits(scope=) for {address.display_url} cannot be read by redis"
        ) from None
    # A connection that the server has closed meanwhile, and a machine that is busy for a moment.
    return client, (redis.RedisError, OSError), (redis.ConnectionError, redis.TimeoutError)


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
