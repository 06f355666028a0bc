"""Callbacks, listeners, inputs and endings at the worst moment: each call has its one outcome, and nothing hangs."""

from __future__ import annotations

import contextvars
import dataclasses
import itertools
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from chatpool import BadRequestError, DeadlineExceededError, PoolClosedError, RetryPolicy, Timeout
from chatpool._engine import Engine
from chatpool._engine.upstream import CallQueue
from chatpool._transport import Transport
from chatpool.testing import Error, RateLimited, Stall


@pytest.fixture
def heard():
    """A listener that keeps every event, as (kind, call_id)."""

    class Heard(list):
        def __call__(self, event):
            self.append((event.kind, event.call_id))

    return Heard()


MANY = 20_000  # outcomes: more than a run yields that ends


def endless():
    return (str(number) for number in itertools.count())


def succeeds_within(seconds, server, predicate):
    """Whether it becomes true in time; for callbacks, whose exceptions nobody sees."""
    try:
        server.wait_until(predicate, seconds)
    except TimeoutError:
        return False
    return True


class TestOutages:
    """A gate closes after some 13 failures in a row with two workers; probes follow after 0.25 and 0.5 s more."""

    CLOSED = 14  # requests: those whose failure closed the gate, and one that was on its way

    @pytest.mark.slow
    def test_probes_are_sent_although_the_server_wants_to_be_left_alone_for_long(self, always):
        server, pool = always(Error(503, headers={"Retry-After": "100"}), max_workers=2)
        futures = [pool.submit(str(number)) for number in range(60)]
        server.wait_for(self.CLOSED + 2)
        server.set_script(None)
        server.wait_until(lambda: len(server.requests) > 40, 60)
        assert any(future.done() for future in futures)

    def test_a_callback_of_the_probe_that_succeeds_does_not_hold_up_the_others(self, always):
        server, pool = always(Error(503), max_workers=2)
        noticed, once = [], threading.Lock()

        def linger(future):
            if not future.cancelled() and future.exception() is None and once.acquire(blocking=False):
                seen = len(server.requests)
                noticed.append(succeeds_within(30, server, lambda: len(server.requests) > seen + 5))

        futures = [pool.submit(str(number)) for number in range(60)]
        for future in futures:
            future.add_done_callback(linger)
        server.wait_for(self.CLOSED + 1)
        server.set_script(None)
        wait(futures, 60)
        assert noticed == [True]

    def test_a_callback_of_a_probe_that_fails_for_good_does_not_hold_up_the_next_probe(self, always):
        server, pool = always(Error(503), max_workers=2, retry=0)
        probed, noticed = threading.Event(), []

        def linger(future):
            if not probed.is_set() and len(server.requests) > self.CLOSED:
                probed.set()
                seen = len(server.requests)
                noticed.append(succeeds_within(30, server, lambda: len(server.requests) > seen))

        futures = [pool.submit(str(number)) for number in range(40)]
        for future in futures:
            future.add_done_callback(linger)
        assert probed.wait(60)
        server.set_script(None)
        wait(futures, 60)
        assert noticed == [True]

    def test_attempts_cut_by_their_callers_own_limit_do_not_count_as_failures_of_the_server(self, always):
        _, pool = always(Stall(), max_workers=4)
        results = pool.map(["a"] * 24, timeout=Timeout(total=0.05))
        assert {type(outcome.error) for outcome in results.outcomes} == {DeadlineExceededError}
        assert [outcome.attempts for outcome in results.outcomes] == [1] * 24  # the server need not have read them all
        assert [line.failure_streak for line in pool.stats().lines.values()] == [0]


class TestCallbacksAndListeners:
    @pytest.mark.parametrize("kind", ["sent", "succeeded"])
    def test_a_listener_that_exits_loses_no_outcome(self, serve, kind):
        def leave(event):
            if event.kind == kind:
                sys.exit(1)

        _, pool = serve(listeners=[leave], max_workers=1)
        assert pool.submit("a").result(60).text == "a"
        assert pool.submit("b").result(60).text == "b"

    def test_a_listener_that_exits_loses_no_outcome_of_a_call_made_in_a_worker(self, serve, within):
        armed, answered = threading.Event(), threading.Event()

        def leave(event):
            if event.kind == "succeeded" and armed.is_set():
                sys.exit(1)

        _, pool = serve(listeners=[leave], max_workers=1)
        texts = []

        def call_again(future):
            armed.set()
            texts.append(pool.chat("inner").text)
            answered.set()

        pool.submit("outer").add_done_callback(call_again)
        assert answered.wait(60)
        assert texts == ["inner"]
        within(60, pool.close)

    def test_an_after_call_hook_that_exits_costs_no_worker(self, serve):
        _, pool = serve(max_workers=1, after_call=sys.exit)
        futures = [pool.submit(name) for name in "abc"]
        assert [future.result(60).text for future in futures] == ["a", "b", "c"]
        assert pool.submit("d").result(60).text == "d"

    def test_a_callback_of_a_cancelled_call_can_use_the_worker_that_the_call_had(self, serve, within):
        server, pool = serve(Stall(), max_workers=1)
        future = pool.submit("a")
        server.wait_for(1)
        texts = []
        future.add_done_callback(lambda _: texts.append(pool.submit("b").result(30).text))
        assert within(60, future.cancel)
        assert texts == ["b"]

    def test_the_end_of_a_failed_call_is_reported_in_the_context_of_its_submitter(self, always):
        variable = contextvars.ContextVar("variable", default="unset")
        seen = []
        _, pool = always(Error(400), listeners=[lambda event: seen.append((event.kind, variable.get()))])
        variable.set("set")
        with pytest.raises(BadRequestError):
            pool.chat("a")
        assert seen == [("queued", "set"), ("sent", "set"), ("failed", "set")]

    def test_nothing_is_reported_of_a_call_after_its_end(self, always, heard):
        submitted, box = threading.Event(), []

        def cancel_instead(error):
            submitted.wait(60)
            return box[0].cancel()

        _, pool = always(Error(503), listeners=[heard])
        box.append(pool.submit("a", retry=RetryPolicy(retry_if=cancel_instead)))
        submitted.set()
        wait(box, 60)
        pool.close()
        assert [kind for kind, _ in heard] == ["queued", "sent", "failed"]

    def test_outcomes_are_waited_for_while_a_listener_has_them(self, serve):
        inside, release = threading.Event(), threading.Event()

        def linger(event):
            if event.kind == "succeeded":
                inside.set()
                release.wait(1)  # nobody releases it: it takes its second

        _, pool = serve(max_workers=1, listeners=[linger])

        def rows():
            yield "a"
            yield "b"
            inside.wait(60)
            raise LookupError

        with pytest.raises(LookupError) as caught:
            pool.map(rows())
        assert [outcome.index for outcome in caught.value.results.outcomes] == [0, 1]


class TestInterruptions:
    """Ctrl-C in the middle of handing over a call."""

    @pytest.fixture
    def interrupt_once(self, monkeypatch):
        """``interrupt_once(owner, name)`` makes the next use of the method end in Ctrl-C."""

        def replace(owner, name):
            def interrupt(*arguments):
                monkeypatch.undo()
                raise KeyboardInterrupt

            monkeypatch.setattr(owner, name, interrupt)

        return replace

    @pytest.mark.parametrize("method", ["submit", "chat"])
    def test_the_pool_is_usable_after_a_call_that_got_no_worker(self, serve, within, interrupt_once, method):
        _, pool = serve(max_workers=1)
        interrupt_once(ThreadPoolExecutor, "submit")
        with pytest.raises(KeyboardInterrupt):
            getattr(pool, method)("a")
        assert pool.submit("b").result(60).text == "b"
        within(60, pool.close)

    def test_the_pool_can_be_closed_after_a_call_that_did_not_reach_its_queue(self, serve, within, interrupt_once):
        _, pool = serve(max_workers=1)
        interrupt_once(CallQueue, "add")
        with pytest.raises(KeyboardInterrupt):
            pool.submit("a")
        assert pool.submit("b").result(60).text == "b"
        assert pool.stats().queued == 0
        within(60, pool.close)

    @pytest.mark.parametrize(
        "moment", [(ThreadPoolExecutor, "submit"), (CallQueue, "add")], ids=["no worker", "no queue"]
    )
    def test_a_run_keeps_every_outcome_and_the_pool_is_usable_afterwards(self, serve, within, interrupt_once, moment):
        _, pool = serve(max_workers=1)
        interrupt_once(*moment)
        with pytest.raises(KeyboardInterrupt) as caught:
            pool.map(["a", "b"])
        assert [outcome.index for outcome in caught.value.results.outcomes] == [0, 1]
        assert [answer.text for answer in within(60, pool.map, ["c", "d"])] == ["c", "d"]
        within(60, pool.close)


class TestInput:
    def test_messages_changed_after_submit_are_sent_as_they_were(self, serve):
        server, pool = serve(max_workers=1)
        sent = threading.Event()
        server.set_script(lambda request: sent.wait(60) and None)
        first = pool.submit("first")
        messages = [{"role": "user", "content": "as it was"}]
        future = pool.submit(messages)
        messages[0]["content"] = "changed"
        messages.append({"role": "assistant", "content": "more"})
        sent.set()
        assert first.result(60).text == "first"
        assert future.result(60).text == "as it was"

    def test_one_row_that_the_input_fills_again_and_again_is_sent_as_it_was_each_time(self, serve):
        _, pool = serve()

        def rows():
            row = {"messages": [{"role": "user", "content": ""}]}
            for number in range(20):
                row["messages"][0]["content"] = str(number)
                yield row

        assert [answer.text for answer in pool.map(rows())] == [str(number) for number in range(20)]

    def test_an_exception_of_the_input_that_takes_no_attributes_is_raised_as_it_is(self, serve):
        @dataclasses.dataclass(frozen=True)
        class Frozen(Exception):
            code: int = 1

        _, pool = serve()

        def rows():
            yield "a"
            raise Frozen

        with pytest.raises(Frozen):
            pool.map(rows())

    def test_the_results_on_a_raised_error_survive_pickling(self, always):
        _, pool = always(Error(400))
        with pytest.raises(BadRequestError) as caught:
            pool.map(["a", "b"], on_error="raise")
        again = pickle.loads(pickle.dumps(caught.value))
        assert [outcome.item for outcome in again.results.outcomes] == ["a", "b"]

    @pytest.mark.parametrize("method", ["imap", "as_completed"])
    def test_an_endless_input_ends_with_the_time_of_the_run(self, serve, method):
        _, pool = serve()
        outcomes = getattr(pool, method)(endless(), run_timeout=0.1, buffersize=8)
        assert len(list(itertools.islice(outcomes, MANY))) < MANY

    @pytest.mark.parametrize("method", ["imap", "as_completed"])
    def test_an_endless_input_ends_with_the_pool(self, serve, method):
        _, pool = serve()
        outcomes = getattr(pool, method)(endless(), buffersize=8)
        assert next(outcomes).ok
        pool.shutdown(wait=False)
        assert len(list(itertools.islice(outcomes, MANY))) < MANY

    def test_a_bar_is_drawn_when_the_first_outcome_is_asked_for(self, serve, capsys):
        _, pool = serve()
        outcomes = pool.imap(["a"], progress=True)
        assert capsys.readouterr().err == ""
        assert next(outcomes).ok
        assert capsys.readouterr().err != ""
        outcomes.close()


class TestEndings:
    def test_close_finishes_what_a_run_of_another_thread_has_submitted(self, serve):
        server, pool = serve(max_workers=4)
        read, closed = threading.Event(), threading.Event()
        server.set_script(lambda request: (read if request.prompt == "0" else closed).wait(60) and None)

        def rows():
            for row in endless():
                if row == "7":
                    read.set()
                yield row

        outcomes = pool.imap(rows(), buffersize=8)
        next(outcomes)
        pool.shutdown(wait=False)
        closed.set()
        errors = [outcome.error for outcome in itertools.islice(outcomes, MANY)]
        assert errors[:7] == [None] * 7
        assert {type(error) for error in errors[7:]} <= {type(None), PoolClosedError}

    def test_a_call_that_is_submitted_while_the_pool_is_aborted_has_an_outcome(self, serve, within, monkeypatch):
        """It passes the check for a closed pool before, and reaches the queue in the middle of abort()."""
        _, pool = serve(max_workers=1)
        checked, aborted = threading.Event(), threading.Event()
        in_worker, abort = Engine.in_worker, Transport.abort

        def check(engine):
            checked.set()
            aborted.wait(60)
            return in_worker(engine)

        def abort_in_between(transport):
            abort(transport)
            aborted.set()
            submitting.result(60)

        monkeypatch.setattr(Engine, "in_worker", check)
        with ThreadPoolExecutor(1) as other:
            submitting = other.submit(pool.submit, "late")
            assert checked.wait(60)
            monkeypatch.setattr(Engine, "in_worker", in_worker)
            monkeypatch.setattr(Transport, "abort", abort_in_between)
            within(60, pool.abort)
            assert isinstance(submitting.result(60).exception(60), PoolClosedError)

    def test_a_submit_that_the_closed_pool_refuses_does_not_keep_it_from_closing(self, serve, within):
        _, pool = serve()
        pool.close()
        with pytest.raises(PoolClosedError):
            pool.submit("a")
        within(60, pool.close)
        stats = pool.stats()
        assert (stats.queued, stats.parked, stats.in_flight) == (0, 0, 0)

    def test_an_iterator_that_was_left_gives_its_workers_back(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(lambda request: Stall() if request.prompt == "1" else None)
        for _ in pool.imap(["0", "1", "2"]):
            server.wait_for(2)
            break
        assert pool.chat("next", timeout=Timeout(total=60)).text == "next"

    def test_close_does_not_wait_for_calls_in_flight_of_an_iterator_that_was_left(self, serve, within):
        server, pool = serve(max_workers=4)
        server.set_script(lambda request: None if request.prompt == "0" else Stall())
        for _ in pool.imap([str(number) for number in range(8)]):
            break
        within(60, pool.close)

    def test_close_does_not_wait_for_parked_calls_of_an_iterator_that_was_left(self, serve, within):
        retrying = threading.Semaphore(0)

        class Retries:
            kinds = ("retrying",)

            def __call__(self, event):
                retrying.release()

        server, pool = serve(max_workers=4, listeners=[Retries()])
        server.set_script(lambda request: None if request.prompt == "0" else RateLimited(110))
        for _ in pool.imap([str(number) for number in range(4)]):
            assert retrying.acquire(timeout=60)
            break
        within(60, pool.close)

    def test_a_pool_that_was_shut_down_without_waiting_lets_go_of_its_connections(self, serve):
        server, pool = serve(max_workers=2)
        going = threading.Event()
        server.set_script(lambda request: going.wait(60) and None)
        futures = [pool.submit(str(number)) for number in range(6)]
        pool.shutdown(wait=False)
        going.set()
        assert [future.result(60).text for future in futures] == [str(number) for number in range(6)]
        server.wait_until(lambda: server.open_connections == 0, 60)

    def test_a_pool_that_a_callback_closes_lets_go_of_its_connections(self, serve):
        server, pool = serve(max_workers=2)
        pool.submit("a").add_done_callback(lambda _: pool.close())
        server.wait_until(lambda: server.connections and server.open_connections == 0, 60)

    def test_a_call_for_which_there_is_no_thread_says_so(self, serve, monkeypatch):
        _, pool = serve()

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            future = pool.submit("a")
        with pytest.raises(PoolClosedError, match="can't start new thread"):
            future.result(60)
        assert pool.submit("b").result(60).text == "b"
