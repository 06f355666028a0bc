"""Kill -9 at any moment, run the same command again: nothing is lost, nothing is there twice, little is paid twice."""

from __future__ import annotations

import random
import signal
import sys
from collections import Counter

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

ROWS = 2000
KILLS = 50
WORKERS = 8


@pytest.mark.slow
def test_50_kills_over_2000_rows_lose_and_repeat_nothing_but_what_was_in_flight(
    start_run, chatpool_server, write_rows, tmp_path, ids, read_lines
):
    source, target = write_rows(ROWS), tmp_path / "out.jsonl"
    moments = random.Random(7)
    kills = 0
    while kills < KILLS:
        seen = len(chatpool_server.requests)
        process = start_run(chatpool_server, source, target, "--max-workers", WORKERS)
        # A moment is a number of requests, drawn so that all of them fall into the run: each row that was never sent
        # is one. On a busy machine many more may be sent before the signal comes.
        left = ROWS - len({request.prompt for request in chatpool_server.requests[:seen]})
        most = max(1, 2 * left // (KILLS - kills))
        chatpool_server.wait_for(seen + min(moments.randint(1, most), left), timeout=60)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=60)
        kills += 1
    assert len(chatpool_server.requests) > ROWS // 2  # they were spread over the run
    process = start_run(chatpool_server, source, target, "--max-workers", WORKERS)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err

    wanted = [f"row {number}" for number in range(ROWS)]
    assert sorted(ids(target)) == sorted(wanted)
    answers = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in read_lines(target)
    }
    assert answers == {name: name for name in wanted}
    assert ids(tmp_path / "out.errors.jsonl") == []
    sent = Counter(request.prompt for request in chatpool_server.requests)
    assert set(sent) == set(wanted)
    assert sum(sent.values()) - ROWS <= KILLS * WORKERS


@pytest.mark.slow
def test_another_start_after_the_end_sends_nothing(start_run, chatpool_server, write_rows, tmp_path, ids):
    source, target = write_rows(20), tmp_path / "out.jsonl"
    for _ in range(2):
        assert start_run(chatpool_server, source, target).wait(timeout=60) == 0
    assert len(chatpool_server.requests) == 20
    assert len(ids(target)) == 20
