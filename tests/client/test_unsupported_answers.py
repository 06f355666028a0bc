"""Answers that wait for something that a caller cannot give yet: an error that says so, and no empty success."""

from __future__ import annotations

import pytest

from chatpool import APIResponseError
from chatpool.testing import Answer

QUEUED = {"id": "resp_1", "object": "response", "status": "queued", "output": [], "model": "m"}
ASKING = {
    "id": "resp_2",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [{"type": "mcp_approval_request", "id": "mcpr_1", "name": "delete", "arguments": "{}"}],
}


@pytest.mark.parametrize(
    ("body", "says"), [(QUEUED, "not asked for with background=True"), (ASKING, "require_approval")]
)
class TestAResponse:
    def test_of_a_call_it_is_an_error_that_says_what_to_do(self, serve, body, says):
        server, pool = serve(Answer(body=body))
        with pytest.raises(APIResponseError, match=f"{says}.*the same request is not sent again") as caught:
            pool.responses("ping")
        assert (caught.value.code, caught.value.body["id"]) == ("not_supported", body["id"])
        assert len(server.requests) == 1  # it is billed

    def test_of_a_run_it_fails_its_item(self, serve, body, says):
        _, pool = serve(Answer(body=body))
        results = pool.map([{"input": "ping"}])
        assert says in str(results.failures[0].error)

    def test_in_a_journal_it_is_not_sent_again(self, serve, body, says, tmp_path):
        server, pool = serve(Answer(body=body))
        for _ in range(2):
            assert pool.map([{"input": "ping"}], journal=tmp_path / "run.journal") == [None]
        assert len(server.requests) == 1


def test_a_stream_that_ends_in_a_request_for_approval_is_an_error(serve):
    events = b'event: response.completed\ndata: {"type": "response.completed", "response": %s}\n\n'
    body = str(ASKING).replace("'", '"').encode()
    _, pool = serve(Answer(body=events % body, headers={"content-type": "text/event-stream"}))
    with pytest.raises(APIResponseError, match="require_approval"):
        pool.responses("ping", collect_stream=True)


def test_it_can_be_fetched_by_hand(serve):
    _, pool = serve(Answer(body={**QUEUED, "status": "in_progress"}))
    assert pool.request("/responses/resp_1", method="GET")["status"] == "in_progress"
