"""collect_stream=True: whole answers, out of streams."""

from __future__ import annotations

import pytest

import chatpool
from chatpool import ParseError
from chatpool.testing import Answer, Stream


def test_the_answer_is_the_one_that_would_have_come_whole(serve):
    server, pool = serve(Stream(["Once", " upon"]), Answer("Once upon"))
    streamed, whole = pool.chat("tell", collect_stream=True), pool.chat("tell")
    assert streamed.text == whole.text == "Once upon"
    assert streamed.message == whole.message
    assert (streamed.finish_reason, streamed.usage) == (whole.finish_reason, whole.usage)
    assert [request.body.get("stream") for request in server.requests] == [True, None]


@pytest.mark.parametrize("path", [{"input": "tell"}, {"prompt": "tell"}])
def test_other_paths_that_stream(serve, path):
    server, pool = serve()
    assert pool.chat(path, collect_stream=True).text == "tell"
    assert server.requests[0].body["stream"] is True


def test_every_method_with_whole_answers_takes_it(serve):
    server, pool = serve()
    assert pool.submit("a", collect_stream=True).result().text == "a"
    assert [str(answer) for answer in pool.map(["b", "c"], collect_stream=True)] == ["b", "c"]
    assert [str(outcome.value) for outcome in pool.imap(["d", "e"], collect_stream=True)] == ["d", "e"]
    assert [str(outcome.value) for outcome in pool.as_completed(["f"], collect_stream=True)] == ["f"]
    assert [str(answer) for answer in chatpool.map(["g"], base_url=server.base_url, collect_stream=True)] == ["g"]
    assert pool.responses("h", collect_stream=True).text == "h"
    assert all(request.body["stream"] is True for request in server.requests)


def test_the_outcomes_request_is_the_one_that_was_asked(serve):
    _, pool = serve()
    (outcome,) = pool.map(["a"], collect_stream=True).outcomes
    assert "stream" not in outcome.request.body


def test_it_is_true_or_false(serve):
    _, pool = serve()
    with pytest.raises(TypeError, match="collect_stream must be True or False"):
        pool.chat("a", collect_stream="yes")


def test_connections_are_used_again(serve):
    server, pool = serve(max_workers=1)
    pool.map(["a"] * 5, collect_stream=True)
    assert server.connections == 1


def test_answers_are_parsed_and_asked_for_again(serve):
    server, pool = serve(Stream(["no ", "number"]), Stream(["4", "2"]))
    assert pool.chat("count", parse=int, collect_stream=True).parsed == 42
    assert [request.body["stream"] for request in server.requests] == [True, True]
    with pytest.raises(ParseError):
        pool.chat("count", parse=int, max_reasks=0, collect_stream=True)


def test_identical_requests_are_sent_once(serve):
    server, pool = serve()
    assert [str(answer) for answer in pool.map(["a", "a", "a"], dedupe=True, collect_stream=True)] == ["a"] * 3
    assert len(server.requests) == 1


def test_a_journal_goes_on_however_the_answers_were_read(serve, tmp_path):
    server, pool = serve()
    journal = tmp_path / "journal"
    pool.map(["a", "b"], journal=journal, collect_stream=True)
    answers = pool.map(["a", "b", "c"], journal=journal)
    assert [str(answer) for answer in answers] == ["a", "b", "c"]
    assert len(server.requests) == 3


def test_events_are_those_of_any_call(serve):
    events = []
    _, pool = serve(Stream(["Once"], end="cut"), listeners=[events.append])
    pool.chat("tell", collect_stream=True)
    assert [event.kind for event in events] == ["queued", "sent", "retrying", "sent", "succeeded"]
    assert events[-1].usage.total_tokens > 0


def test_a_server_that_does_not_stream_is_as_good(always):
    _, pool = always(Answer(body=b'{"choices": [{"message": {"content": "whole"}}]}'))
    assert pool.chat("tell", collect_stream=True).text == "whole"
