"""A run by several processes: the same promises."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

import pytest

import chatpool
from chatpool import ChatPool, ConfigurationError
from chatpool.testing import Error, FakeServer, Stall

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture
def run(chatpool_server, tmp_path):
    """``run(source, **options)`` runs it in two processes."""

    def start(source, **options):
        target = tmp_path / "out.jsonl"
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=8, retry=0, api_key="key") as pool:
            return chatpool.batch.run(source, target, pool=pool, processes=2, progress=False, **options)

    return start


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


def test_the_workers_are_shared_out(write_rows, tmp_path):
    with FakeServer(latency=0.02) as server, ChatPool("m", base_url=server.base_url, max_workers=5) as pool:
        chatpool.batch.run(write_rows(100), tmp_path / "out.jsonl", pool=pool, processes=2, progress=False)
    assert server.max_in_flight == 5
    assert server.connections <= 5


def test_there_may_be_many_more_rows_than_a_child_looks_ahead(run, write_rows):
    assert run(write_rows(3000)).succeeded == 3000


def test_rows_that_cannot_be_sent_are_failures_there_too(run, tmp_path, ids):
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"prompt": "a"}\n{"messages": [{"role": "user", "content": "b"}], "stream": true}\n{"prompt": "c"}\n'
    )
    for done_before in (0, 3):
        result = run(source)
        assert (result.succeeded, result.failed, result.done_before) == (2, 1, done_before)
    assert ids(tmp_path / "out.errors.jsonl") == ["row-2"]


def test_embeddings_are_packed_there_too(run, tmp_path, chatpool_server):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text {number}\n" for number in range(200)))
    assert run(source, url="/v1/embeddings").succeeded == 200
    assert len(chatpool_server.requests) < 100


def test_a_fatal_error_ends_all_of_them(run, write_rows, chatpool_server):
    chatpool_server.set_script(Error(401))
    result = run(write_rows(500))
    assert type(result.fatal).__name__ == "AuthenticationError"
    assert len(chatpool_server.requests) <= 8
    assert result.pending == 500 - result.failed
    chatpool_server.set_script(None)
    assert run(write_rows(500)).succeeded == 500


def test_a_pool_that_cannot_be_sent_is_refused(chatpool_server, write_rows, tmp_path):
    options = {"base_url": chatpool_server.base_url, "listeners": [lambda event: None], "processes": 2}
    with pytest.raises(ConfigurationError, match="leave out processes"):
        chatpool.batch.run(write_rows(1), tmp_path / "out.jsonl", **options)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
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
def test_after_a_kill_of_the_parent_the_children_end_and_the_same_command_goes_on(
    start_run, chatpool_server, write_rows, ids, tmp_path
):
    source, target = write_rows(400), tmp_path / "out.jsonl"
    chatpool_server.set_script(lambda request: Stall() if request.number >= 150 else None)
    process = start_run(chatpool_server, source, target, "--processes", 2)
    chatpool_server.wait_for(166, timeout=60)
    process.kill()
    process.wait()
    chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=30)
    chatpool_server.set_script(None)
    process = start_run(chatpool_server, source, target, "--processes", 2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sorted(ids(target)) == sorted(f"row {number}" for number in range(400))
    assert len(chatpool_server.requests) == 400 + 16


def test_ctrl_c_ends_all_of_them_with_everything_on_disk(start_run, chatpool_server, write_rows, ids, tmp_path):
    chatpool_server.set_script(lambda request: Stall() if request.number >= 150 else None)
    process = start_run(chatpool_server, write_rows(400), tmp_path / "out.jsonl", "--processes", 2)
    chatpool_server.wait_for(166, timeout=60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "150 of 400 rows answered; 250 pending" in err
    assert len(ids(tmp_path / "out.jsonl")) == 150
    chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=30)
