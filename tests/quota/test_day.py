"""Limits per day that processes share: remembered over restarts, never exceeded, used to the last unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._engine.leases import LeaseHolder
from chatpool._policy.day_window import DAY_SECONDS, SLOT_LIFE_SECONDS, DayLimits
from chatpool._quota import SharedLimit, Sharing
from chatpool._quota import day as day_module
from chatpool._quota.day import DayBook, HostTime, pack_day, unpack_day
from chatpool._quota.file import FileBackend
from chatpool._quota.shared_limit import LocalBackend, Unavailable
from chatpool._values import Verdict
from chatpool.testing import FakeClock

HOUR = 3600.0


class Host:
    """The clocks of a host, and its restarts."""

    def __init__(self):
        self.wall, self.uptime, self.starts = 1_700_000_000.0, 5_000.0, 1

    def __call__(self):
        return HostTime(self.wall, self.uptime, self.starts)

    def pass_time(self, seconds):
        self.wall += seconds
        self.uptime += seconds

    def restart(self, seconds=60.0):
        self.wall += seconds
        self.uptime, self.starts = 3.0, self.starts + 1


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def start(tmp_path, host):
    """A function that starts one process more, with the limit that all share."""
    started = []

    def start(**limits):
        backend = FileBackend(
            tmp_path / "own" / f"{host.starts}.quota",
            lambda: host.uptime,
            day_path=tmp_path / "own" / "one.day",
            host_now=host,
        )
        started.append(SharedLimit(backend, day=DayLimits(**limits), now=lambda: host.uptime))
        return started[-1]

    yield start
    for one in started:
        one.close()


def granted(limit, count, **ask):
    return sum(limit.reserve(**ask).granted for _ in range(count))


def test_processes_share_a_day_and_a_later_one_remembers_it(start, host):
    assert granted(start(requests=10), 4) == 4
    assert granted(start(requests=10), 4) == 4
    host.pass_time(HOUR)
    later = start(requests=10)
    assert granted(later, 5) == 2
    refused = later.reserve()
    assert (refused.granted, refused.wait) == (False, pytest.approx(SLOT_LIFE_SECONDS - HOUR))
    host.pass_time(refused.wait)
    assert granted(later, 12) == 8  # the two of later are a day old in an hour


def test_it_is_remembered_over_a_restart_of_the_host(start, host):
    assert granted(start(requests=3), 3) == 3
    host.restart()
    assert granted(start(requests=3), 1) == 0
    host.restart(DAY_SECONDS)
    assert granted(start(requests=3), 1) == 0  # a minute and a day, less than a slot and a day
    host.pass_time(HOUR)
    assert granted(start(requests=3), 4) == 3


@pytest.mark.parametrize("jump", [-400 * DAY_SECONDS, -HOUR, HOUR, 400 * DAY_SECONDS])
def test_setting_the_clock_makes_a_day_no_shorter_and_no_longer(start, host, jump):
    limit = start(requests=3)
    assert granted(limit, 3) == 3
    host.wall += jump
    assert granted(limit, 1) == 0
    host.pass_time(DAY_SECONDS - 10)
    assert granted(limit, 1) == 0
    host.wall -= jump
    assert granted(limit, 1) == 0
    host.pass_time(SLOT_LIFE_SECONDS - DAY_SECONDS + 10)
    assert granted(limit, 4) == 3


def test_a_clock_that_was_wrong_before_a_restart_holds_a_day_back_once_at_most(start, host):
    host.wall += 4000 * DAY_SECONDS
    assert granted(start(requests=1), 1) == 1
    host.wall -= 4000 * DAY_SECONDS
    host.restart()
    assert granted(start(requests=1), 1) == 0
    host.restart(SLOT_LIFE_SECONDS)
    assert granted(start(requests=1), 1) == 1


def test_hosts_with_other_clocks_do_not_hurry_the_day_along(start, host, tmp_path):
    """Two that share a home directory, one half a minute ahead."""
    ahead = Host()
    ahead.wall, ahead.starts = host.wall + 30, 77
    one = start(requests=1)
    other = SharedLimit(
        FileBackend(
            tmp_path / "own" / "other.quota", lambda: 1.0, day_path=tmp_path / "own" / "one.day", host_now=ahead
        ),
        day=DayLimits(requests=1),
    )
    assert one.reserve().granted
    for _ in range(4000):
        host.pass_time(1)
        ahead.pass_time(1)
        assert not other.reserve().granted
        assert not one.reserve().granted
    other.close()


def test_what_was_reserved_and_not_sent_is_there_again(start):
    limit = start(requests=2, tokens=100)
    slots = [limit.reserve(tokens=50) for _ in range(2)]
    assert limit.reserve(tokens=1).granted is False
    limit.correct(slots[0], 0.0, sent=False)
    again = limit.reserve(tokens=50)
    assert again.granted
    limit.correct(again, 30.0)
    limit.correct(slots[1], 0.0)  # refused by its server: sent all the same
    assert limit.reserve(tokens=1).granted is False
    assert limit.day_left.known == (0.0, 70.0)


def test_the_minute_decides_when_and_the_day_whether(start, host, tmp_path):
    limit = SharedLimit(
        FileBackend(tmp_path / "x.quota", lambda: host.uptime, day_path=tmp_path / "own" / "one.day", host_now=host),
        requests_per_minute=60,
        day=DayLimits(requests=4),
    )
    waits = [limit.reserve().wait for _ in range(4)]
    assert waits == pytest.approx([0, 1, 2, 3], abs=0.1)
    assert limit.reserve(max_wait=1).wait > DAY_SECONDS
    limit.close()


def test_who_has_no_time_for_the_minute_takes_nothing_of_the_day(start, host, tmp_path):
    limit = SharedLimit(
        FileBackend(tmp_path / "x.quota", lambda: host.uptime, day_path=tmp_path / "own" / "one.day", host_now=host),
        requests_per_minute=1,
        day=DayLimits(requests=2),
    )
    assert limit.reserve().granted
    assert granted(limit, 5, max_wait=1) == 0
    assert limit.day_left.known == (1.0, None)
    limit.close()


def test_a_damaged_count_begins_anew_with_a_warning(start, tmp_path, caplog):
    start(requests=1).reserve()
    path = tmp_path / "own" / "one.day"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert start(requests=1).reserve().granted
    assert "one.day is damaged" in caplog.text


@given(
    slots=st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e12)), max_size=290),
    boot=st.integers(0, 2**32),
    cut=st.integers(1, 40),
)
def test_a_count_is_read_as_it_was_written_and_not_at_all_if_cut(slots, boot, cut):
    book = DayBook(last=HostTime(5.5, 6.5, boot))
    book.window.slots, book.window.touched = [list(slot) for slot in slots], 7.5
    data = pack_day(book)
    read = unpack_day(data)
    assert (read.window.slots, read.window.touched, read.last) == (book.window.slots, 7.5, book.last)
    assert unpack_day(data[:-cut]) is None


def test_no_file_grows_beyond_what_is_read(start, host, tmp_path):
    limit = start(requests=1e6)
    for _ in range(400):
        host.pass_time(301)
        limit.reserve()
    assert (tmp_path / "own" / "one.day").stat().st_size < 8000


class TestLeases:
    """What an engine acquires for its calls: nothing of it is lost that was not sent."""

    @pytest.fixture
    def holder(self, hand_clock):
        return LeaseHolder(SharedLimit(LocalBackend(hand_clock), day=DayLimits(requests=1, tokens=100), now=hand_clock))

    def take(self, holder):
        request = holder.request(50.0)
        holder.granted(request.acquire(), 0.0)
        return holder.take(0.0, 50.0)

    def test_a_call_that_was_not_sent_gives_it_back(self, holder):
        for _ in range(3):
            self.take(holder).settle(None)
        self.take(holder).settle(Verdict("throttled"))
        assert self.take(holder) is None
        assert holder.day_wait(0.0) > DAY_SECONDS
        assert holder.limit.day_left.known == (0.0, 100.0)

    def test_so_does_a_pool_that_ends_with_one(self, holder):
        request = holder.request(50.0)
        holder.granted(request.acquire(), 0.0)
        assert holder.limit.day_left.requests == 0
        holder.close()
        assert self.take(holder) is not None

    def test_so_does_one_that_came_too_late(self, holder):
        lease = self.take(holder)
        renewed = lease.renewed(FakeClock())
        assert renewed.slot.granted

    def test_a_day_without_room_is_asked_again_after_a_minute(self, holder):
        lease = self.take(holder)
        assert self.take(holder) is None
        assert (holder.day_wait(59.0) > 0, holder.day_wait(61.0)) == (True, 0.0)
        assert holder.day_has_room_in(61.0) > DAY_SECONDS - 61
        lease.settle(None)  # by another process, say
        assert self.take(holder) is not None
        assert holder.day_has_room_in(61.0) == 0


class Place(LocalBackend):
    """A place that can be made to disappear."""

    gone = False

    def reserve(self, *args, **options):
        if self.gone:
            raise Unavailable("the place is gone")
        return super().reserve(*args, **options)

    def correct(self, *args, **options):
        if self.gone:
            raise Unavailable("the place is gone")
        super().correct(*args, **options)


class TestWithoutThePlace:
    def test_nothing_is_sent_until_it_is_back(self, hand_clock, caplog):
        place = Place(hand_clock)
        one, other = (SharedLimit(place, day=DayLimits(requests=20), now=hand_clock) for _ in range(2))
        assert granted(one, 4) + granted(other, 4) == 8
        place.gone = True
        refused = one.reserve()
        assert (refused.granted, refused.wait) == (False, 1.0)
        assert granted(one, 20) == 0
        assert caplog.text.count("until it is back nothing is sent") == 1
        place.gone = False
        hand_clock.time += refused.wait
        assert granted(one, 20) == 12
        assert "is back" in caplog.text

    def test_what_was_used_meanwhile_is_told_later(self, hand_clock):
        place = Place(hand_clock)
        limit = SharedLimit(place, day=DayLimits(tokens=1000), now=hand_clock)
        slot, other = limit.reserve(tokens=100), limit.reserve(tokens=100)
        place.gone = True
        limit.correct(slot, 400)
        assert not limit.reserve(tokens=1).granted
        limit.correct(other, 300)
        place.gone = False
        hand_clock.time += 30
        assert limit.reserve(tokens=200).granted
        assert limit.reserve(tokens=100).granted  # 400, 300, 200 and 100
        assert not limit.reserve(tokens=1).granted


def test_names_and_models_have_days_of_their_own(own_cache):
    first = Sharing("a", day=DayLimits(requests=1)).limit("http://server", "m")
    assert first.reserve().granted
    for name, model in (("a", "n"), ("b", "m")):
        assert Sharing(name, day=DayLimits(requests=1)).limit("http://server", model).reserve().granted
    again = Sharing("a", day=DayLimits(requests=1)).limit("http://server", "m")
    assert not again.reserve().granted


def test_the_hosts_uptime_counts_its_sleep_and_never_goes_back():
    times = [day_module.host_time(1).uptime for _ in range(3)]
    assert times == sorted(times)
