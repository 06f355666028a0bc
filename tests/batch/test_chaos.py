"""Everything at once: a server that fails at random and is started again, and clients that are killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import Counter

import pytest

from chatpool import ChatPool, RetryPolicy
from chatpool.testing import FakeServer, Faults

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

SEED = int(os.environ.get("CHATPOOL_FUZZ_SEED", "1"))
FAULTS = {429: 0.03, 500: 0.02, 502: 0.02, 503: 0.04, "reset": 0.03, "hangup": 0.02, "truncate": 0.02, "html": 0.01}
PATIENT = RetryPolicy(max_retries=30, patience=600, wait_max=1.0)


class Restarting:
    """A server that goes away in the midst of its answers after some requests, and comes back at the same place."""

    def __init__(self, rng, every):
        self._rng, self._every = rng, every
        self._over = threading.Event()
        self.requests, self.starts = [], 0
        self._server = self._start(0)
        self.port, self.base_url = self._server.port, self._server.base_url
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _start(self, port):
        self.starts += 1
        faults = Faults(FAULTS, seed=self._rng.randrange(10**6))
        return FakeServer(faults=faults, latency=0.002, port=port)

    def count(self):
        """How many requests there were so far."""
        return len(self.requests) + len(self._server.requests)

    def seen(self):
        """Their prompts."""
        return [*self.requests, *(request.prompt for request in self._server.requests)]

    def _run(self):
        while not self._over.is_set():
            until = self._rng.randint(self._every // 2, self._every)
            while len(self._server.requests) < until and not self._over.wait(0.01):
                pass
            if self._over.is_set():
                return
            self._server.close()
            self.requests += [request.prompt for request in self._server.requests]
            self._over.wait(self._rng.choice((0.0, 0.05, 0.3)))  # connections are refused meanwhile
            self._server = self._start(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._server.close()


@pytest.mark.parametrize(
    ("count", "every"), [(300, 150), pytest.param(20_000, 1000, marks=pytest.mark.slow)], ids=["300", "20000"]
)
def test_a_run_beside_a_server_that_fails_and_is_started_again_answers_each_row(count, every, record_property):
    prompts = [f"prompt {number}" for number in range(count)]
    with Restarting(random.Random(SEED), every) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=16, retry=PATIENT) as pool:
            results = pool.map(prompts, progress=False)
        mixed_up = sum(got is not None and str(got) != prompt for got, prompt in zip(results, prompts))
        record_property(
            "counted",
            f"chaos, map (seed {SEED}): {count} rows, {server.count()} requests, {server.starts} starts of the "
            f"server, {len(results.failures)} lost, {mixed_up} mixed up",
        )
    assert not results.failures, results.explain()
    assert [str(result) for result in results] == prompts
    assert server.starts > 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_file_whose_run_is_killed_beside_such_a_server_has_every_row_once(
    processes, start_run, write_rows, tmp_path, ids, read_lines, record_property
):
    rows, kills, most = 3000, Counter(), 30
    source, target = write_rows(rows), tmp_path / "out.jsonl"
    moments = random.Random(f"{SEED} kills")
    options = ("--max-workers", 8, *(("--processes", processes) if processes > 1 else ()))
    with Restarting(random.Random(f"{SEED} server"), 400) as server:
        while sum(kills.values()) < most:
            seen = server.count()
            process = start_run(server, source, target, *options)
            until = seen + moments.randint(1, 2 * rows // most)
            while server.count() < until and process.poll() is None:
                threading.Event().wait(0.01)
            number = moments.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
            process.send_signal(number)
            out, err = process.communicate(timeout=120)
            assert process.returncode in (0, -number, 128 + number), err
            kills[number.name] += 1
        process = start_run(server, source, target, *options)
        out, err = process.communicate(timeout=600)
        sent = Counter(server.seen())
    wanted = [f"row {number}" for number in range(rows)]
    found = ids(target)
    answers = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in read_lines(target)
    }
    wrong = sum(answers.get(name) not in (None, name) for name in wanted)
    record_property(
        "counted",
        f"chaos, a file, {processes} processes (seed {SEED}): {rows} rows, {sum(sent.values())} requests, "
        f"{server.starts} starts of the server, {dict(kills)}, {rows - len(set(found))} lost, "
        f"{len(found) - len(set(found))} doubled, {wrong} mixed up",
    )
    assert process.returncode == 0, err
    assert sorted(found) == sorted(wanted)
    assert not wrong
    assert ids(tmp_path / "out.errors.jsonl") == []
