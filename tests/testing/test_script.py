"""Which request meets which step."""

from __future__ import annotations

import itertools

import pytest

from chatpool import ConfigurationError
from chatpool.testing import Answer, EachCall, Error, FakeServer, Faults, Reset, Stall


def statuses(post, server, *prompts):
    return [post(server, prompt).status for prompt in prompts]


def test_a_step_is_for_every_request(make_server, post):
    assert statuses(post, make_server(Error(503)), *"abc") == [503, 503, 503]


def test_a_list_is_for_the_first_requests(make_server, post):
    assert statuses(post, make_server([Error(503), None, Error(400)]), *"abcd") == [503, 200, 400, 200]


def test_an_endless_iterable_never_runs_out(make_server, post):
    server = make_server(itertools.cycle([Error(500), Error(503)]))
    assert statuses(post, server, *"abcd") == [500, 503, 500, 503]


def test_a_dict_is_by_prompt(make_server, post):
    server = make_server({"bad": Error(400), "slow": [Error(503)]})
    assert statuses(post, server, "bad", "good", "slow", "slow", "bad") == [400, 200, 503, 200, 400]


def test_a_function_looks_at_the_request(make_server, post):
    server = make_server(lambda request: Error(401) if request.number % 2 else None)
    assert statuses(post, server, *"abcd") == [200, 401, 200, 401]


def test_a_list_may_hold_functions(make_server, post):
    server = make_server([lambda request: Answer(request.prompt.upper())])
    assert post(server, "ping").text == "PING"


def test_each_call_goes_through_the_steps_by_itself(make_server, post):
    server = make_server(EachCall(Error(503), Error(429)))
    assert statuses(post, server, "a", "b", "a", "a", "b", "b") == [503, 503, 429, 200, 429, 200]


def test_enqueued_steps_come_before_the_script(make_server, post):
    server = make_server(Error(503))
    server.enqueue(Error(400), None)
    assert statuses(post, server, *"abc") == [400, 200, 503]


def test_a_new_script_replaces_the_old_one_and_the_queue(make_server, post):
    server = make_server(Error(503))
    server.enqueue(Error(400))
    server.set_script([Error(409)])
    assert statuses(post, server, *"ab") == [409, 200]


def test_a_function_may_wait_without_holding_up_other_requests(make_server, post, open_socket):
    server = make_server(lambda request: server.wait_until(lambda: len(server.requests) == 2) and None)
    open_socket(server)
    assert post(server).text == "ping"


@pytest.mark.parametrize("script", ["text", 503, [503], ["text"], [Error], EachCall, Error, {"a": 503}])
def test_what_is_no_script_is_refused_where_it_is_given(script):
    with pytest.raises(TypeError, match="script"):
        FakeServer(script)


def test_what_is_no_step_is_refused_by_enqueue(make_server):
    with pytest.raises(TypeError, match="Answer"):
        make_server().enqueue("pong")


def test_a_function_that_returns_no_step_is_told_so(post):
    with pytest.raises(TypeError, match="must return a step or None"), FakeServer(lambda request: "pong") as server:
        assert post(server).status == 500


def test_a_generator_that_raises_is_no_silent_end(post):
    def steps():
        yield Error(503)
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows"), FakeServer(steps()) as server:
        assert statuses(post, server, *"ab") == [503, 500]
        assert server.in_flight == 0


def test_faults_come_in_their_shares_and_the_same_in_every_order(make_server, post):
    prompts = [f"prompt {number}" for number in range(200)]
    faults = {503: 0.3, Error(400): 0.2}
    seen = [
        dict(zip(order, statuses(post, make_server(faults=Faults(faults, seed=4)), *order)))
        for order in (prompts, prompts[::-1])
    ]
    assert seen[0] == seen[1]
    drawn = list(seen[0].values())
    assert 40 <= drawn.count(503) <= 80
    assert 20 <= drawn.count(400) <= 60
    other = dict(zip(prompts, statuses(post, make_server(faults=Faults(faults, seed=5)), *prompts)))
    assert other != seen[0]


def test_a_fault_of_one_attempt_says_nothing_about_the_next(make_server, post):
    server = make_server(faults=Faults({503: 0.5}, seed=1))
    assert {post(server, "same").status for _ in range(40)} == {200, 503}


def test_the_script_goes_before_the_faults(make_server, post):
    server = make_server([Error(400)], faults=Faults({503: 1.0}))
    assert statuses(post, server, *"ab") == [400, 503]


def test_faults_may_be_named(make_server, post):
    names = ["garbage", "hangup", "html", "reset", "stall", "truncate"]
    assert Faults({**dict.fromkeys(names, 0.1), Stall(after=10): 0.1, Reset(after=3): 0.1})
    assert post(make_server(Faults({"html": 1.0}))).status == 502


@pytest.mark.parametrize(
    ("rate", "kind", "said"),
    [
        ({"slow": 0.1}, ConfigurationError, "reset"),
        ({503: 1.1}, ConfigurationError, "share of 503"),
        ({503: -0.1}, ConfigurationError, "share of 503"),
        ({503: 0.6, 500: 0.6}, ConfigurationError, "at most 1"),
        ({1.5: 0.1}, TypeError, "a status, a name or a step"),
        ({True: 0.1}, TypeError, "a status, a name or a step"),
        ({99: 0.1}, ConfigurationError, "status"),
    ],
)
def test_wrong_shares_are_refused(rate, kind, said):
    with pytest.raises(kind, match=said):
        Faults(rate)
