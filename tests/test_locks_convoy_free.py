"""Taking a lock without queueing for it."""

from __future__ import annotations

import sys
import threading

import pytest

from chatpool import _locks
from chatpool._locks import convoy_free

has_global_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or type(threading.Lock()).__module__ != "_thread" or not has_global_lock,
    reason="there it is the lock itself",
)


def test_one_thread_at_a_time_and_everybody_gets_it():
    lock, inside, counted = threading.Lock(), [], [0]
    guarded = convoy_free(lock)

    def work():
        for _ in range(500):
            with guarded:
                inside.append(threading.get_ident())
                assert len(inside) == 1
                counted[0] += 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == [16 * 500]
    assert not lock.locked()


def test_an_exception_lets_go_of_it():
    lock = threading.Lock()
    with pytest.raises(KeyError), convoy_free(lock):
        raise KeyError
    assert not lock.locked()


@pytest.fixture
def pauses(monkeypatch):
    """What is slept; ``pauses.then`` is called in each."""

    class Pauses(list):
        then = staticmethod(lambda: None)

        def sleep(self, seconds):
            self.append(seconds)
            self.then()

    noted = Pauses()
    monkeypatch.setattr(_locks, "sleep", noted.sleep)
    return noted


def test_who_finds_it_taken_pauses_and_tries_again(pauses):
    lock = threading.Lock()
    lock.acquire()
    pauses.then = lambda: len(pauses) == 3 and lock.release()
    with convoy_free(lock):
        assert lock.locked()
    assert len(pauses) == 3
    assert pauses[0] <= pauses[1] <= 0.001


def test_it_is_queued_for_when_it_is_held_for_long(pauses):
    lock = threading.Lock()
    lock.acquire()

    def patient():
        with convoy_free(lock):
            pass

    thread = threading.Thread(target=patient)
    tried = threading.Event()
    pauses.then = lambda: len(pauses) == len(_locks._PAUSES_SECONDS) and tried.set()
    thread.start()
    assert tried.wait(60)
    lock.release()
    thread.join(60)
    assert not thread.is_alive()
    assert 0.1 < sum(pauses) < 1  # seconds


def test_a_lock_of_somebody_elses_is_taken_as_it_is():
    class Greenlets:
        """As gevent's lock, whose threads never interrupt each other."""

    lock = Greenlets()
    assert convoy_free(lock) is lock


def test_an_rlock_may_be_taken_again_by_its_thread():
    lock = threading.RLock()
    with convoy_free(lock), convoy_free(lock), lock:
        pass
    assert lock.acquire(False)
    lock.release()
