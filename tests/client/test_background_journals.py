"""Responses in the background and journals: a run that ended goes on asking, and pays for nothing twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool
from chatpool import ChatPool, DeadlineExceededError, Timeout
from chatpool._journal import PENDING, Journal, read_journal
from chatpool.testing import BackgroundScenario, Error

ROOT = Path(chatpool.__file__).parents[1]
HELD = BackgroundScenario(polls=None)
ITEMS = [{"input": f"row {n}", "background": True} for n in range(5)]
TEXTS = [item["input"] for item in ITEMS]

MAP = """
import sys
from chatpool import ChatPool
pool = ChatPool("m", base_url=sys.argv[1], max_workers=2)
pool.map([{"input": f"row {n}", "background": True} for n in range(5)], journal=sys.argv[2])
"""

RUN = """
import sys
from chatpool import ChatPool, batch
if __name__ == "__main__":
    with ChatPool("m", base_url=sys.argv[1], max_workers=2) as pool:
        batch.run(sys.argv[2], sys.argv[3], pool=pool, processes=int(sys.argv[4]))
"""


def posts(server):
    return [request for request in server.requests if (request.method, request.path) == ("POST", "/v1/responses")]


def polled(server):
    return {request.path.rpartition("/")[2] for request in server.requests if request.method == "GET"}


def finish(server):
    while server.advance():
        pass


@pytest.fixture
def killed(chatpool_server_factory):
    """A function that runs a program until all of its rows are in the background, and kills it; returns the server."""

    def run(program, *arguments):
        server = chatpool_server_factory(background=HELD)
        command = [sys.executable, "-c", program, server.base_url, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            server.wait_until(lambda: len(polled(server)) == len(ITEMS), timeout=120)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        return server

    return run


@pytest.fixture
def pool_of():
    pools = []

    def make(server, max_workers=2, **options):
        pools.append(ChatPool("m", base_url=server.base_url, max_workers=max_workers, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
class TestKilled:
    def test_a_map_goes_on_asking(self, killed, pool_of, tmp_path):
        journal = tmp_path / "run.journal"
        server = killed(MAP, journal)
        finish(server)
        results = pool_of(server).map(ITEMS, journal=journal)
        assert [str(reply) for reply in results] == TEXTS
        assert [outcome.attempts for outcome in results.outcomes] == [1] * 5
        assert len(posts(server)) == 5
        seen = len(server.requests)
        assert [str(reply) for reply in pool_of(server).map(ITEMS, journal=journal)] == TEXTS
        assert len(server.requests) == seen  # the answers are in the journal now

    @pytest.mark.slow
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_batch_run_goes_on_asking(self, killed, pool_of, tmp_path, processes):
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        rows = [{"custom_id": item["input"], "url": "/v1/responses", "method": "POST", "body": item} for item in ITEMS]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        server = killed(RUN, source, target, processes)
        finish(server)
        program = [sys.executable, "-c", RUN, server.base_url, str(source), str(target), str(processes)]
        assert subprocess.run(program, cwd=ROOT, timeout=120).returncode == 0
        assert len(posts(server)) == 5
        assert len(target.read_text().splitlines()) == 5


class TestStopped:
    @pytest.fixture
    def stopped(self, chatpool_server_factory, pool_of, tmp_path):
        """The server and the journal of a run that was left while all of its items were in the background."""
        server, journal = chatpool_server_factory(background=HELD), tmp_path / "run.journal"
        pool = pool_of(server)
        with pool.imap(["at once", *ITEMS], journal=journal) as outcomes:
            assert next(outcomes).value.text == "at once"
            server.wait_until(lambda: len(polled(server)) == len(ITEMS), timeout=60)
        return server, journal

    def test_the_server_goes_on_and_the_next_run_takes_it_up(self, stopped, pool_of):
        server, journal = stopped
        assert {response["status"] for response in server.background} == {"queued"}
        finish(server)
        results = pool_of(server).map(["at once", *ITEMS], journal=journal)
        assert [str(reply) for reply in results] == ["at once", *TEXTS]
        assert len(posts(server)) == 5

    def test_what_is_gone_by_then_is_asked_for_again(self, stopped, pool_of):
        server, journal = stopped
        left = [True]
        server.set_script(lambda request: Error(404) if request.method == "GET" and left and left.pop() else None)
        finish(server)
        pool = pool_of(server, retry=0)
        collected = []
        for outcome in pool.as_completed(["at once", *ITEMS], journal=journal):
            collected.append(outcome)
            if len(collected) == 5:  # all but the one that was gone
                server.wait_until(lambda: len(server.background) == 6, timeout=60)
                finish(server)
        assert sorted(str(outcome.value) for outcome in collected) == ["at once", *TEXTS]
        assert len(posts(server)) == 6
        attempts = sorted([attempt.status for attempt in outcome.history] for outcome in collected if outcome.index)
        assert attempts == [[200]] * 4 + [[404, 200]]

    def test_a_changed_item_is_another_request(self, stopped, pool_of):
        server, journal = stopped
        changed = [{**item, "temperature": 1} for item in ITEMS[:1]]
        with pool_of(server).imap(["at once", *changed], journal=journal) as outcomes:
            next(outcomes)
            server.wait_until(lambda: len(server.background) == 6, timeout=60)
        assert len(posts(server)) == 6

    @pytest.mark.usefixtures("instant_waits")
    def test_another_server_is_not_asked_for_it(self, stopped, pool_of, chatpool_server_factory):
        _, journal = stopped
        other = chatpool_server_factory()
        results = pool_of(other).map(["at once", *ITEMS], journal=journal)
        assert [str(reply) for reply in results[1:]] == TEXTS
        assert len(posts(other)) == 5
        assert {response["id"] for response in other.background} == polled(other)

    def test_what_a_fallback_has_begun_is_the_answer_of_that(self, chatpool_server_factory, pool_of, tmp_path):
        gone = Error(404, code="model_not_found")
        server, journal = chatpool_server_factory(background=HELD), tmp_path / "run.journal"
        server.set_script(lambda request: gone if (request.body or {}).get("model") == "m" else None)
        with pool_of(server).imap(["at once", *ITEMS], journal=journal, fallbacks=["other"]) as outcomes:
            assert next(outcomes).fallback == 1
            server.wait_until(lambda: len(polled(server)) == len(ITEMS), timeout=60)
        sent = len(posts(server))
        finish(server)
        results = pool_of(server).map(["at once", *ITEMS], journal=journal, fallbacks=["other"])
        assert [str(reply) for reply in results] == ["at once", *TEXTS]
        assert len(posts(server)) == sent
        assert [outcome.fallback for outcome in results.outcomes] == [1] * 6
        assert results.outcomes[1].charges[0].model == "other"

    def test_readers_of_the_journal_see_no_outcome_in_it(self, stopped):
        _, journal = stopped
        assert [record.row for record, _ in read_journal(str(journal))] == [0]
        assert journal.read_bytes().count(b'"state":"%s"' % PENDING.encode()) == 5


def test_out_of_time_it_goes_on_and_the_next_run_takes_it_up(chatpool_server_factory, pool_of, tmp_path, instant_waits):
    server, journal = chatpool_server_factory(background=HELD), tmp_path / "run.journal"
    first = pool_of(server, timeout=Timeout(total=30)).map(ITEMS[:1], journal=journal)
    assert isinstance(first.outcomes[0].error, DeadlineExceededError)
    assert "the journal knows the response" in str(first.outcomes[0].error)
    finish(server)
    assert [str(reply) for reply in pool_of(server).map(ITEMS[:1], journal=journal)] == TEXTS[:1]
    assert len(posts(server)) == 1


def test_a_retry_of_the_failed_items_takes_it_up_too(chatpool_server_factory, pool_of, tmp_path, instant_waits):
    server, journal = chatpool_server_factory(background=HELD), tmp_path / "run.journal"
    pool = pool_of(server)
    first = pool.map(ITEMS[:2], journal=journal, timeout=Timeout(total=30))
    finish(server)
    assert [str(reply) for reply in pool.retry(first)] == TEXTS[:2]
    assert len(posts(server)) == 2


def test_a_journal_that_cannot_be_written_ends_the_run(chatpool_server_factory, pool_of, tmp_path, monkeypatch):
    server, journal = chatpool_server_factory(background=HELD), tmp_path / "run.journal"

    def fail(self, mark):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Journal, "note_pending", fail)
    with pytest.raises(OSError, match="no space"):
        pool_of(server, max_workers=1).map(ITEMS, journal=journal)  # what others ask for now may be unknown to them
    # Nothing knows of it any more.
    server.wait_until(lambda: [response["status"] for response in server.background] == ["cancelled"], timeout=60)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_has_come_to_nothing_is_asked_for_again_by_the_next_run(
    chatpool_server_factory, pool_of, tmp_path, instant_waits, end
):
    scenarios = [BackgroundScenario(end=end), None]
    server, journal = chatpool_server_factory(background=scenarios), tmp_path / "run.journal"
    first = pool_of(server, retry=0).map(ITEMS[:1], journal=journal)
    assert not first.outcomes[0].ok
    again = pool_of(server, retry=0).map(ITEMS[:1], journal=journal)
    assert [str(reply) for reply in again] == TEXTS[:1]
    assert len(posts(server)) == 2


def test_an_answer_that_is_not_accepted_is_asked_for_anew_by_the_next_run(
    chatpool_server_factory, pool_of, tmp_path, instant_waits
):
    server, journal = chatpool_server_factory(), tmp_path / "run.journal"
    options = {"journal": journal, "max_reasks": 0}
    first = pool_of(server).map(ITEMS[:1], parse=int, **options)
    assert not first.outcomes[0].ok
    assert [reply.parsed for reply in pool_of(server).map(ITEMS[:1], parse=str, **options)] == TEXTS[:1]
    assert len(posts(server)) == 1  # this one can use the stored answer
    pool_of(server).map(ITEMS[:1], parse=int, **options)
    assert len(posts(server)) == 2
