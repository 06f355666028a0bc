"""Shards as tasks of Dask's: nothing is lost or done twice, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from chatpool.batch import shards
from chatpool.testing import Error
from tests.deploy.shard_files import HUNG, Gate, check, write_rows

psutil = pytest.importorskip("psutil", reason="it comes with distributed, of the extra cluster")

pytestmark = pytest.mark.cluster

SHARDS, SHARD_ROWS, MAX_WORKERS = 12, 25, 4
ROWS = SHARDS * SHARD_ROWS
FREE = 20  # answers, after which two workers still have as many calls as they make at a time, in their first shards


@pytest.fixture
def work(tmp_path):
    """The folder of the shards."""
    shards.split(write_rows(tmp_path / "big.jsonl", ROWS), tmp_path / "work", rows=SHARD_ROWS)
    return tmp_path / "work"


@pytest.fixture
def environment(server):
    """Of all processes: workers take the key from there."""
    return {"CHAT_URL": server.base_url, "OPENAI_API_KEY": "the key of the workers"}


@pytest.fixture
def client(python, environment, work):
    """``client(scheduler_file, **options)`` runs the shards in a program; by default on four workers of its own."""

    def start(scheduler_file=None, **options):
        arguments = [work, json.dumps(options), *([] if scheduler_file is None else [scheduler_file])]
        return python("dask_client.py", *map(str, arguments), **environment)

    return start


class Cluster:
    """A scheduler and workers, each a program of its own."""

    def __init__(self, python, environment, folder):
        self._python, self._environment = python, {**environment, "DASK_LOGGING__DISTRIBUTED": "info"}
        self.file = str(folder / "scheduler.json")
        self._folder = folder
        self.workers = []

    def start_scheduler(self, port=0, **more):
        arguments = ("--port", str(port), "--no-dashboard", "--scheduler-file", self.file)
        self.scheduler = self._python("-m", "distributed.cli.dask_scheduler", *arguments, **self._environment, **more)
        self.port = int(self.scheduler.wait_for(r"Scheduler at: +\S+:(\d+)")[1])

    def start_worker(self, *arguments, **more):
        defaults = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(self._folder))
        worker = self._python(
            *("-m", "distributed.cli.dask_worker", "--scheduler-file", self.file, *defaults, *arguments),
            **{**self._environment, **more},
        )
        self.workers.append(worker)
        return worker


@pytest.fixture
def cluster(python, environment, tmp_path):
    cluster = Cluster(python, environment, tmp_path)
    cluster.start_scheduler()
    return cluster


def result_of(program):
    assert program.ended(HUNG) == 0, program.output
    return json.loads(program.wait_for(r"result (.*)\n")[1])


def worker_pids(program):
    """The processes of the workers that a program has started, those aside that have just ended."""
    found = []
    for child in psutil.Process(program.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child.pid)
    return found


def kill_a_worker(program, turn=0):
    """Kill one of the processes that work at this moment; the others go on."""
    pids = worker_pids(program)
    os.kill(pids[turn % len(pids)], signal.SIGKILL)


def held_program(server, cluster, client):
    """A gate, and a program on two workers all of whose calls wait for it."""
    gate = Gate(FREE)
    server.set_script(gate)
    for _ in range(2):
        cluster.start_worker()
    program = client(cluster.file)
    gate.wait_until_waiting(2 * MAX_WORKERS)
    return gate, program


def test_a_file_is_answered_by_a_local_cluster(server, work, client, tmp_path):
    result = result_of(client(output=str(tmp_path / "out.jsonl")))
    assert (result["rows"], result["succeeded"], result["pending"], result["missing"]) == (ROWS, ROWS, 0, [])
    check(server, work, ROWS)
    assert (tmp_path / "out.jsonl").read_bytes() == (work / "merged.jsonl").read_bytes()
    again = result_of(client())
    assert (again["succeeded"], again["done_before"]) == (ROWS, ROWS)
    check(server, work, ROWS)


def test_workers_that_are_killed_lose_nothing(server, work, client):
    program = client()
    for kill in range(5):
        server.wait_until(lambda sent=20 + 50 * kill: len(server.requests) >= sent, HUNG)
        kill_a_worker(program, kill)
    assert result_of(program)["succeeded"] == ROWS
    check(server, work, ROWS, repeated=5 * MAX_WORKERS)


def test_a_client_that_is_killed_loses_nothing_and_the_next_one_goes_on_at_once(server, work, cluster, client):
    gate, first = held_program(server, cluster, client)
    first.kill()
    second = client(cluster.file)
    second.wait_for("workers")
    gate.opened.set()
    assert result_of(second)["succeeded"] == ROWS
    check(server, work, ROWS, repeated=2 * MAX_WORKERS)


def test_ctrl_c_stops_all_shards_and_the_same_call_goes_on(server, work, cluster, client):
    gate, program = held_program(server, cluster, client)
    program.signal(signal.SIGINT)
    result = result_of(program)
    assert "interrupted" in program.output
    assert (result["succeeded"], result["pending"], result["fatal"]["error"]) == (
        FREE,
        ROWS - FREE,
        "CallCancelledError",
    )
    assert [each.index for each in shards.status(work) if each.is_running] == []
    gate.opened.set()
    assert result_of(client(cluster.file))["succeeded"] == ROWS
    check(server, work, ROWS, repeated=2 * MAX_WORKERS)


def test_a_worker_that_is_told_to_end_leaves_its_shard_to_the_others(server, work, cluster, client):
    gate, program = held_program(server, cluster, client)
    leaving, _ = cluster.workers
    leaving.signal(signal.SIGTERM)
    leaving.ended(HUNG)
    gate.opened.set()
    assert result_of(program)["succeeded"] == ROWS
    check(server, work, ROWS, repeated=MAX_WORKERS)


def test_a_worker_that_joins_gets_shards(server, work, cluster, client):
    gate = Gate(0)
    server.set_script(gate)
    cluster.start_worker("--nthreads", "8")
    program = client(cluster.file)
    gate.wait_until_waiting(MAX_WORKERS)
    cluster.start_worker("--nthreads", "8")
    gate.wait_until_waiting(2 * MAX_WORKERS)
    gate.opened.set()
    assert result_of(program)["succeeded"] == ROWS
    check(server, work, ROWS)


def test_a_scheduler_that_is_killed_loses_nothing(server, work, cluster, client):
    gate, program = held_program(server, cluster, client)
    cluster.scheduler.kill()
    result = result_of(program)
    assert result["fatal"]["message"].startswith("the scheduler is gone")
    gate.opened.set()
    for worker in cluster.workers:
        worker.kill()
    cluster.start_scheduler()
    for _ in range(2):
        cluster.start_worker()
    assert result_of(client(cluster.file))["succeeded"] == ROWS
    check(server, work, ROWS, repeated=2 * MAX_WORKERS)


def test_a_scheduler_that_comes_back_gets_the_rest(server, work, cluster, client):
    gate, program = held_program(server, cluster, client)
    cluster.scheduler.kill()
    cluster.start_scheduler(cluster.port)
    gate.opened.set()
    for _ in range(2):
        cluster.start_worker()
    assert result_of(program)["succeeded"] == ROWS
    check(server, work, ROWS, repeated=2 * MAX_WORKERS)


def test_a_worker_that_is_stopped_is_replaced(server, work, cluster, client):
    cluster.scheduler.kill()
    cluster.start_scheduler(DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    gate, program = held_program(server, cluster, client)
    stopped, _ = cluster.workers
    os.kill(worker_pids(stopped)[0], signal.SIGSTOP)
    gate.opened.set()
    assert result_of(program)["succeeded"] == ROWS
    check(server, work, ROWS, repeated=MAX_WORKERS)


def test_what_ends_a_shard_starts_no_others(server, work, client):
    server.set_script(lambda request: Error(401, "wrong key"))
    result = result_of(client())
    assert (result["fatal"]["error"], result["fatal"]["status_code"]) == ("AuthenticationError", 401)
    assert (result["succeeded"], result["failed"] + result["pending"]) == (0, ROWS)
    assert len(result["missing"]) == SHARDS
    assert len(server.requests) <= 4 * MAX_WORKERS * 2  # of those that ran, and of one more in each worker
    server.set_script(None)
    result_of(client(retry_failed=True))
    result = result_of(client())
    assert (result["succeeded"], result["missing"]) == (ROWS, [])


def test_a_budget_is_one_for_all_shards(server, work, client):
    first = client(budget={"tokens": 1000}, max_tokens=8)  # otherwise a call is expected to take hundreds of them
    server.wait_until(lambda: len(server.requests) >= 40, HUNG)
    kill_a_worker(first)
    result = result_of(first)
    assert result["fatal"]["error"] == "BudgetExceededError"
    done = sum(each.done for each in shards.status(work))
    spent = sum(shards.bill(work, index).usage.total_tokens for index in range(SHARDS))
    each = spent / done  # tokens of a row
    assert 950 <= spent <= 1000 + 5 * MAX_WORKERS * each, "of the calls in flight it is not known what they will take"
    assert len(server.requests) <= done + MAX_WORKERS
    assert (result["succeeded"], result["pending"]) == (done, ROWS - done)
    rest = result_of(client(budget={"tokens": each * (ROWS + 100)}, max_tokens=8))
    assert (rest["fatal"], rest["succeeded"]) == (None, ROWS)


def test_workers_keep_to_one_limit(server, tmp_path, work, client, redis):
    scope = redis.replace("redis+socket", "unix") + "?name=shards"
    result = result_of(client(limits={"requests_per_minute": 240, "scope": scope}))
    assert result["succeeded"] == ROWS
    arrivals = sorted(request.time for request in server.requests)
    fullest = max(sum(start <= at < start + 60 for at in arrivals) for start in arrivals)
    print(f"{ROWS} rows at 240 a minute: {arrivals[-1] - arrivals[0]:.1f} s, {fullest} in the fullest minute")
    assert fullest <= 240


def test_a_limit_without_a_scope_holds_for_all_workers_of_a_host(server, work, client):
    result = result_of(client(limits={"requests_per_minute": 240}))
    assert result["succeeded"] == ROWS
    arrivals = sorted(request.time for request in server.requests)
    assert max(sum(start <= at < start + 60 for at in arrivals) for start in arrivals) <= 240


def test_several_processes_share_a_shard(server, work, client):
    assert result_of(client(processes=2))["succeeded"] == ROWS
    check(server, work, ROWS)


def failure_of(program):
    """The last line of a program that has ended with an exception."""
    assert program.ended(HUNG) == 1, program.output
    return next(line for line in reversed(program.output.splitlines()) if "Error: " in line)


def test_workers_that_cannot_see_the_plan_are_named(server, work, cluster, client, tmp_path):
    cluster.start_worker()
    program = client(cluster.file, folder=str(tmp_path / "elsewhere"))
    assert "is no folder of shards" in failure_of(program)
    assert server.requests == []


def test_workers_without_chatpool_are_named(server, work, cluster, client, tmp_path):
    (tmp_path / "hidden" / "chatpool").mkdir(parents=True)
    (tmp_path / "hidden" / "chatpool" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'chatpool'\")"
    )
    cluster.start_worker(PYTHONPATH=str(tmp_path / "hidden"))
    assert "(install it there: the workers need chatpool[dask]" in failure_of(client(cluster.file))


def test_workers_without_a_key_are_named(server, work, cluster, client):
    cluster.start_worker(OPENAI_API_KEY="")
    assert "1 workers cannot run shards: tcp://" in failure_of(client(cluster.file, base_url=None))
    assert server.requests == []


def test_limits_need_a_redis_where_workers_are_on_several_hosts(server, work, cluster, client):
    cluster.start_worker()
    cluster.start_worker(HOST_NAME="elsewhere", PYTHONPATH=str(Path(__file__).with_name("apps") / "other_host"))
    program = client(cluster.file, limits={"requests_per_minute": 600}, wait_for=2)
    assert "each worker would keep to the whole limit" in failure_of(program)
    assert server.requests == []
