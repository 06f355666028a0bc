"""A shared limit whose others cannot be reached, and one that is asked by other processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys

import pytest
from quota_agreement import SECOND

from chatpool._quota import SharedLimit, Sharing
from chatpool._quota.gcra import MAX_SHARERS
from chatpool._quota.shared_limit import LocalBackend, Unavailable


class Flaky(LocalBackend):
    """A place that can be made to disappear."""

    display_name = "the place"

    def __init__(self, now):
        super().__init__(now)
        self.gone = False
        self.asked = 0

    def _check(self):
        self.asked += 1
        if self.gone:
            raise Unavailable("the place is gone")

    def reserve(self, *args, **options):
        self._check()
        return super().reserve(*args, **options)

    def correct(self, *args, **options):
        self._check()
        super().correct(*args, **options)

    def pause(self, *args, **options):
        self._check()
        super().pause(*args, **options)

    def status(self, *args):
        self._check()
        return super().status(*args)


@pytest.fixture
def place(hand_clock):
    return Flaky(hand_clock)


@pytest.fixture
def make(place, hand_clock):
    """A function that makes the limit of one process more."""

    def make(**options):
        options = {"requests_per_minute": 600, "tokens_per_minute": 6000, **options}
        return SharedLimit(place, now=hand_clock, **options)

    return make


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("counted", "share"), [(MAX_SHARERS - 1, MAX_SHARERS - 1), (MAX_SHARERS, 1_000)])
def test_the_stated_number_counts_again_where_there_are_more_than_are_counted(make, place, caplog, counted, share):
    limits = [make(sharers=1_000) for _ in range(counted)]
    for limit in limits:
        limit.reserve()
    place.gone = True
    limits[-1].reserve()
    assert f"this process keeps to 1/{share} of the limit" in warnings(caplog)[0]


def test_each_has_its_share_while_the_place_is_gone(make, place, caplog):
    ones = [make() for _ in range(3)]
    for one in ones * 2:
        one.reserve()
    place.gone = True
    waits = [ones[0].reserve().wait for _ in range(5)]
    gaps = [later - earlier for earlier, later in zip(waits, waits[1:])]
    full = 60 * SECOND / (600 - 10 + 1)
    assert gaps == pytest.approx([3 * full] * 4)
    assert waits[0] >= full  # no burst: it may just have been used
    assert not ones[0].is_shared
    assert warnings(caplog) == [
        "shared limit: the place is gone; until it is back this process keeps to 1/3 of the limit"
    ]


def test_a_share_is_assumed_when_nobody_ever_said_how_many_there_are(make, place, caplog):
    place.gone = True
    make().reserve()
    make(sharers=9).reserve()
    assert "1/4 of the limit" in warnings(caplog)[0]
    assert "1/9 of the limit" in warnings(caplog)[1]


def test_it_is_looked_for_now_and_then_and_found_again(make, place, hand_clock, caplog):
    one = make()
    place.gone = True
    for _ in range(50):
        one.reserve()
    assert place.asked == 1
    hand_clock.time += 1.1
    one.reserve()
    one.reserve()
    assert place.asked == 2
    place.gone = False
    hand_clock.time += 2.1
    assert one.reserve().wait == 0
    assert one.is_shared
    assert warnings(caplog)[-1] == "shared limit: the place is back"
    assert len(warnings(caplog)) == 2


def test_it_is_looked_for_less_and_less_often(make, place, hand_clock):
    one = make()
    place.gone = True
    for _ in range(1200):
        one.reserve(max_wait=0)
        hand_clock.time += 0.1
    assert 8 <= place.asked <= 13  # at 0, 1, 3, 7, 15, 30 ... 120 s


def test_the_pause_that_it_knows_of_holds_while_the_place_is_gone(make, place):
    one = make()
    one.pause(30)
    place.gone = True
    assert one.reserve().wait >= 30
    assert one.status().paused_for == 30


def test_a_pause_while_the_place_is_gone_holds_this_process(make, place):
    one = make()
    place.gone = True
    one.pause(20)
    assert one.reserve().wait >= 20


def test_what_was_not_needed_goes_back_to_who_gave_it(make, place, hand_clock):
    one, other = make(requests_per_minute=None), make(requests_per_minute=None)
    slot = one.reserve(tokens=3000)
    assert other.status().wait > 0
    one.correct(slot, used=0)
    assert other.reserve(tokens=50).wait == 0
    slot = one.reserve(tokens=3000)
    place.gone = True
    one.correct(slot, used=0)  # nowhere to give it back to
    own = one.reserve(tokens=10)
    place.gone = False
    hand_clock.time += 1.1
    one.correct(own, used=5000)  # not the others' business
    assert other.reserve(tokens=10).wait < 60


def test_a_call_that_cannot_wait_reserves_nothing(make):
    one = make(requests_per_minute=60)
    assert one.reserve().granted
    assert not one.reserve(max_wait=0.1).granted
    assert one.reserve().wait == pytest.approx(SECOND)


def test_processes_are_told_apart_and_a_forked_child_is_another(make, place):
    one = make()
    assert [one.reserve() and one.status().sharers, make().reserve() and one.status().sharers] == [1, 2]
    one.after_fork_in_child()
    one.reserve()
    assert one.status().sharers == 3


def test_a_name_and_a_line_make_a_limit_of_their_own():
    def limit(scope, line):
        return Sharing(scope, requests_per_minute=60).limit(*line)

    first = limit("team", ("http://a", "m"))
    assert first.reserve().wait == 0
    assert limit("team", ("http://a", "m")).reserve().wait > 0
    for scope, line in [("team", ("http://a", "n")), ("team", ("http://b", "m")), ("other", ("http://a", "m"))]:
        assert limit(scope, line).reserve().wait == 0


def test_without_the_package_for_redis_it_is_said_how_to_get_it(monkeypatch):
    from chatpool import ConfigurationError

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'chatpool\[redis\]'"):
        Sharing("redis://127.0.0.1:1/team")


def used_share(found, per_second, seconds):
    """What was given within ``seconds`` of the first moment, as a share of what the limit allows there."""
    slots = sorted(at for one in found for thread in one["slots"] for at, _ in thread)
    given = sum(at < slots[0] + seconds for at in slots)
    burst = per_second
    emitted = seconds * (per_second * 60 - burst + 1) / 60
    return given / (burst + emitted)


def test_processes_use_the_whole_limit_and_every_thread_is_served(sharers, best_share):
    def used():
        found = sharers(4, scope="test", limits={"requests_per_minute": 6000}, seconds=2.0, threads=8)
        assert min(len(thread) for one in found for thread in one["slots"]) >= 1
        assert all(one["shared"] for one in found)
        assert {one["sharers"] for one in found} == {4}
        return used_share(found, 100, 1.8)

    assert best_share(used, at_most=1.005) >= 0.97


def test_a_pause_reaches_the_other_processes(sharers):
    limits = {"requests_per_minute": 6000}
    Sharing("test", **limits).limit("http://server", "m").pause(30.0)
    found = sharers(2, scope="test", limits=limits, seconds=0.5, threads=4)
    assert [thread for one in found for thread in one["slots"] if thread] == []


CHILD = """
import sys
from chatpool._quota import Sharing
limit = Sharing("test", requests_per_minute=60).limit("http://server", "m")
moments = [limit.reserve().at for _ in range(3)]
from chatpool._quota.file import locked
with locked(limit._backend._minute._descriptor):
    print(moments[-1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_process_that_is_killed_holds_nothing_but_what_it_had_reserved(caplog):
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        last = float(child.stdout.readline())  # it has the lock by now
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    limit = Sharing("test", requests_per_minute=60).limit("http://server", "m")
    assert limit.reserve().at - last > 0.99 * SECOND
    assert warnings(caplog) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_shares_the_limit_without_more_ado():
    limit = Sharing("test", requests_per_minute=60).limit("http://server", "m")
    first = limit.reserve().at
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr((limit.reserve().at, limit.status().sharers)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    second, sharers = eval(os.read(reader, 1000))  # noqa: S307 - of our own child
    os.close(reader)
    # At least: forking may take longer than a second, which is then lost.
    assert second - first > 0.99 * SECOND
    assert limit.reserve().at - second > 0.99 * SECOND
    assert sharers == 2


def test_no_answer_counts_for_more_than_a_minute():
    limit = Sharing("test", tokens_per_minute=6000).limit("http://server", "m")
    limit.correct(limit.reserve(tokens=100), 10.0**9)
    assert 50 < limit.reserve(tokens=100).wait <= 62.5
