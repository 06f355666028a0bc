"""The libraries with which users mock requests work on a pool."""

from __future__ import annotations

import io
import json
from unittest import mock

import pytest
import requests
import requests_mock
import responses

from chatpool import ChatPool, RateLimitError
from chatpool.testing import FakeServer, chat_completion

URL = "https://api.example.com/v1"


def test_responses():
    with responses.RequestsMock() as mocked, ChatPool("m", base_url=URL, api_key="sk-test", max_workers=2) as pool:
        mocked.post(f"{URL}/chat/completions", json=chat_completion("mocked"))
        results = pool.map(["a", "b"])
        sent = json.loads(mocked.calls[0].request.body)
        key = mocked.calls[0].request.headers["Authorization"]
    assert [str(answer) for answer in results] == ["mocked", "mocked"]
    assert sent["model"] == "m"
    assert key == "Bearer sk-test"


def test_responses_with_a_retry(instant_waits):
    with responses.RequestsMock() as mocked, ChatPool("m", base_url=URL, max_workers=2) as pool:
        mocked.post(f"{URL}/chat/completions", status=429, headers={"retry-after": "3"}, json={"error": {}})
        mocked.post(f"{URL}/chat/completions", json=chat_completion("mocked"))
        assert pool.chat("a").text == "mocked"


EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "mocked"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)


def test_responses_with_a_stream():
    with responses.RequestsMock() as mocked, ChatPool("m", base_url=URL, api_key="sk-test") as pool:
        mocked.post(f"{URL}/chat/completions", body=EVENTS, content_type="text/event-stream")
        assert "".join(map(str, pool.stream("a"))) == "mocked"
        assert pool.chat("a", collect_stream=True).text == "mocked"
        assert json.loads(mocked.calls[0].request.body)["stream"] is True


def test_requests_mock_with_a_stream():
    with requests_mock.Mocker() as mocked, ChatPool("m", base_url=URL, api_key="sk-test") as pool:
        mocked.post(f"{URL}/chat/completions", content=EVENTS, headers={"content-type": "text/event-stream"})
        assert "".join(map(str, pool.stream("a"))) == "mocked"


def test_vcrpy_with_a_stream(tmp_path):
    vcr = pytest.importorskip("vcr")
    cassette = str(tmp_path / "cassette.yaml")
    with FakeServer(reply=lambda body: "once upon") as server, ChatPool("m", base_url=server.base_url) as pool:
        for _ in range(2):
            with vcr.use_cassette(cassette) as tape:
                assert "".join(map(str, pool.stream("a"))) == "once upon"
        assert (tape.play_count, len(server.requests)) == (1, 1)


def test_responses_with_an_exception():
    with responses.RequestsMock() as mocked, ChatPool("m", base_url=URL, retry=0) as pool:
        mocked.post(f"{URL}/chat/completions", body=ConnectionError("no route"))
        (outcome,) = pool.map(["a"]).outcomes
    assert "no route" in str(outcome.error) + str(outcome.error.__cause__)


def test_requests_mock():
    with requests_mock.Mocker() as mocked, ChatPool("m", base_url=URL, max_workers=2) as pool:
        mocked.post(f"{URL}/chat/completions", json=chat_completion("mocked"))
        assert pool.chat("a").text == "mocked"
        assert mocked.last_request.json()["messages"][0]["content"] == "a"


def test_requests_mock_with_an_error_status():
    with requests_mock.Mocker() as mocked, ChatPool("m", base_url=URL, retry=0) as pool:
        mocked.post(f"{URL}/chat/completions", status_code=429, json={"error": {"message": "slow"}})
        (outcome,) = pool.map(["a"]).outcomes
    assert isinstance(outcome.error, RateLimitError)


def test_vcrpy_records_and_replays(tmp_path):
    vcr = pytest.importorskip("vcr")
    cassette = str(tmp_path / "cassette.yaml")
    with FakeServer() as server:
        url = server.base_url
        with vcr.use_cassette(cassette), ChatPool("m", base_url=url, max_workers=1) as pool:
            recorded = pool.map(["a", "b"])
        assert len(server.requests) == 2
    with vcr.use_cassette(cassette, record_mode="none"), ChatPool("m", base_url=url, max_workers=1) as pool:
        replayed = pool.map(["a", "b"])
    assert [str(answer) for answer in replayed] == [str(answer) for answer in recorded] == ["a", "b"]


def by_hand(**attributes):
    """A Response as tests make it."""
    made = requests.Response()
    made.__dict__.update({"status_code": 200, **attributes})
    return made


ANSWER = json.dumps(chat_completion("by hand")).encode()
BY_HAND = {
    "nothing but content": lambda: by_hand(_content=ANSWER),
    "a file": lambda: by_hand(raw=io.BytesIO(ANSWER)),
    "a mock with content": lambda: mock.Mock(status_code=200, content=ANSWER, headers={}),
    "a mock with text": lambda: mock.Mock(spec=["status_code", "text"], status_code=200, text=ANSWER.decode()),
    "a mock with json": lambda: mock.MagicMock(status_code=200, json=lambda: chat_completion("by hand")),
}


@pytest.mark.parametrize("make", BY_HAND.values(), ids=BY_HAND)
def test_a_response_made_by_hand(make):
    with mock.patch("requests.Session.send", return_value=make()), ChatPool("m", base_url=URL, max_workers=1) as pool:
        assert [str(answer) for answer in pool.map(["a", "b", "c"])] == ["by hand"] * 3


@pytest.mark.parametrize("path", ["requests.Session.send", "requests.adapters.HTTPAdapter.send"])
def test_an_error_made_by_hand(path):
    refused = by_hand(status_code=429, _content=b'{"error": {"message": "slow"}}', headers={"retry-after": "3"})
    with mock.patch(path, return_value=refused), ChatPool("m", base_url=URL, retry=0) as pool:
        (outcome,) = pool.map(["a"]).outcomes
    assert isinstance(outcome.error, RateLimitError)
    assert outcome.error.retry_after == 3.0


def test_a_stream_made_by_hand():
    made = by_hand(_content=EVENTS, headers={"content-type": "text/event-stream"})
    with mock.patch("requests.Session.send", return_value=made), ChatPool("m", base_url=URL) as pool:
        assert "".join(map(str, pool.stream("a"))) == "mocked"


@pytest.mark.parametrize(
    ("given", "lacks"),
    [(mock.Mock(), "status_code"), (mock.Mock(spec=["status_code"], status_code=200), "content")],
)
def test_what_a_mock_lacks_is_named(given, lacks):
    with mock.patch("requests.Session.send", return_value=given), ChatPool("m", base_url=URL, retry=0) as pool:
        (outcome,) = pool.map(["a"]).outcomes
    assert lacks in str(outcome.error)
