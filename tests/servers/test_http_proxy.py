"""Through tinyproxy: whole answers and streams come through, and a refusal says whose it is."""

from __future__ import annotations

import pytest

from benchmarks.debian import quiet_port
from benchmarks.overload.fronts import FRONTS
from chatpool import RetryPolicy

pytestmark = pytest.mark.servers

ROWS = [f"row {number}" for number in range(40)]
WORKERS = 4
LOGIN = "BasicAuth user secret"
BRIEF = RetryPolicy(max_retries=1)
HUNG = 60  # seconds: what takes as long does not end at all


def fatal(pool):
    """What ended a run, of which no row was answered and no more than the first calls were made."""
    results = pool.map(ROWS, progress=False, run_timeout=HUNG)
    assert len(results.failures) == len(ROWS)
    assert results.fatal is not None, results.explain()
    assert sum(outcome.attempts for outcome in results.outcomes) <= WORKERS
    return str(results.fatal)


@pytest.mark.smoke
def test_answers_come_through(start_proxy, behind, origin):
    results = behind("http://" + start_proxy("tinyproxy"), origin.base_url).map(ROWS, progress=False)
    assert [reply.text for reply in results] == ROWS


def test_a_tunnel_is_kept_for_the_next_call(start_proxy, behind, origin):
    behind("http://" + start_proxy("tinyproxy"), origin.base_url).map(ROWS, progress=False)
    if origin.base_url.startswith("https:"):
        assert origin.connections <= WORKERS
    else:  # it closes those of plain http
        assert origin.connections == len(ROWS)


def test_a_stream_comes_in_pieces(start_proxy, behind, origin):
    with behind("http://" + start_proxy("tinyproxy"), origin.base_url).stream("one two three") as stream:
        pieces = [chunk.text for chunk in stream if chunk.text]
    assert len(pieces) == 3
    assert stream.completion.text == "one two three"


@pytest.mark.parametrize("name", ["proxy", "all_proxy"])
def test_the_environment_names_it_but_not_for_this_machine(name, start_proxy, behind, origin, monkeypatch):
    scheme = origin.base_url.partition(":")[0]
    proxy = "http://" + start_proxy("tinyproxy")
    monkeypatch.setenv(f"{scheme}_proxy".upper() if name == "proxy" else name.upper(), proxy)
    assert behind(None, origin.base_url).chat("ping").text == "ping"
    pool = behind(None, f"{scheme}://unknown.invalid/v1", retry=BRIEF)
    said = str(pool.map(["ping"], progress=False).failures[0].error)
    assert f"the proxy {proxy}" in said
    assert "500" in said  # it has looked for the name


def test_the_right_login_is_taken(start_proxy, behind, origin):
    proxy = "http://user:secret@" + start_proxy("tinyproxy", LOGIN)
    assert behind(proxy, origin.base_url).chat("ping").text == "ping"


@pytest.mark.parametrize(("login", "status"), [("", "407"), ("user:wrong@", "401")])
def test_a_login_that_is_refused_ends_the_run(login, status, start_proxy, behind, origin):
    address = start_proxy("tinyproxy", LOGIN)
    said = fatal(behind(f"http://{login}{address}", origin.base_url))
    assert f"proxy http://{address}" in said
    assert status in said
    assert "wrong@" not in said
    if origin.base_url.startswith("https:") or status == "407":
        assert "put user and password into the proxy's URL" in said
    assert "HTTPS_PROXY" in said
    assert origin.requests == []


def test_a_login_is_refused_whatever_the_size_of_the_request(start_proxy, behind, origin):
    pool = behind("http://" + start_proxy("tinyproxy", LOGIN), origin.base_url)
    results = pool.map(["x" * 3_000_000] * 8, progress=False, run_timeout=HUNG)
    assert "407" in str(results.fatal)


def test_a_host_that_is_not_allowed_ends_the_run(start_proxy, behind, origin, tmp_path):
    (tmp_path / "allowed").write_text("^elsewhere\\.example$\n")
    address = start_proxy("tinyproxy", f'Filter "{tmp_path}/allowed"\nFilterDefaultDeny Yes')
    said = fatal(behind(f"http://{address}", origin.base_url))
    assert "403" in said
    assert f"the proxy http://{address}" in said
    assert origin.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_down_behind_it_is_not_taken_for_refused(scheme, start_proxy, behind):
    address, server = start_proxy("tinyproxy"), f"{scheme}://127.0.0.1:{quiet_port()}"
    results = behind(f"http://{address}", f"{server}/v1", retry=BRIEF).map(ROWS[:3], progress=False)
    assert results.fatal is None
    assert {outcome.attempts for outcome in results.outcomes} == {2}
    said = str(results.failures[0].error)
    assert "500" in said
    assert f"the proxy http://{address}" in said


def test_a_proxy_that_is_not_running_is_named(behind, origin):
    proxy = f"http://127.0.0.1:{quiet_port()}"
    results = behind(proxy, origin.base_url, retry=BRIEF).map(["ping"], progress=False)
    said = str(results.failures[0].error)
    assert f"the proxy {proxy} did not connect" in said
    assert "refused" in said
    assert "HTTPS_PROXY" in said


def test_a_server_that_is_no_proxy_ends_the_run(start, behind):
    address = start(FRONTS["limit_conn"]).base_url.partition("://")[2].partition("/")[0]
    said = fatal(behind(f"http://{address}", "https://unknown.invalid/v1"))
    assert f"the proxy http://{address} does not allow connections" in said
