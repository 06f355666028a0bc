"""Shards as tasks of Celery's, with Debian's Redis between: nothing is lost or done twice, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from chatpool.batch import shards
from chatpool.testing import Error
from tests.deploy.shard_files import Gate, check, write_rows

pytestmark = pytest.mark.deploy

ROWS, SHARD_ROWS, MAX_WORKERS = 120, 30, 4
POOLS = ["prefork", "threads", "gevent"]


@pytest.fixture
def source(tmp_path):
    return write_rows(tmp_path / "big.jsonl", ROWS)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def environment(server, redis):
    return {"CHAT_URL": server.base_url, "REDIS_URL": redis, "C_FORCE_ROOT": "yes"}


@pytest.fixture
def start_worker(python, environment):
    """``start_worker(pool, **environment)`` starts a worker of two tasks at once, and waits until it is ready."""

    def start(pool="prefork", concurrency=2, **more):
        worker = python(
            *("-m", "celery", "--app", "celery_shards", "worker", "--pool", pool, "--concurrency", str(concurrency)),
            *("--loglevel", "INFO", "--without-mingle", "--without-gossip", "--hostname", f"{len(started)}@tests"),
            **{**environment, **more},
        )
        started.append(worker)
        worker.wait_for(r"\d@tests ready\.")
        return worker

    started = []
    return start


@pytest.fixture
def client(python, environment):
    """``client(task, *arguments)`` starts a program that sends tasks; its last line is their results."""
    return lambda *arguments: python("celery_shards.py", *map(str, arguments), **environment)


def results_of(client):
    assert client.ended(240) == 0, client.output
    return json.loads(client.output.splitlines()[-1])


def children_of(process):
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("pool", [pytest.param("prefork", marks=pytest.mark.smoke), "threads", "gevent"])
def test_a_file_is_answered_by_a_worker(server, source, work, start_worker, client, pool):
    worker = start_worker(pool)
    results = results_of(client("answer", "submit", source, work, SHARD_ROWS))
    assert [(result["shard"], result["rows"], result["succeeded"], result["fatal"]) for result in results] == [
        (index, SHARD_ROWS, SHARD_ROWS, None) for index in range(ROWS // SHARD_ROWS)
    ]
    check(server, work, ROWS)
    again = results_of(client("answer", "submit", source, work, SHARD_ROWS))
    assert [result["done_before"] for result in again] == [SHARD_ROWS] * 4
    check(server, work, ROWS)
    assert worker.end() == 0
    assert "Traceback" not in worker.output
    server.wait_until(lambda: server.open_connections == 0)


@pytest.mark.parametrize("pool", POOLS)
def test_two_deliveries_at_once_send_nothing_twice(server, source, work, start_worker, client, pool):
    gate = Gate(10)
    server.set_script(gate)
    shards.split(source, work, rows=ROWS)
    worker = start_worker(pool)
    sender = client("answer", "shards", work, 0, 0)
    worker.wait_for(r"Task celery_shards\.answer\S+ retry")
    gate.opened.set()
    first, second = results_of(sender)
    assert (first["succeeded"], second["succeeded"]) == (ROWS, ROWS)
    assert sorted([first["done_before"], second["done_before"]]) == [0, ROWS]
    check(server, work, ROWS)


def test_a_child_that_is_killed_loses_nothing(server, source, work, start_worker, client):
    gate = Gate(50)
    server.set_script(gate)
    worker = start_worker()
    sender = client("answer", "submit", source, work, SHARD_ROWS)
    gate.wait_until_waiting(2 * MAX_WORKERS)
    os.kill(children_of(worker.pid)[0], signal.SIGKILL)
    gate.opened.set()
    assert [result["succeeded"] for result in results_of(sender)] == [SHARD_ROWS] * 4
    check(server, work, ROWS, repeated=MAX_WORKERS)


def test_a_whole_worker_that_is_killed_loses_nothing(server, source, work, start_worker, client):
    gate = Gate(50)
    server.set_script(gate)
    worker = start_worker(VISIBILITY="2")
    sender = client("answer", "submit", source, work, SHARD_ROWS)
    gate.wait_until_waiting(2 * MAX_WORKERS)
    worker.kill()
    gate.opened.set()
    start_worker(VISIBILITY="2")
    assert [result["succeeded"] for result in results_of(sender)] == [SHARD_ROWS] * 4
    check(server, work, ROWS, repeated=2 * MAX_WORKERS)


def test_deliveries_that_come_again_while_a_shard_runs_send_nothing_twice(server, source, work, start_worker, client):
    gate = Gate(10)
    server.set_script(gate)
    shards.split(source, work, rows=ROWS)
    worker = start_worker("threads", VISIBILITY="1")
    sender = client("answer", "shards", work, 0)
    worker.wait_for(r"(?s)(Task celery_shards\.answer\S+ retry.*){2}")  # while the first delivery runs
    gate.opened.set()
    assert results_of(sender)[0]["succeeded"] == ROWS
    check(server, work, ROWS)


def test_a_worker_that_is_asked_to_end_finishes_its_shards(server, source, work, start_worker, client):
    gate = Gate(50)
    server.set_script(gate)
    worker = start_worker()
    sender = client("answer", "submit", source, work, SHARD_ROWS)
    gate.wait_until_waiting(2 * MAX_WORKERS)
    worker.signal(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    gate.opened.set()
    assert worker.ended() == 0
    states = [each.pending for each in shards.status(work)]
    assert set(states) == {0, SHARD_ROWS}, "a shard was left in the middle"
    start_worker()
    assert [result["succeeded"] for result in results_of(sender)] == [SHARD_ROWS] * 4
    check(server, work, ROWS)


@pytest.mark.parametrize("pool", POOLS)
def test_the_progress_is_in_the_result_backend(server, source, work, start_worker, client, pool):
    gate = Gate(10)
    server.set_script(gate)
    shards.split(source, work, rows=ROWS)
    start_worker(pool)
    sender = client("answer", "shards", work, 0)
    gate.wait_until_waiting(MAX_WORKERS)
    facts = json.loads(sender.wait_for(r"PROGRESS (.*)\n")[1])
    assert set(facts) == {"rows", "done", "failed", "tokens"}
    assert facts["rows"] == ROWS
    gate.opened.set()
    results_of(sender)


def test_what_ends_a_shard_is_an_error_with_its_facts(server, source, work, start_worker, client):
    server.set_script(lambda request: Error(401, "wrong key"))
    shards.split(source, work, rows=ROWS)
    start_worker()
    ((message, error, status, pending),) = results_of(client("answer", "shards", work, 0))
    assert (error, status) == ("AuthenticationError", 401)
    assert pending >= ROWS - MAX_WORKERS
    assert message.startswith(f"shard 0 has ended with {pending} of {ROWS} rows left: ")
    server.set_script(None)
    (result,) = results_of(client("answer", "shards", work, 0))
    assert result["pending"] == 0


def test_a_shard_comes_again_when_the_server_says(server, source, work, start_worker, client):
    refused = Error(429, code="insufficient_quota", headers={"Retry-After": "1"})
    server.set_script([refused] * MAX_WORKERS)
    shards.split(source, work, rows=ROWS)
    worker = start_worker()
    (result,) = results_of(client("answer", "shards", work, 0))
    assert (result["succeeded"], result["fatal"]) == (ROWS, None)
    worker.wait_for(r"retry: Retry in 1(\.0)?s: ShardStopped")


def test_ctrl_c_in_a_worker_without_processes_leaves_the_shard_to_the_next(server, source, work, start_worker, client):
    gate = Gate(50)
    server.set_script(gate)
    shards.split(source, work, rows=ROWS)
    worker = start_worker("solo", concurrency=1)
    sender = client("answer", "shards", work, 0)
    gate.wait_until_waiting(MAX_WORKERS)
    os.kill(worker.pid, signal.SIGINT)
    worker.wait_for("retry: Retry in 0s: ShardStopped")
    worker.ended()
    gate.opened.set()
    start_worker("solo", concurrency=1)
    (result,) = results_of(sender)
    assert (result["succeeded"], result["done_before"]) == (ROWS, 50)
    check(server, work, ROWS, repeated=MAX_WORKERS)


def test_what_is_done_when_the_time_is_over_is_kept(server, source, work, start_worker, client):
    gate = Gate(50)
    server.set_script(gate)
    shards.split(source, work, rows=ROWS)
    start_worker()
    assert results_of(client("answer_in_two_seconds", "shards", work, 0)) == ["SoftTimeLimitExceeded"]
    (state,) = shards.status(work)
    assert (state.done, state.failed, state.is_running) == (50, 0, False)
    gate.opened.set()
    (result,) = results_of(client("answer", "shards", work, 0))
    assert result["done_before"] == 50
    check(server, work, ROWS, repeated=MAX_WORKERS)


def test_a_worker_whose_tasks_come_again_too_early_says_so(start_worker):
    short = start_worker(VISIBILITY="1")
    short.wait_for(r"not ended after 1\.0 s: set visibility_timeout .*; the time limit of a task is 2 s")
    unset = start_worker()
    unset.wait_for(r"not ended after 3600 s \(the default\): set visibility_timeout ")
    enough = start_worker(VISIBILITY="3600")
    assert "visibility_timeout in" not in enough.output


def test_two_workers_keep_to_one_limit(server, tmp_path, work, start_worker, client, redis):
    source = tmp_path / "many.txt"
    source.write_text("".join(f"row {number}\n" for number in range(650)))
    scope = redis.replace("redis+socket", "unix") + "?name=shards"
    start_worker(SCOPE=scope, concurrency=1)
    start_worker(SCOPE=scope, concurrency=1)
    results = results_of(client("answer", "submit", source, work, 65))
    assert sum(result["succeeded"] for result in results) == 650
    arrivals = sorted(request.time for request in server.requests)
    fullest = max(sum(start <= at < start + 60 for at in arrivals) for start in arrivals)
    print(f"650 rows at 600 a minute: {arrivals[-1] - arrivals[0]:.1f} s, {fullest} in the fullest minute")
    assert len(arrivals) == 650
    assert fullest <= 600
