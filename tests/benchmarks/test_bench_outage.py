"""What the benchmarks of outages and interruptions make of what they measured, and their servers' configuration."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks import outage_server
from benchmarks.interrupts import WAYS
from benchmarks.interrupts_servers import STATES
from benchmarks.outage import Plan, evaluate
from benchmarks.registry import chosen

MOMENTS = {"begin": 100.0, "down": 105.0, "up": 115.0, "flapping": 120.0, "end": 124.0}


def every(seconds, start, end):
    return [start + n * seconds for n in range(round((end - start) / seconds))]


def notes(**changed):
    """A child's: 100 calls per second while the server is up, one probe per second while it is down."""
    up = every(0.01, 100.0, 105.0) + every(0.01, 116.5, 124.0)
    probes = every(1.0, 106.0, 115.0)
    held = [(105.5, True), (116.4, False)]
    return {"calls": len(up), "lost": 0, "errors": [], "sent": up + probes, "succeeded": up, "held": held, **changed}


def sample(**changed):
    return {"round": 0, "kind": "503", "workers": 16, **evaluate(notes(), MOMENTS), **changed}


def test_an_outage_is_summed_up():
    found = evaluate(notes(), MOMENTS)
    assert found["healthy"] == pytest.approx(100)
    assert found["recognised"] == pytest.approx(0.5)
    assert found["while_down"] == pytest.approx(9 / 9.5)
    assert found["allowed"] == pytest.approx(2)
    assert found["full_speed"] == pytest.approx(1.5)
    assert found["flapping"] == pytest.approx(100)


def test_a_slow_server_may_be_probed_once_a_second():
    slow = [*every(0.1, 100.0, 105.0), *every(0.1, 116.0, 124.0)]
    assert evaluate(notes(succeeded=slow), MOMENTS)["allowed"] == 1


def test_a_speed_that_never_comes_back_takes_as_long_as_was_measured():
    lame = every(0.01, 100.0, 105.0) + every(0.1, 116.0, 124.0)
    assert evaluate(notes(succeeded=lame), MOMENTS)["full_speed"] == pytest.approx(5)


def test_an_outage_that_the_pool_does_not_notice_cannot_be_evaluated():
    with pytest.raises(RuntimeError, match="did not notice"):
        evaluate(notes(held=[(104.0, True), (104.5, False)]), MOMENTS)


def test_the_plan_adds_up():
    assert Plan(5.0, 20.0, 5.0, flaps=3, flap_down=0.5, flap_up=1.5).whole == pytest.approx(36)


def test_the_outage_report_shows_the_worst_of_each_round_against_its_bound():
    bounds, outages = chosen(["outage"])[0].tables(
        [sample(), sample(kind="hanging", full_speed=3.5, lost=2), sample(workers=100, while_down=1.0)]
    )
    assert [row[2].split()[0] for row in bounds.rows] == ["0.50", "2.50", "2"]
    assert [row[-1] for row in bounds.rows] == ["yes", "yes", "**no**"]
    assert [row[:2] for row in outages.rows] == [["503", "C=16"], ["hanging", "C=16"], ["503", "C=100"]]
    assert outages.rows[1][-1] == "2"


def test_the_interrupts_report_has_a_bound_for_each_way_and_a_row_for_each_state():
    samples = [
        {"round": turn, "state": state, "how": how, "seconds": 0.2 + turn + (state == "reads")}
        for turn in range(2)
        for state in STATES
        for how in WAYS
    ]
    bounds, states = chosen(["interrupts"])[0].tables(samples)
    assert [row[2] for row in bounds.rows] == ["1.70 (1.20 - 2.20)"] * len(WAYS)
    assert [row[0] for row in states.rows] == list(STATES)
    assert states.rows[1][1:] == ["0.70 (0.20 - 1.20)"] * len(WAYS)


def test_every_way_to_be_down_has_its_state_in_the_servers_configuration():
    text = outage_server.config(Path("folder"), 8080)
    for state in ("hanging", "hinting"):
        assert f'state == "{state}"' in text
    assert text.count("{") == text.count("}")
    assert "load_module" in text


def test_the_server_of_the_tls_handshakes_tells_when_all_have_begun():
    with ExitStack() as stack:
        blocker = stack.enter_context(STATES["TLS handshakes"](2))
        address = urlsplit(blocker.base_url)
        for _ in range(2):
            caller = stack.enter_context(socket.create_connection((address.hostname, address.port), 10))
            caller.sendall(b"\x16")
        blocker.wait()
    assert address.scheme == "https"
