"""Futures of single calls."""

from __future__ import annotations

import concurrent.futures
import contextvars
import threading

import pytest

from chatpool import BadRequestError, CallCancelledError, DeadlineExceededError, PoolClosedError, Timeout
from chatpool.testing import Error, RateLimited, Stall


def test_futures_work_with_concurrent_futures_own_functions(serve):
    _, pool = serve()
    futures = {pool.submit(str(number)): str(number) for number in range(20)}
    for future in concurrent.futures.as_completed(futures, timeout=60):
        assert future.result().text == futures[future]
    done, pending = concurrent.futures.wait(futures, timeout=10)
    assert (len(done), len(pending)) == (20, 0)


def test_a_failed_call_raises_its_error_with_a_cause(always):
    _, pool = always(Error(400))
    future = pool.submit("a")
    assert isinstance(future.exception(60), BadRequestError)
    with pytest.raises(BadRequestError):
        future.result()


def test_callbacks_are_called_with_the_future(serve):
    _, pool = serve()
    called = []
    future = pool.submit("a")
    future.add_done_callback(called.append)
    future.result(60)
    pool.close()
    assert called == [future]


def test_a_queued_call_can_be_cancelled_and_is_not_sent(always):
    server, pool = always(Stall(), max_workers=1)
    first, second = pool.submit("first"), pool.submit("second")
    server.wait_for(1)
    assert second.cancel()
    assert second.cancelled()
    assert first.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        second.result()
    assert len(server.requests) == 1


def test_a_parked_call_can_be_cancelled(serve):
    server, pool = serve(RateLimited(100, status=503))
    future = pool.submit("a")
    server.wait_until(lambda: len(server.requests) == 1 and server.in_flight == 0)
    assert future.cancel()
    assert concurrent.futures.wait([future], timeout=5).done
    assert pool.chat("b").text == "b"


def test_a_call_in_flight_can_be_cancelled_and_its_worker_is_free(serve):
    server, pool = serve(Stall(), max_workers=1)
    future = pool.submit("a")
    server.wait_for(1)
    assert future.running()
    assert future.cancel()
    assert pool.chat("b").text == "b"


def test_a_finished_call_cannot_be_cancelled(serve):
    _, pool = serve()
    future = pool.submit("a")
    future.result(60)
    assert not future.cancel()
    assert not future.cancelled()


def test_cancelling_twice_is_quiet(always, caplog):
    server, pool = always(Stall())
    future = pool.submit("a")
    assert future.cancel()
    assert future.cancel()
    assert caplog.records == []


def test_the_worker_sees_the_submitters_context_variables(serve):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []
    _, pool = serve(listeners=[lambda event: seen.append(variable.get())])
    variable.set("set")
    pool.chat("a")
    assert set(seen) == {"set"}


def test_close_finishes_what_was_submitted(serve):
    server, pool = serve(max_workers=2, latency=0.005)
    futures = [pool.submit(str(number)) for number in range(20)]
    pool.close()
    assert [future.result(0).text for future in futures] == [str(number) for number in range(20)]


def test_leaving_with_normally_finishes_and_leaving_by_an_exception_gives_up(serve):
    server, pool = serve(max_workers=1)
    server.set_script(lambda request: Stall())
    with pytest.raises(LookupError), pool:
        queued = [pool.submit("a") for _ in range(5)]
        server.wait_for(1)
        raise LookupError
    assert {type(future.exception(60)) for future in queued} == {PoolClosedError}


def test_workers_that_ctrl_c_kept_from_starting_are_asked_for_again(serve, monkeypatch):
    _, pool = serve(max_workers=8)
    executor = pool._core.engine._executor
    with monkeypatch.context() as patched:
        patched.setattr(executor, "submit", lambda work: (_ for _ in ()).throw(KeyboardInterrupt()))
        for _ in range(10):
            with pytest.raises(KeyboardInterrupt):
                pool.submit("interrupted")
    assert pool.submit("after").result(60).text == "after"


def test_abort_ends_calls_in_flight_parked_and_queued(serve):
    server, pool = serve(Error(503, headers={"retry-after": "100"}), max_workers=1)
    parked = pool.submit("parked")
    server.wait_until(lambda: len(server.requests) == 1 and server.in_flight == 0)
    server.set_script(lambda request: Stall())
    flying, queued = pool.submit("flying"), pool.submit("queued")
    server.wait_for(2)
    pool.abort()
    for future in (parked, flying, queued):
        assert isinstance(future.exception(60), PoolClosedError)


class TestTotalTime:
    def test_it_holds_for_a_call_that_waits_for_a_busy_worker(self, always):
        server, pool = always(Stall(), max_workers=1)
        pool.submit("busy")
        server.wait_for(1)
        waiting = [pool.submit("late", timeout=Timeout(total=seconds)) for seconds in (0.2, 0.1)]
        for future in waiting:
            assert isinstance(future.exception(60), DeadlineExceededError)
            assert "waited for a worker" in str(future.exception())
        assert len(server.requests) == 1

    def test_it_holds_for_calls_that_came_while_the_first_ones_were_being_started(self, always):
        _, pool = always(Stall(), max_workers=16)
        for number in range(16):
            pool.submit(f"patient {number}", timeout=Timeout(total=60))
        futures = [pool.submit(str(number), timeout=Timeout(total=0.5)) for number in range(20)]
        done, _ = concurrent.futures.wait(futures, timeout=20)
        assert len(done) == 20
        assert {type(future.exception()) for future in done} == {DeadlineExceededError}
        pool.abort()

    def test_its_thread_ends_with_the_last_call_it_watches(self, always):
        server, pool = always(Stall(), max_workers=1)
        pool.submit("busy")
        server.wait_for(1)
        pool.submit("late", timeout=Timeout(total=0.1)).exception(60)
        pool.abort()
        for thread in threading.enumerate():
            if thread.name == "chatpool-expiry":
                thread.join(60)
                assert not thread.is_alive()


class TestShutdown:
    def test_it_takes_no_more_calls_and_finishes_the_rest(self, serve):
        _, pool = serve(max_workers=1, latency=0.005)
        futures = [pool.submit(str(number)) for number in range(5)]
        pool.shutdown(wait=False)
        with pytest.raises(PoolClosedError):
            pool.submit("late")
        assert [future.result(60).text for future in futures] == [str(number) for number in range(5)]

    def test_cancel_futures_cancels_what_is_not_in_flight(self, serve):
        server, pool = serve(max_workers=1)
        gate = threading.Event()

        def reply(request):
            gate.wait(60)

        server.set_script(reply)
        flying, queued = pool.submit("flying"), pool.submit("queued")
        server.wait_for(1)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        assert flying.result(60).text == "flying"
        assert queued.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            queued.result(60)

    @pytest.mark.parametrize("call", ["chat", "responses", "embed", "request"])
    def test_callers_that_wait_without_a_future_get_an_error_of_ours(self, serve, call):
        server, pool = serve(max_workers=1)
        gate, caught = threading.Event(), []
        server.set_script(lambda request: gate.wait(60) and None)
        calls = {"request": lambda: pool.request("/moderations", {"input": "queued"})}

        def wait():
            try:
                calls.get(call, lambda: getattr(pool, call)("queued"))()
            except BaseException as error:
                caught.append(error)

        flying = pool.submit("flying")
        server.wait_for(1)
        waiter = threading.Thread(target=wait)
        waiter.start()
        while not pool.stats().queued:
            waiter.join(0.01)
        pool.shutdown(wait=False, cancel_futures=True)
        waiter.join(60)
        gate.set()
        flying.result(60)
        assert [(type(error), str(error)) for error in caught] == [
            (CallCancelledError, "the pool was shut down before the call was sent")
        ]
