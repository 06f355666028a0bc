"""Users' mocks of requests and urllib3 intercept what the transport sends."""

from __future__ import annotations

import pytest
import requests
import requests_mock
import responses

from chatpool._transport import Cancelled, CancelToken

URL = "http://api.test/v1"


def test_responses_intercepts(start_transport, exchange):
    with responses.RequestsMock() as mock:
        mock.post(f"{URL}/chat/completions", json={"a": 1}, headers={"X-Request-Id": "req_1"})
        reply = exchange(start_transport(URL), b'{"b": 2}')
        assert mock.calls[0].request.headers["Authorization"] == "Bearer sk-a-secret-key"
        assert mock.calls[0].request.body == b'{"b": 2}'
    assert (reply.status, reply.content, reply.headers["x-request-id"]) == (200, b'{"a": 1}', "req_1")


def test_requests_mock_intercepts(start_transport, exchange):
    with requests_mock.Mocker() as mock:
        mock.post(f"{URL}/chat/completions", json={"a": 1}, status_code=429)
        reply = exchange(start_transport(URL), b'{"b": 2}')
        assert mock.last_request.json() == {"b": 2}
    assert (reply.status, reply.content) == (429, b'{"a": 1}')


@pytest.mark.parametrize("error", [requests.exceptions.ConnectionError("no"), requests.exceptions.ReadTimeout("slow")])
def test_errors_of_mocks_come_through(error, start_transport, exchange):
    with responses.RequestsMock() as mock:
        mock.post(f"{URL}/chat/completions", body=error)
        with pytest.raises(type(error)):
            exchange(start_transport(URL))


def test_a_mock_may_redirect(start_transport, exchange):
    with responses.RequestsMock() as mock:
        mock.post(f"{URL}/old", status=307, headers={"Location": "/v1/new"})
        mock.post(f"{URL}/new", body=b"{}")
        assert exchange(start_transport(URL), path="/old").content == b"{}"


def test_a_cancelled_token_stops_a_mock(start_transport, exchange):
    token = CancelToken()
    token.cancel()
    with responses.RequestsMock(), pytest.raises(Cancelled):
        exchange(start_transport(URL), cancel=token)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_vcrpy_records_and_plays_back(tls, serve, start_transport, exchange, tmp_path):
    vcr = pytest.importorskip("vcr")

    def echo(peer):
        while request := peer.read_request():
            peer.answer(request[1])

    server = serve(echo, tls=tls)
    transport = start_transport(server.url)
    cassette = str(tmp_path / "cassette.yaml")
    for _ in range(2):
        with vcr.use_cassette(cassette, match_on=["method", "uri", "body"]) as tape:
            assert exchange(transport, b'{"a": 1}').content == b'{"a": 1}'
    assert tape.play_count == 1
    assert exchange(transport, b"after").content == b"after"
