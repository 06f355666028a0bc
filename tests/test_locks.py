"""Locks that know who has taken them."""

from __future__ import annotations

import threading
import weakref

import pytest

from chatpool._locks import Condition, is_held, new_lock, release_forgotten


def run_beside(function):
    """Call ``function`` in another thread, and wait for its end."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.mark.skipif(type(threading.RLock()).__module__ != "_thread", reason="gevent's event loop takes the signals")
def test_what_this_thread_left_taken_is_released_however_often():
    lock = new_lock()
    lock.acquire()
    lock.acquire()
    release_forgotten()
    assert not is_held(lock)
    taken = []
    run_beside(lambda: taken.append(lock.acquire(blocking=False)))
    assert taken == [True]


def test_what_another_thread_has_taken_is_left_to_it():
    lock = new_lock()
    run_beside(lock.acquire)
    release_forgotten()
    assert not lock.acquire(blocking=False)


def test_a_condition_is_entered_and_left_by_its_locks_own_functions():
    lock = new_lock()
    changed = Condition(lock)
    assert changed.__enter__.__self__ is lock
    with changed:
        assert is_held(lock)
    assert not is_held(lock)


@pytest.mark.parametrize("before", ["it waits", "the lock is given back", "the lock is taken again"])
def test_an_interrupted_wait_has_its_lock_again(before):
    """Whatever it was that an exception came before."""

    class Lock:
        """A lock that is interrupted once."""

        def __init__(self):
            self.inner = new_lock()

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def _release_save(self):
            if before == "the lock is given back":
                raise KeyboardInterrupt
            state = self.inner._release_save()
            if before == "it waits":
                raise KeyboardInterrupt
            return state

        def _acquire_restore(self, state):
            if before == "the lock is taken again":
                raise KeyboardInterrupt
            self.inner._acquire_restore(state)

    lock = Lock()
    changed = Condition(lock)
    with pytest.raises(KeyboardInterrupt), changed:
        changed.wait(0.001)
    assert not is_held(lock.inner)


def test_locks_are_not_kept_alive():
    lock = new_lock()
    alive = weakref.ref(lock)
    del lock
    assert alive() is None
