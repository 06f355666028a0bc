"""Background responses at a FakeServer."""

from __future__ import annotations

import pytest

from chatpool.errors import ConfigurationError
from chatpool.testing import Answer, BackgroundScenario, Error, FakeServer, LostAnswer


@pytest.fixture
def api_with(make_server, api_of):
    return lambda **options: api_of(make_server(**options))


def start(api, **fields):
    return api.post("/responses", {"model": "m", "input": "ping", "background": True, **fields}).json


def poll(api, response, times=1):
    return [api.get(f"/responses/{response['id']}").json for _ in range(times)][-1]


def text_of(response):
    return response["output"][0]["content"][0]["text"]


def test_each_poll_sees_the_next_state(api_with):
    api = api_with()
    response = start(api, metadata={"row": "7"})
    assert (response["status"], response["output"], response["background"]) == ("queued", [], True)
    polls = [poll(api, response) for _ in range(4)]
    assert [answer["status"] for answer in polls] == ["queued", "in_progress", "completed", "completed"]
    assert {answer["id"] for answer in polls} == {response["id"]}
    assert (text_of(polls[-1]), polls[-1]["metadata"]) == ("ping", {"row": "7"})
    assert polls[-1]["usage"]["total_tokens"] == 2


def test_other_responses_are_answered_at_once(api_with):
    api = api_with()
    assert start(api, background=False)["status"] == "completed"
    assert (
        "event: response.completed"
        in api.post("/responses", {"model": "m", "input": "ping", "background": True, "stream": True}).raw.decode()
    )
    assert api.server.background == []


def test_a_held_response_waits_for_the_server_to_be_told(api_with):
    api = api_with(background=BackgroundScenario(polls=None))
    first, second = start(api), start(api)
    assert poll(api, first, 3)["status"] == "queued"
    assert api.server.advance(first["id"]) == 1
    assert [response["status"] for response in api.server.background] == ["in_progress", "queued"]
    assert api.server.advance() == 2
    assert api.server.advance() == 1
    assert api.server.advance() == 0
    assert poll(api, second)["status"] == "completed"


def test_the_scenario_says_how_a_response_ends(api_with):
    error = ("rate_limit_exceeded", "too many")
    scenarios = [
        BackgroundScenario(polls=0, end="failed", error=error),
        BackgroundScenario(polls=0, end="incomplete", reason="content_filter"),
        BackgroundScenario(polls=0, end="cancelled"),
    ]
    api = api_with(background=scenarios)
    failed, incomplete, cancelled, completed = (poll(api, start(api), 3) for _ in range(4))
    assert (failed["status"], failed["error"]) == ("failed", {"code": error[0], "message": error[1]})
    assert (incomplete["status"], incomplete["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert text_of(incomplete) == "ping"
    assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
    assert completed["status"] == "completed"


def test_the_script_and_reply_say_what_the_text_is(api_with):
    api = api_with(script=[Answer("scripted")], reply=lambda body: body["input"].upper())
    one, two = start(api), start(api)
    assert (text_of(poll(api, one, 3)), text_of(poll(api, two, 3))) == ("scripted", "PING")


def test_a_reply_can_be_the_whole_body(api_with):
    api = api_with(reply=lambda body: {"id": "own", "status": "incomplete", "output": []})
    response = start(api)
    answer = poll(api, response, 3)
    assert (answer["id"], answer["status"]) == (response["id"], "incomplete")


def test_a_reply_that_raises_leaves_the_response_as_it_was(api_of):
    def reply(body):
        raise AssertionError("no such prompt")

    with pytest.raises(AssertionError, match="no such prompt"), FakeServer(reply=reply) as server:
        api = api_of(server)
        response = start(api)
        assert "no such prompt" in poll(api, response, 3)["error"]["message"]
        assert server.background[0]["status"] == "in_progress"


def test_a_response_is_cancelled(api_with):
    api = api_with()
    response = start(api)
    for _ in range(2):
        assert api.post(f"/responses/{response['id']}/cancel").json["status"] == "cancelled"
    assert poll(api, response, 3)["status"] == "cancelled"


def test_a_response_that_has_ended_stays_as_it_is(api_with):
    api = api_with(background=BackgroundScenario(polls=0))
    response = start(api)
    poll(api, response)
    assert api.post(f"/responses/{response['id']}/cancel").json["status"] == "completed"


def test_a_response_is_deleted(api_with):
    api = api_with()
    response = start(api)
    path = f"/responses/{response['id']}"
    assert api.delete(path).json == {"id": response["id"], "object": "response", "deleted": True}
    for answer in (api.get(path), api.delete(path), api.post(f"{path}/cancel")):
        assert answer.status == 404
        assert response["id"] in answer.json["error"]["message"]


@pytest.mark.parametrize(("fields", "param"), [({"input": ""}, "input"), ({"store": False}, "store")])
def test_a_wrong_response_is_refused(api_with, fields, param):
    assert start(api_with(), **fields)["error"]["param"] == param


def test_faults_meet_the_polls_too(api_with):
    api = api_with(script=[LostAnswer(Error(504)), Error(503)])
    assert start(api)["error"]
    [response] = api.server.background
    assert api.get(f"/responses/{response['id']}").status == 503
    assert poll(api, response)["status"] == "queued"


@pytest.mark.parametrize("options", [{"end": "expired"}, {"polls": {"validating": 1}}])
def test_a_wrong_scenario_is_refused(options):
    with pytest.raises(ConfigurationError):
        BackgroundScenario(**options)
