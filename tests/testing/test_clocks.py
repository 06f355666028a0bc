"""Clocks in which time passes when the test says so, or at once."""

from __future__ import annotations

import threading
import time

import pytest

from chatpool import ChatPool, ConfigurationError
from chatpool.clock import install_clock
from chatpool.testing import EachCall, Error, FakeClock, FakeServer, InstantClock, RateLimited


class Sleeper(threading.Thread):
    """Waits on a clock once, and keeps what came of it."""

    def __init__(self, clock, seconds, condition=None):
        super().__init__(daemon=True)
        self.clock, self.seconds = clock, seconds
        self.condition = condition or threading.Condition()
        self.result = self.woken_at = None
        self.start()

    def run(self):
        with self.condition:
            self.result = self.clock.wait(self.condition, self.seconds)
            self.woken_at = self.clock.now()

    def done(self):
        self.join(60)
        assert not self.is_alive()
        return self.result


def test_a_fake_clock_stands_still_until_it_is_advanced():
    clock = FakeClock(start=5, wall=1000)
    assert (clock.now(), clock.wall()) == (5, 1000)
    clock.advance(2.5)
    assert (clock.now(), clock.wall()) == (7.5, 1002.5)
    with pytest.raises(ConfigurationError, match="-1"):
        clock.advance(-1)


def test_a_wait_ends_when_its_time_has_come_and_not_before():
    clock = FakeClock()
    sleeper = Sleeper(clock, 10)
    clock.until_waiting()
    assert (clock.waiting, clock.next_due) == (1, 10)
    clock.advance(9.5)
    assert sleeper.is_alive()
    assert clock.next_due == 0.5
    clock.advance(0.5)
    assert sleeper.done() is False
    assert (clock.waiting, clock.next_due) == (0, None)


def test_a_notified_wait_ends_early():
    clock = FakeClock()
    sleeper = Sleeper(clock, 10)
    clock.until_waiting()
    with sleeper.condition:
        sleeper.condition.notify()
    assert sleeper.done() is True
    assert clock.now() == 0


def test_an_advance_wakes_all_that_are_due_and_no_other():
    clock = FakeClock()
    early, late = [Sleeper(clock, 1) for _ in range(3)], Sleeper(clock, 5)
    clock.until_waiting(4)
    clock.advance(2)
    assert [sleeper.done() for sleeper in early] == [False] * 3
    assert late.is_alive()
    assert clock.waiting == 1
    clock.advance(3)
    assert late.done() is False


def test_no_time_to_wait_is_no_wait():
    clock = FakeClock()
    for seconds in (0, -1):
        condition = threading.Condition()
        with condition:
            assert clock.wait(condition, seconds) is False


@pytest.mark.parametrize("clock", [FakeClock(), InstantClock()], ids=["fake", "instant"])
def test_a_wait_without_a_limit_ends_by_a_notification_alone(clock):
    condition, entered = threading.Condition(), threading.Event()
    results = []

    def wait():
        with condition:
            entered.set()
            results.append(clock.wait(condition))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert entered.wait(60)
    if isinstance(clock, FakeClock):
        clock.advance(1e6)
        assert clock.waiting == 0
    assert thread.is_alive()
    with condition:
        condition.notify_all()
    thread.join(60)
    assert results == [True]


def test_waiting_for_sleepers_in_vain_says_so():
    with pytest.raises(TimeoutError, match="for 1 waiting threads; 0 wait"):
        FakeClock().until_waiting(timeout=0.01)


def test_an_instant_clock_skips_a_wait():
    clock = InstantClock()
    before, real = clock.now(), time.monotonic()
    wall = clock.wall()
    assert Sleeper(clock, 300).done() is False
    assert clock.now() - before >= 300
    assert clock.wall() - wall >= 300
    assert time.monotonic() - real < 10
    assert 299 < clock.skipped <= 300


def test_an_instant_clock_lets_a_notification_come_first():
    clock = InstantClock(grace=10)
    condition = threading.Condition()
    with condition:
        notifier = Notifier(condition)
        assert clock.wait(condition, 100) is True
    notifier.join(60)
    assert clock.skipped == 0


class Notifier(threading.Thread):
    """Notifies a condition as soon as its lock is free."""

    def __init__(self, condition):
        super().__init__(daemon=True)
        self.condition = condition
        self.start()

    def run(self):
        with self.condition:
            self.condition.notify_all()


def test_an_instant_clock_keeps_the_order_of_what_happens():
    clock = InstantClock(grace=0.5)  # in which all three threads get to their waits
    condition = threading.Condition()
    with condition:
        sleepers = [Sleeper(clock, seconds, condition) for seconds in (30, 10, 20)]
        start = clock.now()
    for sleeper in sleepers:
        sleeper.done()
    # Started at almost the same time, they wake at 30, 10 and 20 seconds, not all at 30 or at their sum.
    assert [round((sleeper.woken_at - start) / 10) for sleeper in sleepers] == [3, 1, 2]


def test_an_instant_clock_does_not_skip_limits():
    clock = InstantClock(grace=0.001, longest=0.01)
    condition = threading.Condition()
    before = time.monotonic()
    with condition:
        assert clock.wait(condition, 0.02) is False
    assert time.monotonic() - before >= 0.02
    assert clock.skipped == 0


def test_an_instant_clock_does_not_skip_backwards_or_for_nothing():
    clock = InstantClock()
    condition = threading.Condition()
    with condition:
        assert clock.wait(condition, 0) is False
        assert clock.wait(condition, -5) is False
    assert clock.skipped == 0


def pool_for(server):
    return ChatPool("any-model", api_key="any", base_url=server.base_url)


def test_a_fake_clock_drives_the_waits_of_a_pool():
    clock = FakeClock()
    previous = install_clock(clock)
    try:
        with FakeServer([RateLimited(60)]) as server, pool_for(server) as pool:
            future = pool.submit("ping")
            clock.until_waiting()
            assert len(server.requests) == 1
            assert 60 <= clock.next_due < 90
            clock.advance(90)
            assert future.result(timeout=60).text == "ping"
            assert server.requests[1].time - server.requests[0].time == 90
    finally:
        install_clock(previous)


def test_an_instant_clock_takes_a_pool_through_a_bad_day():
    previous = install_clock(InstantClock())
    try:
        with FakeServer(EachCall(RateLimited(30), Error(503))) as server, pool_for(server) as pool:
            prompts = [f"prompt {number}" for number in range(20)]
            before = time.monotonic()
            assert [str(answer) for answer in pool.map(prompts)] == prompts
            assert time.monotonic() - before < 20
            assert server.requests[-1].time - server.requests[0].time > 30
    finally:
        install_clock(previous)
