"""Celery's prefork worker, with Debian's Redis between it and whoever sends the tasks."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.deploy

TASKS = 100


@pytest.fixture
def worker(server, redis, python):
    """A worker of two processes whose module has used the pool before they were forked."""
    worker = python(
        *("-m", "celery", "--app", "celery_app", "worker", "--pool", "prefork", "--concurrency", "2"),
        *("--loglevel", "INFO", "--without-mingle", "--without-gossip"),
        CHAT_URL=server.base_url,
        REDIS_URL=redis,
        USE_POOL="yes",
        C_FORCE_ROOT="yes",
    )
    worker.wait_for(r"celery@\S+ ready\.")
    return worker


@pytest.fixture
def send(server, redis, python):
    """A function that sends tasks and returns their results."""

    def send(task, *prompts):
        client = python("celery_client.py", task, *prompts, CHAT_URL=server.base_url, REDIS_URL=redis)
        assert client.ended() == 0, client.output
        return json.loads(client.output)

    return send


@pytest.mark.smoke
def test_tasks_get_their_own_answers_and_the_worker_ends_cleanly(server, worker, send):
    prompts = [f"task-{number}" for number in range(TASKS)]
    answers = send("ask", *prompts)

    assert [answer for _, answer in answers] == prompts
    assert len({process for process, _ in answers}) == 2
    of_parent = {request.connection for request in server.requests if request.prompt.startswith("preload")}
    of_tasks = {request.connection for request in server.requests if request.prompt.startswith("task")}
    assert of_parent
    assert not of_parent & of_tasks, "a task has used a connection of the parent's"
    assert server.open_connections == server.connections, "a connection was closed"

    assert worker.end() == 0
    assert "Traceback" not in worker.output
    server.wait_until(lambda: server.open_connections == 0)


def test_a_task_that_is_out_of_time_gives_its_call_up(server, worker, send):
    assert send("ask_in_a_second", "stall", "stall", "a") == [
        "SoftTimeLimitExceeded, in flight: 0",
        "SoftTimeLimitExceeded, in flight: 0",
        "a",
    ]
    server.wait_until(lambda: server.in_flight == 0)
    assert worker.end() == 0
