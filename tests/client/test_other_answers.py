"""Redirects, methods without a body, hints of proxies, and answers that are not JSON: through whole calls."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from chatpool import APIResponseError, APIStatusError, ChatRequest, RateLimitError
from chatpool.testing import Answer, Error, Redirect, Stream, chat_completion

SOUND = Answer(body=b"ID3\x04" + bytes(range(256)), headers={"content-type": "audio/mpeg"})
SPEECH = ChatRequest({"model": "tts", "input": "hello"}, "/audio/speech")
PONG = Answer(body=chat_completion("pong"))


class TestSeeOther:
    """A call that takes longer than a gateway waits: 303 to where its answer will be."""

    def test_its_answer_is_fetched_from_there(self, serve):
        there = Redirect("/v1/chat/completions?call=fc-1", status=303)
        server, pool = serve(there, there, PONG)
        assert pool.chat("ping").text == "pong"
        assert [request.method for request in server.requests] == ["POST", "GET", "GET"]
        assert [request.raw for request in server.requests[1:]] == [b"", b""]
        assert server.requests[1].query == {"call": "fc-1"}

    @pytest.mark.parametrize("step", [Stream(["po", "ng"]), PONG])
    def test_a_stream_is_fetched_too(self, serve, step):
        # FakeServer streams where a body asks for it, so the stream is sent as bytes.
        events = b'data: {"choices": [{"index": 0, "delta": {"content": "pong"}, "finish_reason": "stop"}]}\n\n'
        answer = (
            Answer(body=events, headers={"content-type": "text/event-stream"}) if isinstance(step, Stream) else step
        )
        _, pool = serve(Redirect("/v1/there", status=303), answer)
        assert "".join(chunk.text for chunk in pool.stream("ping")) == "pong"

    def test_one_to_another_host_is_an_error_that_names_it(self, serve):
        server, pool = serve(Redirect("http://elsewhere.test/v1", status=303))
        with pytest.raises(APIStatusError, match=r"303 See Other to http://elsewhere\.test/v1"):
            pool.chat("ping")
        assert len(server.requests) == 1

    def test_one_that_leads_back_to_itself_for_ever_is_an_error(self, always):
        server, pool = always(Redirect("/v1/there", status=303), retry=0)
        with pytest.raises(Exception, match="too many redirects"):
            pool.chat("ping")
        assert len(server.requests) == 21


class TestMethods:
    """What goes out with which method."""

    @pytest.mark.parametrize("method", ["GET", "DELETE", "delete", "get"])
    @pytest.mark.parametrize("path", ["/files/f", "/chat/completions/c-1", "/chat/completions", "/responses"])
    def test_get_and_delete_have_no_body(self, serve, method, path):
        server, pool = serve(*[Answer(body={"id": "f", "deleted": True})] * 2, defaults={"temperature": 0})
        request = ChatRequest({}, path, method)
        assert pool.request(path, method=method) == {"id": "f", "deleted": True}
        assert pool.map([request], system="Be brief.", progress=False) == [{"id": "f", "deleted": True}]
        for received in server.requests:
            assert (received.method, received.raw) == (method.upper(), b"")
            assert "content-type" not in received.headers

    def test_a_body_that_is_given_is_sent(self, serve):
        server, pool = serve(Answer(body={}))
        pool.request("/things", {"ids": [1]}, method="DELETE")
        assert server.requests[0].body == {"ids": [1]}

    def test_post_has_one_in_any_case(self, serve):
        server, pool = serve(Answer(body={}))
        pool.request("/batches/b/cancel")
        assert server.requests[0].raw == b"{}"


class TestNotJson:
    """What was paid for is not lost, nor paid for twice."""

    def test_a_single_call_has_the_bytes_in_its_error(self, serve):
        server, pool = serve(SOUND)
        with pytest.raises(APIResponseError, match=r"audio/mpeg, 260 bytes\) is not JSON") as caught:
            pool.request(SPEECH.path, SPEECH.body)
        assert (caught.value.body, caught.value.attempts) == (SOUND.body, 1)
        assert len(server.requests) == 1

    def test_so_has_each_item_of_a_run(self, serve):
        server, pool = serve(SOUND, SOUND)
        results = pool.map([SPEECH, SPEECH], progress=False)
        assert [outcome.error.body for outcome in results.outcomes] == [SOUND.body] * 2
        assert results.fatal is None
        assert len(server.requests) == 2

    def test_a_journal_takes_it(self, serve, tmp_path):
        server, pool = serve(SOUND)
        results = pool.map([SPEECH], progress=False, journal=tmp_path / "journal.jsonl")
        assert results.outcomes[0].error.body == SOUND.body
        again = pool.map([SPEECH], progress=False, journal=tmp_path / "journal.jsonl")
        assert (again.outcomes[0].error.body, len(server.requests)) == (SOUND.body, 1)

    def test_many_of_them_end_no_run(self, always):
        server, pool = always(SOUND, max_workers=2)
        assert pool.map([SPEECH] * 30, progress=False).fatal is None
        assert len(server.requests) == 30

    @pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
    def test_a_delete_may_be_answered_with_nothing_at_all(self, serve, kind):
        server, pool = serve(Answer(body=b"", headers={"content-type": kind}))
        assert pool.request("/files/f", method="DELETE") is None
        assert len(server.requests) == 1


class TestStatusesAndHints:
    """Too early, and when to come back."""

    def test_too_early_is_tried_again(self, serve):
        server, pool = serve(Error(425), PONG)
        assert pool.chat("ping").text == "pong"
        assert len(server.requests) == 2

    def test_a_date_is_taken_by_the_servers_clock(self, serve):
        hours_off = time.time() - 5 * 3600
        headers = {"Date": formatdate(hours_off, usegmt=True), "Retry-After": formatdate(hours_off + 300, usegmt=True)}
        server, pool = serve(Error(429, headers=headers))
        with pytest.raises(RateLimitError) as caught:
            pool.chat("ping")
        assert caught.value.retry_after == 300
        assert len(server.requests) == 1

    @pytest.mark.parametrize("place", ["header", "body"])
    def test_a_days_quota_ends_a_run_at_once_and_says_for_how_long(self, always, place):
        reset = {"X-RateLimit-Reset": str(int((time.time() + 9 * 3600) * 1000))}
        error = {
            "code": 429,
            "message": "free-models-per-day",
            "metadata": {"headers": reset if place == "body" else {}},
        }
        step = Answer(status=429, body={"error": error}, headers=reset if place == "header" else {})
        server, pool = always(step, max_workers=2)
        results = pool.map(["ping"] * 50, progress=False)
        assert 8.9 * 3600 < results.fatal.retry_after <= 9 * 3600
        assert len(server.requests) <= 2
