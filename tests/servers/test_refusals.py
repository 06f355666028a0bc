"""What nginx and haproxy say when they refuse, as docs/howto/compatible-servers.md tells it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from benchmarks.overload.fronts import FRONTS, Haproxy

pytestmark = pytest.mark.servers

CALLERS = 16


def refusals(front):
    """The responses of a burst of calls that were refused."""

    def call(_):
        body = {"model": "m", "messages": [{"role": "user", "content": "ping"}]}
        return requests.post(f"{front.base_url}/chat/completions", json=body, timeout=60)

    with ThreadPoolExecutor(CALLERS) as executor:
        found = [response for response in executor.map(call, range(CALLERS)) if response.status_code != 200]
    assert found
    return found


@pytest.mark.parametrize("name", ["limit_req", "limit_conn", "queue", "table"])
def test_by_default_it_is_503_and_a_page_of_html_without_a_hint(start, name):
    for response in refusals(start(FRONTS[name])):
        assert response.status_code == 503
        assert response.headers["content-type"] == "text/html"
        assert "retry-after" not in response.headers


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["limit_req-429", "limit_conn-429", "table-429"])
def test_it_can_be_429(start, name):
    assert {response.status_code for response in refusals(start(FRONTS[name]))} == {429}


def test_haproxy_can_say_429_where_too_many_wait(start):
    front = start(Haproxy("http-request deny deny_status 429 if { queue(model) gt 8 }", "maxconn 4"))
    assert 429 in {response.status_code for response in refusals(front)}


def test_haproxys_deny_says_403_if_it_is_not_told_a_status(start):
    front = start(FRONTS["table"]._replace(frontend=FRONTS["table"].frontend.replace(" deny_status 503", "")))
    assert {response.status_code for response in refusals(front)} == {403}
