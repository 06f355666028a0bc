"""Everything at once, from many threads, against a server that misbehaves: what holds all the time, and at the end."""

from __future__ import annotations

import concurrent.futures
import random
import sys
import threading
from contextlib import contextmanager

import pytest

from chatpool import ChatPool, ChatPoolError, PoolClosedError, RetryPolicy, Timeout
from chatpool.testing import Delay, FakeServer, Faults

WORKERS = 6
USERS = 6
ROUNDS = 14
FAULTS = {503: 0.08, 429: 0.03, 400: 0.02, "reset": 0.02, "truncate": 0.02, "stall": 0.01, Delay(0.02): 0.2}


class Invariants:
    """Listens to every event and to every exchange, and notes what must not happen."""

    def __init__(self):
        self._lock = threading.Condition()
        self._flying = 0
        self._state = {}
        self._successes = 0
        self.most = 0
        self.broken = []

    @contextmanager
    def exchange(self):
        """Around each exchange; counted at the client, since a server hears late of a client that has left."""
        with self._lock:
            self._flying += 1
            self.most = max(self.most, self._flying)
        try:
            yield
        finally:
            with self._lock:
                self._flying -= 1

    def __call__(self, event):
        with self._lock:
            before = self._state.get(event.call_id, "new")
            self._successes += event.kind == "succeeded"
            self._lock.notify_all()
            if event.kind in ("succeeded", "failed"):
                if before == "ended":
                    self.broken.append(f"call {event.call_id} has ended twice")
                self._state[event.call_id] = "ended"
            elif event.kind == "sent" and before == "sent":
                self.broken.append(f"call {event.call_id} was sent while it was in flight")
            elif before != "ended":  # a cancel may overtake the report of an attempt
                self._state[event.call_id] = event.kind

    def wait_for_successes(self, count):
        """Return when so many calls have succeeded."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._successes >= count, 20)

    def unfinished(self):
        """Calls that were sent and have no end."""
        with self._lock:
            return [call for call, state in self._state.items() if state != "ended"]


class User:
    """One thread's worth of calls of every kind; checks what each of them gives back."""

    def __init__(self, pool, number):
        self._pool = pool
        self._random = random.Random(number)
        self._number = number
        self._made = 0
        self.problem = None

    def __call__(self):
        kinds = [self.chat, self.submit, self.map, self.raising_map, self.hurried_map, self.imap, self.left_imap]
        try:
            for _ in range(ROUNDS):
                self._random.choice(kinds)()
        except PoolClosedError:
            return  # what a call says that comes after the end
        except BaseException as error:
            self.problem = error

    def prompts(self, count):
        self._made += count
        return [f"{self._number}-{self._made - n}" for n in range(count)]

    def chat(self):
        (prompt,) = self.prompts(1)
        try:
            assert self._pool.chat(prompt).text == prompt
        except PoolClosedError:
            raise
        except ChatPoolError:
            return  # one of the faults, after all retries

    def submit(self):
        prompts = self.prompts(self._random.randrange(1, 30))
        futures = [self._pool.submit(prompt) for prompt in prompts]
        cancelled = self._random.sample(futures, len(futures) // 3)
        won = [future for future in cancelled if future.cancel()]
        done, pending = concurrent.futures.wait(futures, 30)
        assert not pending
        assert all(future.cancelled() for future in won)
        for prompt, future in zip(prompts, futures):
            if not future.cancelled() and future.exception() is None:
                assert future.result().text == prompt

    def map(self):
        prompts = self.prompts(self._random.randrange(1, 60))
        self.check(prompts, self._pool.map(prompts).outcomes)

    def raising_map(self):
        prompts = self.prompts(self._random.randrange(1, 60))
        try:
            outcomes = self._pool.map(prompts, on_error="raise").outcomes
        except ChatPoolError as error:
            outcomes = error.results.outcomes
        self.check(prompts[: len(outcomes)], outcomes)

    def hurried_map(self):
        prompts = self.prompts(self._random.randrange(1, 60))
        self.check(prompts, self._pool.map(iter(prompts), run_timeout=0.05).outcomes)

    def imap(self):
        prompts = self.prompts(self._random.randrange(1, 60))
        method = self._random.choice([self._pool.imap, self._pool.as_completed])
        rows = iter(prompts)
        outcomes = list(method(rows, buffersize=self._random.randrange(1, 20)))
        unread = list(rows)  # of an input without a length nothing more is read once the pool has ended
        assert self._pool_has_ended() or not unread
        read = prompts[: len(prompts) - len(unread)]
        if method == self._pool.imap:
            assert [outcome.index for outcome in outcomes] == list(range(len(read)))
        self.check(read, sorted(outcomes, key=lambda outcome: outcome.index))

    def _pool_has_ended(self):
        return "closed" in repr(self._pool)

    def left_imap(self):
        outcomes = self._pool.imap(self.prompts(40), buffersize=10)
        for _ in range(self._random.randrange(1, 20)):
            next(outcomes)
        outcomes.close()

    @staticmethod
    def check(prompts, outcomes):
        """Every input exactly one outcome, its own, in its place."""
        assert [outcome.item for outcome in outcomes] == prompts
        assert [outcome.index for outcome in outcomes] == list(range(len(prompts)))
        for outcome in outcomes:
            assert (outcome.error is None) != (outcome.value is None)
            assert outcome.error is not None or outcome.value.text == outcome.item


def _run(users):
    threads = [threading.Thread(target=user, name="user", daemon=True) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not [thread for thread in threads if thread.is_alive()], "a user hangs"
    assert [user.problem for user in users if user.problem is not None] == []


@pytest.fixture
def invariants():
    return Invariants()


@pytest.fixture(autouse=True)
def restless_threads():
    """Threads change places often, and in odd moments."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def pool(invariants, monkeypatch):
    with FakeServer(faults=Faults(FAULTS, seed=4)) as server:
        pool = ChatPool(
            "m",
            base_url=server.base_url,
            max_workers=WORKERS,
            timeout=Timeout(attempt=0.3, total=5),
            retry=RetryPolicy(max_retries=6, wait_initial=0.01, wait_max=0.05),
            listeners=[invariants],
        )
        exchange = pool._core.transport.exchange

        def counted(*args, **options):
            with invariants.exchange():
                return exchange(*args, **options)

        monkeypatch.setattr(pool._core.transport, "exchange", counted)
        yield pool
        pool.abort()


def _workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("chatpool")]


@pytest.mark.slow
@pytest.mark.parametrize("closed_by", ["close", "abort"])
def test_whatever_users_do_every_call_ends_once_and_nothing_is_left(pool, invariants, closed_by):
    users = [User(pool, number) for number in range(USERS)]
    _run(users)

    getattr(pool, closed_by)()
    for worker in _workers():
        worker.join(60)

    assert invariants.broken == []
    assert 1 < invariants.most <= WORKERS
    assert invariants.unfinished() == []
    stats = pool.stats()
    assert (stats.queued, stats.parked, stats.in_flight) == (0, 0, 0)
    assert stats.succeeded
    assert stats.failed
    assert stats.retried
    assert _workers() == []


def test_users_whose_pool_is_aborted_all_hear_of_it(pool, invariants):
    """Whatever a user is waiting for when the pool goes away, the wait ends."""

    def abort():
        invariants.wait_for_successes(150)
        pool.abort()

    aborting = threading.Thread(target=abort, name="abort", daemon=True)
    aborting.start()
    _run([User(pool, number) for number in range(USERS)])
    aborting.join(60)
    for worker in _workers():
        worker.join(60)

    assert invariants.broken == []
    assert invariants.most <= WORKERS
    assert pool._core.engine.counts() == (0, 0, 0)
    assert _workers() == []
