"""Tasks of shards without a worker: in a site's own tests, and what is refused before a task is sent."""

from __future__ import annotations

import json
import os
import pickle

import pytest

pytest.importorskip("celery", reason="the extra deploy has it, and the suite runs without")

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.exceptions import Retry, SoftTimeLimitExceeded

from chatpool import ConfigurationError, JournalBusyError, RateLimitError
from chatpool._journal import FolderLease
from chatpool.batch import shards
from chatpool.contrib.celery import ShardStopped, ShardTask, submit_file

pytestmark = pytest.mark.deploy

ROWS, SHARD_ROWS = 12, 3


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "big.txt"
    path.write_text("".join(f"row {number}\n" for number in range(ROWS)))
    return path


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def task(server):
    """A task that runs where it is sent."""
    app = Celery("eager", broker="memory://", backend="cache+memory://")
    app.conf.update(task_always_eager=True, task_eager_propagates=True)

    @app.task(base=ShardTask, bind=True, name="eager")
    def answer(self, folder, index):
        return self.run_shard(folder, index, model="m", base_url=server.base_url, retry=0, max_workers=4)

    return answer


def test_tasks_run_at_once_in_the_tests_of_a_site(server, source, work, task):
    results = submit_file(task, source, work, shard_rows=SHARD_ROWS)
    assert [result["succeeded"] for result in results.get()] == [SHARD_ROWS] * 4
    assert shards.merge(work, work / "merged.jsonl").succeeded == len(server.requests) == ROWS
    assert task(str(work), 0)["done_before"] == SHARD_ROWS


@pytest.mark.parametrize(
    "run", [lambda task, *arguments: task(*arguments), lambda task, *arguments: task.delay(*arguments)]
)
def test_nobody_waits_for_a_busy_shard_outside_a_worker(source, work, task, run):
    plan = shards.split(source, work, rows=ROWS)
    os.makedirs(work / "answers")
    with FolderLease(plan.shards[0].answers), pytest.raises(JournalBusyError):
        run(task, str(work), 0)


def test_a_busy_shard_does_not_count_as_a_retry(source, work, task, server, monkeypatch):
    retries = []
    monkeypatch.setattr(ShardTask, "retry", lambda self, **options: retries.append(self.request.retries) or Retry())
    plan = shards.split(source, work, rows=ROWS)
    os.makedirs(work / "answers")
    task.push_request(retries=3, is_eager=False, called_directly=False, id="busy")
    with FolderLease(plan.shards[0].answers), pytest.raises(Retry):
        task.run_shard(str(work), 0, model="m", base_url=server.base_url)
    assert retries == [2]  # to which retry() adds one


def test_a_result_backend_that_is_away_ends_no_shard(source, work, task, server, monkeypatch, caplog):
    def away(self, *arguments, **options):
        raise ConnectionError("redis://:secret@cache is away")

    monkeypatch.setattr(ShardTask, "update_state", away)
    shards.split(source, work, rows=ROWS)
    task.push_request(is_eager=False, called_directly=False, id="42")
    result = task.run_shard(str(work), 0, model="m", base_url=server.base_url)
    assert result["succeeded"] == ROWS
    assert "the progress of task 42 was not stored: ConnectionError" in caplog.text
    assert "secret" not in caplog.text


def test_time_that_is_over_while_the_progress_is_stored_ends_the_shard(source, work, task, server, monkeypatch):
    def late(self, *arguments, **options):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(ShardTask, "update_state", late)
    shards.split(source, work, rows=ROWS)
    task.push_request(is_eager=False, called_directly=False, id="42")
    with pytest.raises(SoftTimeLimitExceeded):
        task.run_shard(str(work), 0, model="m", base_url=server.base_url)


def test_a_stopped_shard_survives_json_and_pickle():
    facts = {"error": "RateLimitError", "message": "no credit", "status_code": 429, "retry_after": 3.0}
    stopped = ShardStopped("shard 2 has ended", facts, 7)
    backend = DisabledBackend(Celery(), serializer="json")
    stored = json.loads(json.dumps(backend.prepare_exception(stopped, serializer="json")))
    for copy in (backend.exception_to_python(stored), pickle.loads(pickle.dumps(stopped))):
        assert type(copy) is ShardStopped
        assert (str(copy), copy.message, copy.pending) == ("shard 2 has ended", "shard 2 has ended", 7)
        assert (type(copy.error), copy.error.status_code, copy.error.retry_after) == (RateLimitError, 429, 3.0)
    assert str(ShardStopped("only a message")) == "only a message"


def test_what_cannot_be_submitted_is_refused_before_a_task_is_sent(server, source, work, task):
    def answer(folder, index): ...

    with pytest.raises(TypeError, match="task must be made with @app.task"):
        submit_file(Celery().task(answer), source, work)
    with pytest.raises(ConfigurationError, match="shard_rows must be at least 1, got 0"):
        submit_file(task, source, work, shard_rows=0)
    with pytest.raises(TypeError, match="shard_rows must be a whole number"):
        submit_file(task, source, work, shard_rows="2000")
    assert not work.exists()
    submit_file(task, source, work)
    source.write_text('{"prompt": "another"}\n')
    with pytest.raises(ConfigurationError, match="has changed since"):
        submit_file(task, source, work)
    assert len(server.requests) == ROWS
