"""A run by several processes: the same promises."""

from __future__ import annotations

import io
import itertools
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter

import pytest
from batch_rows import batch_line

import chatpool
from chatpool import Budget, ChatPool, ChatPoolError, ConfigurationError, Limits, Usage
from chatpool._journal.append_only import Tail
from chatpool.batch.process_pool import ProcessPoolRunner
from chatpool.testing import Answer, Delay, Error, FakeServer, RateLimited, Stall

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture
def run(chatpool_server, tmp_path):
    """``run(source, **options)`` runs it in two processes."""

    def start(source, **options):
        target = tmp_path / "out.jsonl"
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=8, retry=0, api_key="key") as pool:
            return chatpool.batch.run(source, target, pool=pool, processes=2, progress=False, **options)

    return start


class Unmakeable:
    """A listener that can be sent to another process, and is nothing there."""

    def __call__(self, event):
        pass

    def __reduce__(self):
        return int, ("no number",)


def children_of(process):
    """The processes that a process has started."""
    with open(f"/proc/{process}/task/{process}/children") as children:
        return [int(number) for number in children.read().split()]


def test_every_row_is_answered_once_in_one_output(run, write_rows, chatpool_server, ids, tmp_path):
    chatpool_server.set_script({"row 3": Error(400), "row 4": Error(503)})
    source = write_rows(300)
    result = run(source, in_order=True)
    assert (result.succeeded, result.failed, result.pending) == (298, 2, 0)
    assert ids(tmp_path / "out.jsonl") == [f"row {number}" for number in range(300) if number not in (3, 4)]
    assert sorted(ids(tmp_path / "out.errors.jsonl")) == ["row 3", "row 4"]
    assert Counter(request.prompt for request in chatpool_server.requests).most_common(1)[0][1] == 1
    assert {request.headers.get("authorization") for request in chatpool_server.requests} == {"Bearer key"}
    assert result.usage.total_tokens == 298 * 4
    chatpool_server.set_script(None)
    result = run(source)
    assert (result.succeeded, result.failed, result.done_before) == (299, 1, 299)


@pytest.mark.slow
def test_a_row_whose_record_cannot_be_read_is_done_once_more(
    run, write_rows, chatpool_server, monkeypatch, ids, tmp_path
):
    real, lost = Tail.at, []

    def at(tail, start, length):
        found = real(tail, start, length)
        if len(lost) < 2:
            lost.append(found)
            return None
        return found

    monkeypatch.setattr(Tail, "at", at)
    assert run(write_rows(100), in_order=True).succeeded == 100
    assert ids(tmp_path / "out.jsonl") == [f"row {number}" for number in range(100)]
    assert len(chatpool_server.requests) == 102


@pytest.mark.slow
def test_the_bar_has_what_was_retried_and_asked_again_up_to_the_end(write_rows, chatpool_server, tmp_path):
    shown, steps = io.StringIO(), [Error(500), Answer("no number"), Answer("7")]
    chatpool_server.set_script(steps)
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=8) as pool:
        result = chatpool.batch.run(
            write_rows(1), tmp_path / "out.jsonl", pool=pool, processes=2, parse=int, progress={"file": shown}
        )
    assert result.succeeded == 1
    assert "1 retried, 1 asked again" in shown.getvalue().split("\r")[-1]


@pytest.mark.slow
def test_a_journal_that_keeps_nothing_ends_the_run(run, write_rows, monkeypatch):
    monkeypatch.setattr(Tail, "at", lambda tail, start, length: None)
    with pytest.raises(ChatPoolError, match="does not keep what is written to it"):
        run(write_rows(100))


@pytest.mark.slow
def test_what_a_child_has_written_and_could_not_tell_is_found(run, write_rows, chatpool_server, monkeypatch):
    hear, killed = ProcessPoolRunner._on_message, []

    def deaf(runner, message, records):
        child, fact = message
        if fact is not None and "done" in fact and (child in killed or len(killed) < 2):
            killed.append(child)
            child.kill()
        else:
            hear(runner, message, records)

    monkeypatch.setattr(ProcessPoolRunner, "_on_message", deaf)
    result = run(write_rows(100))
    assert (result.succeeded, result.pending) == (100, 0)
    assert len(chatpool_server.requests) <= 100 + 2 * 4  # what the two had in flight


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_bar_says_why_the_calls_of_all_of_them_wait(processes, write_rows, chatpool_server, tmp_path):
    said = threading.Event()

    class Shown(io.StringIO):
        def write(self, text):
            if "server asks to wait" in text and " retried" in text:
                said.set()
            return super().write(text)

    chatpool_server.set_script(
        lambda request: None if said.is_set() or len(chatpool_server.requests) > 60 else RateLimited(1)
    )
    shown = Shown()
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=8) as pool:
        result = chatpool.batch.run(
            write_rows(40),
            tmp_path / "out.jsonl",
            pool=pool,
            processes=processes,
            progress={"file": shown, "ncols": 120},
        )
    assert result.succeeded == 40
    assert said.is_set()
    last = shown.getvalue().split("\r")[-1]
    assert "40/40" in last
    assert "server asks" not in last


@pytest.mark.slow
def test_the_workers_are_shared_out(write_rows, tmp_path):
    all_at_once = threading.Barrier(5)
    count = itertools.count()

    def first_five_together(request):
        if next(count) < 5:
            all_at_once.wait(60)

    with FakeServer(first_five_together) as server, ChatPool("m", base_url=server.base_url, max_workers=5) as pool:
        chatpool.batch.run(write_rows(100), tmp_path / "out.jsonl", pool=pool, processes=2, progress=False)
    assert server.max_in_flight == 5
    assert server.connections <= 5


@pytest.mark.slow
def test_there_may_be_many_more_rows_than_a_child_looks_ahead(run, write_rows):
    assert run(write_rows(3000)).succeeded == 3000


@pytest.mark.slow
def test_rows_that_cannot_be_sent_are_failures_there_too(run, tmp_path, ids):
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"prompt": "a"}\n{"messages": [{"role": "user", "content": "b"}], "stream": true}\n{"prompt": "c"}\n'
    )
    for done_before in (0, 3):
        result = run(source)
        assert (result.succeeded, result.failed, result.done_before) == (2, 1, done_before)
    assert ids(tmp_path / "out.errors.jsonl") == ["row-2"]


@pytest.mark.slow
def test_embeddings_are_packed_there_too(run, tmp_path, chatpool_server):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text {number}\n" for number in range(200)))
    assert run(source, url="/v1/embeddings").succeeded == 200
    assert len(chatpool_server.requests) < 100


@pytest.mark.slow
def test_a_fatal_error_ends_all_of_them(run, write_rows, chatpool_server):
    chatpool_server.set_script(Error(401))
    result = run(write_rows(500))
    assert type(result.fatal).__name__ == "AuthenticationError"
    assert len(chatpool_server.requests) <= 8
    assert result.pending == 500 - result.failed
    chatpool_server.set_script(None)
    assert run(write_rows(500)).succeeded == 500


@pytest.mark.slow
def test_an_error_that_ends_one_model_ends_its_rows_in_all_of_them(run, tmp_path, chatpool_server):
    missing = Error(404, code="model_not_found")
    chatpool_server.set_script(lambda request: missing if request.body["model"] == "gone" else None)
    source = tmp_path / "in.jsonl"
    lines = [batch_line(f"row {number}", "hi", model="gone" if number % 2 else "m") for number in range(300)]
    source.write_text("".join(lines))
    result = run(source)
    assert type(result.fatal).__name__ == "NotFoundError"
    assert result.succeeded == 150
    assert result.failed + result.pending == 150
    assert sum(request.body["model"] == "gone" for request in chatpool_server.requests) <= 8


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_in_flight_when_another_finds_the_end_is_kept(run, write_rows, chatpool_server):
    chatpool_server.set_script(lambda request: Error(401) if request.number == 30 else Delay(0.1, Answer("paid")))
    result = run(write_rows(300))
    assert type(result.fatal).__name__ == "AuthenticationError"
    assert result.succeeded == len(chatpool_server.requests) - 1


@pytest.mark.slow
def test_limits_hold_for_all_of_them_together(write_rows, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    limits = Limits(requests_per_minute=3000, burst=0.1)
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, max_workers=8, limits=limits) as pool:
        result = chatpool.batch.run(write_rows(100), tmp_path / "out.jsonl", pool=pool, processes=2, progress=False)
        times = [request.time for request in server.requests]
    assert result.succeeded == 100
    assert times[-1] - times[0] >= 1.8
    assert list((tmp_path / "cache").rglob("*.quota")) == []


@pytest.mark.slow
def test_limits_are_divided_where_no_file_can_be_shared(write_rows, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    limits = Limits(requests_per_minute=3000, burst=0.1)
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, max_workers=8, limits=limits) as pool:
        result = chatpool.batch.run(write_rows(100), tmp_path / "out.jsonl", pool=pool, processes=2, progress=False)
        times = [request.time for request in server.requests]
    assert result.succeeded == 100
    assert times[-1] - times[0] >= 1.6


@pytest.mark.slow
def test_the_budget_holds_for_all_of_them_together(write_rows, tmp_path):
    usage = {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    answer = Answer(body={"object": "chat.completion", "choices": [choice], "usage": usage})
    options = {"max_workers": 8, "budget": Budget(tokens=5000), "defaults": {"max_tokens": 60}}
    with FakeServer(answer) as server, ChatPool("m", base_url=server.base_url, **options) as pool:
        result = chatpool.batch.run(write_rows(300), tmp_path / "out.jsonl", pool=pool, processes=2, progress=False)
        sent = len(server.requests)
    assert type(result.fatal).__name__ == "BudgetExceededError"
    assert result.usage.total_tokens <= 5000 + 8 * 100
    assert 45 <= result.succeeded == sent
    assert result.pending == 300 - sent


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_money_is_counted_alike_by_one_process_and_by_several(processes, write_rows, tmp_path):
    usage = {"prompt_tokens": 50, "completion_tokens": "10", "total_tokens": 1050.0}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    answer = Answer(body={"object": "chat.completion", "model": "m-2026-01-01", "choices": [choice], "usage": usage})
    target, prices = tmp_path / "out.jsonl", {"m": (1.0, 2.0)}
    with FakeServer(answer) as server, ChatPool("m", base_url=server.base_url) as pool:
        options = {"pool": pool, "processes": processes, "prices": prices, "progress": False}
        result = chatpool.batch.run(write_rows(30), target, **options)
    report = chatpool.batch.report(target, prices=prices)
    assert result.usage == report.usage == Usage(30 * 50, 30 * 1000, 30 * 1050)
    assert result.cost == report.cost == pytest.approx(30 * 2050e-6)
    assert "31,500 tokens; $0.06" in result.summary()


@pytest.mark.slow
def test_a_row_without_a_price_fails_alone(tmp_path):
    source = tmp_path / "in.jsonl"
    lines = [batch_line(f"row {number}", "hi", model="dear" if number % 2 else "m") for number in range(100)]
    source.write_text("".join(lines))
    budget = Budget(cost=1.0, prices={"m": (1.0, 1.0)})
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, max_workers=8, budget=budget) as pool:
        result = chatpool.batch.run(source, tmp_path / "out.jsonl", pool=pool, processes=2, progress=False)
        assert {request.body["model"] for request in server.requests} == {"m"}
    assert (result.succeeded, result.failed, result.fatal) == (50, 50, None)


@pytest.mark.slow
def test_a_pool_that_cannot_be_made_there_is_refused(chatpool_server, write_rows, tmp_path):
    options = {"base_url": chatpool_server.base_url, "listeners": [Unmakeable()], "processes": 2}
    with pytest.raises(ConfigurationError, match="cannot be made in another process"):
        chatpool.batch.run(write_rows(1), tmp_path / "out.jsonl", **options)


def test_a_pool_that_cannot_be_sent_is_refused(chatpool_server, write_rows, tmp_path):
    options = {"base_url": chatpool_server.base_url, "listeners": [lambda event: None], "processes": 2}
    with pytest.raises(ConfigurationError, match="leave out processes"):
        chatpool.batch.run(write_rows(1), tmp_path / "out.jsonl", **options)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.slow
def test_the_rows_of_a_child_that_dies_are_done_by_another(start_run, chatpool_server, write_rows, ids, tmp_path):
    chatpool_server.set_script(lambda request: Stall() if request.number == 100 else None)
    process = start_run(chatpool_server, write_rows(400), tmp_path / "out.jsonl", "--processes", 2)
    chatpool_server.wait_for(200, timeout=60)
    for child in children_of(process.pid):
        os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sorted(ids(tmp_path / "out.jsonl")) == sorted(f"row {number}" for number in range(400))
    assert len(chatpool_server.requests) <= 400 + 16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.slow
def test_after_a_kill_of_the_parent_the_children_end_and_the_same_command_goes_on(
    start_run, chatpool_server, write_rows, ids, tmp_path
):
    source, target = write_rows(400), tmp_path / "out.jsonl"
    chatpool_server.set_script(lambda request: Stall() if request.number >= 150 else None)
    process = start_run(chatpool_server, source, target, "--processes", 2)
    chatpool_server.wait_for(166, timeout=60)
    process.kill()
    process.wait()
    chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=60)
    chatpool_server.set_script(None)
    process = start_run(chatpool_server, source, target, "--processes", 2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sorted(ids(target)) == sorted(f"row {number}" for number in range(400))
    assert len(chatpool_server.requests) == 400 + 16


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_child_that_is_killed_when_all_is_done_is_no_trouble(start_run, chatpool_server, write_rows, ids, tmp_path):
    chatpool_server.set_script(lambda request: Stall() if request.number == 99 else None)
    process = start_run(chatpool_server, write_rows(100), tmp_path / "out.jsonl", "--processes", 2)
    chatpool_server.wait_for(100, timeout=60)
    chatpool_server.wait_until(lambda: chatpool_server.in_flight == 1, timeout=60)
    chatpool_server.set_script(None)
    for child in children_of(process.pid):  # one of them has nothing left to do
        os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(ids(tmp_path / "out.jsonl")) == 100


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_children_that_keep_dying_end_the_run(start_run, chatpool_server, write_rows, tmp_path):
    chatpool_server.set_script(Stall())
    process = start_run(chatpool_server, write_rows(100), tmp_path / "out.jsonl", "--processes", 2)
    chatpool_server.wait_for(8, timeout=60)
    for _ in range(4):
        child = children_of(process.pid)[0]
        os.kill(child, signal.SIGKILL)
        while child in children_of(process.pid):  # until then the next one would be the same
            time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "keep dying, the last one with exit code -9" in err


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ctrl_c_ends_a_child_that_does_not_listen(start_run, chatpool_server, write_rows, tmp_path):
    chatpool_server.set_script(lambda request: Stall() if request.number >= 50 else None)
    process = start_run(chatpool_server, write_rows(400), tmp_path / "out.jsonl", "--processes", 2)
    chatpool_server.wait_for(66, timeout=60)
    for child in children_of(process.pid):
        os.kill(child, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "50 of 400 rows answered; 350 pending" in err


@pytest.mark.slow
def test_a_full_disk_is_said_by_the_child_that_finds_it(start_run, chatpool_server, write_rows, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    chatpool_server.set_script(None)
    process = start_run(
        chatpool_server, write_rows(1000), tmp_path / "out.jsonl", "--processes", 2, preexec_fn=small_files
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "out.journal: File too large; what was finished before is kept" in err
    assert "Traceback" not in err
    assert len(chatpool_server.requests) < 500


def test_ctrl_c_ends_all_of_them_with_everything_on_disk(start_run, chatpool_server, write_rows, ids, tmp_path):
    chatpool_server.set_script(lambda request: Stall() if request.number >= 150 else None)
    process = start_run(chatpool_server, write_rows(400), tmp_path / "out.jsonl", "--processes", 2)
    chatpool_server.wait_for(166, timeout=60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "150 of 400 rows answered; 250 pending" in err
    assert len(ids(tmp_path / "out.jsonl")) == 150
    chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=60)
