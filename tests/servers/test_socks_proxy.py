"""Through microsocks, a SOCKS 5 proxy: answers come through, and a refusal says whose it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.debian import quiet_port
from chatpool import RetryPolicy

pytestmark = pytest.mark.servers

ROWS = [f"row {number}" for number in range(40)]
WORKERS = 4
LOGIN = ("-u", "user", "-P", "secret")
BRIEF = RetryPolicy(max_retries=1)
HUNG = 60  # seconds: what takes as long does not end at all


@pytest.mark.smoke
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_answers_come_through_and_connections_are_kept(scheme, start_proxy, behind, origin):
    results = behind(f"{scheme}://{start_proxy('microsocks')}", origin.base_url).map(ROWS, progress=False)
    assert [reply.text for reply in results] == ROWS
    assert origin.connections <= WORKERS


def test_a_stream_comes_in_pieces(start_proxy, behind, origin):
    with behind("socks5h://" + start_proxy("microsocks"), origin.base_url).stream("one two three") as stream:
        assert [chunk.text for chunk in stream if chunk.text] == ["one", " two", " three"]


def test_the_environment_names_it(start_proxy, behind, monkeypatch):
    address = start_proxy("microsocks")
    monkeypatch.setenv("ALL_PROXY", f"socks://{address}/")
    pool = behind(None, "http://unknown.invalid/v1", retry=BRIEF)
    said = str(pool.map(["ping"], progress=False).failures[0].error)
    assert f"through the proxy socks5h://{address}" in said
    assert "General SOCKS server failure" in said  # it has looked for the name, as the h asks


def test_the_right_login_is_taken(start_proxy, behind, origin):
    proxy = "socks5h://user:secret@" + start_proxy("microsocks", *LOGIN)
    assert behind(proxy, origin.base_url).chat("ping").text == "ping"


@pytest.mark.parametrize("login", ["", "user:wrong@"])
def test_a_login_that_is_refused_ends_the_run(login, start_proxy, behind, origin):
    address = start_proxy("microsocks", *LOGIN)
    results = behind(f"socks5h://{login}{address}", origin.base_url).map(ROWS, progress=False, run_timeout=HUNG)
    said = str(results.fatal)
    assert f"the proxy socks5h://{address} refused to connect" in said
    assert "put user and password into the proxy's URL" in said
    assert "wrong@" not in said
    assert sum(outcome.attempts for outcome in results.outcomes) <= WORKERS
    assert origin.requests == []


def test_a_server_that_is_down_behind_it_is_not_taken_for_the_proxy(start_proxy, behind):
    address, server = start_proxy("microsocks"), f"http://127.0.0.1:{quiet_port()}/v1"
    results = behind(f"socks5h://{address}", server, retry=BRIEF).map(ROWS[:3], progress=False)
    assert results.fatal is None
    assert {outcome.attempts for outcome in results.outcomes} == {2}
    said = str(results.failures[0].error)
    assert f"no connection to {server}" in said
    assert "0x05: Connection refused" in said


def test_a_proxy_that_is_not_running_is_named(behind, origin):
    proxy = f"socks5h://127.0.0.1:{quiet_port()}"
    results = behind(proxy, origin.base_url, retry=BRIEF).map(["ping"], progress=False)
    assert f"the proxy {proxy} did not take the connection" in str(results.failures[0].error)


WITHOUT_PYSOCKS = """
import sys
sys.modules["socks"] = None
import chatpool
pool = chatpool.ChatPool("m", base_url="http://127.0.0.1:9/v1", proxies={"all": "socks5h://" + sys.argv[1]})
results = pool.map(["row"] * 100, progress=False)
print(sum(outcome.attempts for outcome in results.outcomes) <= 16, results.fatal)
"""


def test_without_pysocks_the_run_ends_and_says_what_to_install(start_proxy):
    command = [sys.executable, "-c", WITHOUT_PYSOCKS, start_proxy("microsocks")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=HUNG, check=True).stdout
    assert said.startswith("True the proxy for ")
    assert 'pip install "requests[socks]"' in said
