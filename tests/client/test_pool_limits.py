"""A pool that keeps to limits: its user's, the server's, and a budget."""

from __future__ import annotations

import threading

import pytest

from chatpool import Budget, BudgetExceededError, ChatPool, ConfigurationError, DeadlineExceededError, Limits, Timeout
from chatpool.testing import Answer, Cap, FakeServer, Quota

ROWS = [str(number) for number in range(120)]
PROMPTS = ROWS[:40]


@pytest.fixture
def pool_at():
    """A function from server options and pool options to (server, pool)."""
    opened = []

    def open_both(server_options=None, **options):
        server = FakeServer(**(server_options or {}))
        pool = ChatPool("m", base_url=server.base_url, api_key="k", **{"max_workers": 16, **options})
        opened.extend([pool, server])
        return server, pool

    yield open_both
    for one in opened:
        one.close()


def most_within(seconds, server):
    """The most requests that arrived in so many seconds."""
    times = [request.time for request in server.requests]
    return max(sum(begin <= time < begin + seconds for time in times) for begin in times)


def line_of(pool):
    (line,) = pool.stats().lines.values()
    return line


def with_usage(tokens):
    """Answers that say they took so many tokens."""
    usage = {"prompt_tokens": tokens // 2, "completion_tokens": tokens - tokens // 2, "total_tokens": tokens}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    return Answer(body={"object": "chat.completion", "choices": [choice], "usage": usage})


class TestConfiguredLimits:
    def test_requests_are_sent_at_the_limit_and_no_faster(self, pool_at, stepped_time):
        server, pool = pool_at(limits=Limits(requests_per_minute=6000, burst=0.1))
        assert None not in stepped_time.run(pool, lambda: pool.map(PROMPTS))
        assert most_within(0.08, server) <= 10 + 8
        assert 0.25 <= stepped_time.now() < 1

    def test_a_view_keeps_to_the_limits_of_its_pool(self, pool_at, stepped_time):
        server, pool = pool_at(limits=Limits(requests_per_minute=6000, burst=0.1))
        view = pool.with_options(timeout=5)
        assert None not in stepped_time.run(pool, lambda: view.map(PROMPTS))
        assert most_within(0.08, server) <= 10 + 8

    def test_each_model_has_a_limit_of_its_own(self, pool_at, stepped_time):
        server, pool = pool_at(limits=Limits(requests_per_minute=60, burst=2))
        items = [{"model": f"m{number}", "prompt": "hi"} for number in range(10) for _ in range(2)]
        assert None not in stepped_time.run(pool, lambda: pool.map(items))
        assert stepped_time.now() < 5

    def test_a_request_above_the_limit_fails_at_once_and_the_others_go_on(self, pool_at):
        server, pool = pool_at(limits=Limits(tokens_per_minute=100_000))
        large = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 200_000}
        first, second = pool.map([large, "small"], on_error="return")
        assert "lower its max_tokens" in str(first)
        assert second.text == "small"
        assert len(server.requests) == 1

    def test_stats_tell_the_pace_and_why(self, pool_at):
        _, pool = pool_at(limits=Limits(requests_per_minute=600))
        pool.chat("hi")
        assert line_of(pool).rate == 10
        assert line_of(pool).why == "the pool's own limits="

    def test_a_singular_call_does_not_wait_beyond_its_time(self, pool_at, stepped_time):
        server, pool = pool_at(limits=Limits(requests_per_minute=2))
        pool.chat("first")
        with pytest.raises(DeadlineExceededError):
            stepped_time.run(pool, lambda: pool.chat("second", timeout=Timeout(total=0.2)))
        assert stepped_time.now() < 0.3
        assert len(server.requests) == 1

    def test_the_time_a_run_is_paced_is_not_its_calls_time(self, pool_at, stepped_time):
        _, pool = pool_at(limits=Limits(requests_per_minute=3000, burst=0.02), timeout=Timeout(total=0.5))
        assert None not in stepped_time.run(pool, lambda: pool.map(PROMPTS))
        assert stepped_time.now() > 0.5

    @pytest.mark.parametrize("limits", [100, {"requests_per_minute": 5}])
    def test_limits_are_limits(self, limits):
        with pytest.raises(TypeError, match=r"limits must be a chatpool\.Limits"):
            ChatPool("m", base_url="http://127.0.0.1:1", limits=limits)


class TestFoundLimits:
    def test_a_quota_is_kept_to_with_few_refusals(self, pool_at, stepped_time):
        quota = Quota(per_second=40, burst=10)
        server, pool = pool_at({"limits": quota, "script": stepped_time.answer_after(0.01)}, retry=1)
        assert None not in stepped_time.run(pool, lambda: pool.map(ROWS[:80]))  # no retry is used up
        assert len(server.requests) - 80 < 30
        assert line_of(pool).rate < 50

    @pytest.mark.slow
    def test_calls_at_once_are_limited_to_what_the_server_accepts(self, pool_at, stepped_time):
        cap = Cap(4, hint="retry-after-ms", wait=0.05)
        server, pool = pool_at({"limits": cap, "script": stepped_time.answer_after(0.1)}, max_workers=32)
        assert None not in stepped_time.run(pool, lambda: pool.map(ROWS[:120]))
        assert len(server.requests) < 180
        line = line_of(pool)  # four at once, of a tenth of a second each, are as well 40 a second
        assert 3 <= (line.concurrency_limit or line.rate * 0.1) <= 6

    def test_headers_are_kept_to_before_anything_is_refused(self, pool_at, stepped_time):
        quota = StatingQuota(stepped_time, rate=50.0, burst=20)
        server, pool = pool_at({"script": quota})
        stepped_time.run(pool, lambda: pool.chat("how much may I?"))
        assert None not in stepped_time.run(pool, lambda: pool.map(ROWS[:60]))
        assert quota.refused <= 2
        assert "x-ratelimit" in line_of(pool).why

    def test_a_run_does_not_stop_where_nothing_is_stated_any_more(self, pool_at):
        """What was used since the last statement flows back, though refusals and later answers do not say so."""
        stated = {"limit": "20", "remaining": "19", "reset": "0.02s"}
        headers = {f"x-ratelimit-{name}-requests": value for name, value in stated.items()}
        server, pool = pool_at({"script": lambda request: Answer(headers=headers) if request.number == 0 else None})
        pool.chat("how much may I?")
        assert None not in pool.map([str(number) for number in range(60)], run_timeout=60)

    def test_a_paused_model_holds_up_no_other(self, pool_at):
        server, pool = pool_at({"script": lambda request: None})
        server.set_script(lambda request: _slow_down() if request.body["model"] == "slow" else None)
        waiting = pool.submit("x", model="slow")
        server.wait_for(1)
        assert [reply.text for reply in pool.map(["a", "b"], model="quick")] == ["a", "b"]
        assert not waiting.done()
        waiting.cancel()


def _slow_down():
    from chatpool.testing import RateLimited

    return RateLimited(60)


class StatingQuota:
    """A quota whose answers state what is left of it."""

    def __init__(self, clock, rate, burst):
        self._rate, self._burst = rate, burst
        self._quota = Quota(per_second=rate, burst=burst)
        self._clock, self._lock = clock, threading.Lock()
        self.refused = 0

    def __call__(self, request):
        with self._lock:
            refusal = self._quota.refusal(self._clock.now(), 0)
            left = self._quota._tokens
            self.refused += refusal is not None
        if refusal is not None:
            return refusal
        headers = {
            "x-ratelimit-limit-requests": str(self._burst),
            "x-ratelimit-remaining-requests": str(int(left)),
            "x-ratelimit-reset-requests": f"{(self._burst - left) / self._rate:.3f}s",
        }
        return self._clock.answer_after(0.02, Answer(headers=headers))(request)


class TestBudget:
    def test_a_run_stops_when_it_is_used_up(self, pool_at):
        server, pool = pool_at({"script": with_usage(1000)}, budget=Budget(tokens=10_500), max_workers=1)
        results = pool.map(PROMPTS, on_error="return", max_tokens=990)
        errors = [error for error in results if isinstance(error, Exception)]
        assert {type(error) for error in errors} == {BudgetExceededError}
        assert len(server.requests) == 10
        assert isinstance(results.fatal, BudgetExceededError)
        assert results.usage.total_tokens == 10_000

    def test_it_is_exceeded_at_most_by_what_was_in_flight(self, pool_at):
        server, pool = pool_at({"script": with_usage(1000)}, budget=Budget(tokens=5000), max_workers=4)
        results = pool.map(PROMPTS, on_error="return", max_tokens=10)  # takes much more than expected at first
        assert 5000 <= results.usage.total_tokens < 5000 + 4 * 1000
        assert isinstance(results[-1], BudgetExceededError)

    def test_it_belongs_to_the_pool_and_later_calls_are_refused_too(self, pool_at):
        server, pool = pool_at({"script": with_usage(1000)}, budget=Budget(tokens=1000))
        pool.chat("hi", max_tokens=900)
        with pytest.raises(BudgetExceededError, match=r"1,000 of 1,000 tokens are spent"):
            pool.chat("hi", max_tokens=900)
        assert len(server.requests) == 1

    def test_money_is_counted_with_the_prices_given(self, pool_at):
        prices = {"m": (1000.0, 1000.0)}  # a thousand tokens cost one
        server, pool = pool_at({"script": with_usage(1000)}, budget=Budget(cost=3.5, prices=prices), max_workers=1)
        pool.map(PROMPTS, on_error="return", max_tokens=990)
        assert len(server.requests) == 3

    def test_a_row_whose_model_has_no_price_fails_unsent(self, pool_at):
        server, pool = pool_at(budget=Budget(cost=1.0, prices={"m": (1.0, 1.0)}))
        rows = [{"model": "other", "prompt": "a"}, "b"]
        first, second = pool.map(rows, on_error="return")
        assert "no price for the model 'other'" in str(first)
        assert second.text == "b"
        assert len(server.requests) == 1

    def test_a_pool_whose_model_has_no_price_does_not_start(self):
        with pytest.raises(ConfigurationError, match="no price for the pool's model 'm'"):
            ChatPool("m", base_url="http://127.0.0.1:1", budget=Budget(cost=1.0, prices={"other": (1.0, 1.0)}))

    def test_a_budget_is_a_budget(self):
        with pytest.raises(TypeError, match=r"budget must be a chatpool\.Budget"):
            ChatPool("m", base_url="http://127.0.0.1:1", budget=5.0)


def test_close_does_not_wait_for_a_moment_that_came_sooner_than_expected(within):
    """The first answer uses fewer tokens than was reserved, so the second call goes out while a worker waits for it."""
    limits = Limits(tokens_per_minute=6000)
    with FakeServer() as server:
        pool = ChatPool("m", base_url=server.base_url, max_workers=2, limits=limits)
        assert all(pool.map(["x" * 20_000] * 2, progress=False))
        within(10, pool.close)
