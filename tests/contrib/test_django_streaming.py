"""``StreamingChatResponse``, read as Django reads it: under WSGI, under ASGI, to its end and not."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.middleware.gzip import GZipMiddleware
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from chatpool import CallCancelledError, ChatPool, ConfigurationError, Timeout
from chatpool.contrib.django import StreamingChatResponse, budget, sse
from chatpool.testing import Error, RateLimited, Stall, Stream

HEARTBEAT = b": keep-alive\n\n"


@pytest.fixture
def pool(server):
    pool = ChatPool("fake-model", api_key="sk-not-shown", base_url=server.base_url, retry=0)
    yield pool
    pool.abort()


def events(body: bytes):
    """(event, data) of each server-sent event, comments left out."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        if "data" in lines:
            found.append((lines.get("event"), json.loads(lines["data"])))
    return found


def read(response) -> bytes:
    body = b"".join(response)
    response.close()
    return body


def texts(found, index=0):
    return "".join(data["text"] for event, data in found if event is None and data["index"] == index)


# -- what a browser gets -----------------------------------------------------------------------------------------------


def test_an_answer_comes_in_pieces_and_says_how_it_ended(pool):
    found = events(read(StreamingChatResponse("one two three", pool=pool)))
    assert [data["text"] for event, data in found if event is None] == ["one", " two", " three"]
    assert [event for event, _ in found[3:]] == ["done", "end"]
    done = found[3][1]
    assert (done["index"], done["finish_reason"], done["usage"]["completion_tokens"]) == (0, "stop", 3)
    assert "cost" not in done["usage"]


def test_several_items_are_answered_side_by_side(pool):
    found = events(read(StreamingChatResponse(["one two", "three four five"], pool=pool)))
    assert texts(found, 0) == "one two"
    assert texts(found, 1) == "three four five"
    assert sorted(data["index"] for event, data in found if event == "done") == [0, 1]
    assert found[-1] == ("end", {})


@pytest.mark.parametrize(
    "source",
    [
        {"messages": [{"role": "user", "content": "ping pong"}]},
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "ping pong"}],
    ],
)
def test_a_body_and_a_conversation_are_one_item(pool, server, source):
    assert texts(events(read(StreamingChatResponse(source, pool=pool)))) == "ping pong"
    assert len(server.requests) == 1


def test_a_stream_with_options_of_its_own(pool, server):
    response = StreamingChatResponse(pool.stream("ping", model="large", temperature=0))
    assert texts(events(read(response))) == "ping"
    assert (server.requests[0].body["model"], server.requests[0].body["temperature"]) == ("large", 0)


def test_the_pool_of_the_default_alias_answers_unless_another_is_named(server):
    setting = {"default": {"MODEL": "ours", "API_KEY": "k", "BASE_URL": server.base_url}}
    with override_settings(CHATPOOL=setting):
        read(StreamingChatResponse("ping"))
    assert server.requests[0].body["model"] == "ours"


def test_no_proxy_or_middleware_holds_the_pieces_back(pool):
    response = StreamingChatResponse("one two three " * 100, pool=pool, headers={"X-Ours": "1"})
    for name, value in {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",
        "Content-Encoding": "identity",
        "X-Ours": "1",
    }.items():
        assert response[name] == value
    request = RequestFactory().get("/", HTTP_ACCEPT_ENCODING="gzip")
    zipped = GZipMiddleware(lambda _: response)(request)
    assert next(iter(zipped)).startswith(b"data: ")
    zipped.close()


def test_encode_makes_other_forms(pool):
    def lines(event, data):
        return "" if event == "heartbeat" else json.dumps([event, data]) + "\n"

    response = StreamingChatResponse("ping", pool=pool, encode=lines, content_type="application/jsonl")
    assert [json.loads(line)[0] for line in read(response).splitlines()] == [None, "done", "end"]
    assert response["Content-Type"] == "application/jsonl"


def test_text_cannot_break_out_of_its_event():
    assert sse(None, {"text": "a\n\nevent: end\ndata: {}\n\n"}).count("\n\n") == 1


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_visitor_hears_of_a_failure_and_of_no_server(pool, server):
    server.set_script(Error(500, message="secret stack trace of http://inside"))
    body = read(StreamingChatResponse("ping", pool=pool))
    [(event, data), end] = events(body)
    assert (event, data["index"], data["code"]) == ("error", 0, "InternalServerError")
    assert data["message"]
    assert end == ("end", {})
    for secret in (b"stack", b"inside", b"sk-not-shown", server.base_url.encode()):
        assert secret not in body


def test_one_failure_of_several_leaves_the_others(pool, server):
    server.set_script({"bad": Error(400)})
    found = events(read(StreamingChatResponse(["good", "bad"], pool=pool)))
    assert texts(found, 0) == "good"
    assert [(data["index"], data["code"]) for event, data in found if event == "error"] == [(1, "BadRequestError")]


def test_an_answer_that_breaks_off_has_shown_its_pieces(pool, server):
    server.set_script(Stream(["half", " an"], end="cut"))
    found = events(read(StreamingChatResponse("ping", pool=pool)))
    assert texts(found) == "half an"
    assert found[-2][1]["code"] == "TruncatedStreamError"


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (Error(500), 502, "InternalServerError"),
        (Error(400), 502, "BadRequestError"),
        (RateLimited(7), 503, "RateLimitError"),
        (Stall(), 504, "DeadlineExceededError"),
    ],
)
def test_with_wait_first_a_failure_is_a_status(pool, server, step, status, code):
    server.set_script(step)
    timeout = Timeout(total=0.2) if status == 504 else None
    response = StreamingChatResponse(pool.stream("ping", timeout=timeout), wait_first=True)
    assert response.status_code == status
    assert response["Content-Type"] == "application/json"
    assert json.loads(read(response))["code"] == code
    assert response.get("Retry-After") == ("7" if status == 503 else None)


def test_with_wait_first_an_answer_that_comes_is_whole(pool):
    response = StreamingChatResponse("one two", pool=pool, wait_first=True)
    assert response.status_code == 200
    assert texts(events(read(response))) == "one two"


def test_a_closed_pool_is_an_error_event(pool):
    pool.close()
    [(event, data), _] = events(read(StreamingChatResponse("ping", pool=pool)))
    assert (event, data["code"]) == ("error", "PoolClosedError")


def test_a_budget_is_for_the_time_until_the_first_piece(pool, server):
    server.set_script(Stall())
    with budget(seconds=0.05):
        response = StreamingChatResponse("ping", pool=pool)
    assert events(read(response))[0][1]["code"] == "DeadlineExceededError"


# -- on_finish ---------------------------------------------------------------------------------------------------------


def test_each_answer_is_reported_once(pool, server):
    server.set_script({"bad": Error(400)})
    ended = []
    read(StreamingChatResponse(["good", "bad"], pool=pool, on_finish=ended.append))
    assert sorted((outcome.index, outcome.ok) for outcome in ended) == [(0, True), (1, False)]
    assert next(outcome for outcome in ended if outcome.ok).value.text == "good"


def test_a_failure_of_on_finish_is_logged_and_the_visitor_gets_the_rest(pool, caplog):
    def fail(outcome):
        raise RuntimeError("of the site")

    found = events(read(StreamingChatResponse(["a", "b"], pool=pool, on_finish=fail)))
    assert found[-1] == ("end", {})
    assert caplog.text.count("RuntimeError: of the site") == 2


@pytest.mark.parametrize("source", ["ping", ["ping", "pong"]])
def test_of_a_visitor_who_leaves_what_has_come_is_kept(pool, server, source):
    server.set_script(Stream(["some", " text"], end="stall"))
    ended = []
    response = StreamingChatResponse(source, pool=pool, heartbeat=0.05, on_finish=ended.append)
    parts = iter(response)
    seen = b""
    while HEARTBEAT not in seen or seen.count(b'" text"') < (1 if source == "ping" else 2):
        seen += next(parts)
    response.close()
    assert {type(outcome.error) for outcome in ended} == {CallCancelledError}
    assert len(ended) == (1 if source == "ping" else 2)
    assert {outcome.error.text for outcome in ended} == {"some text"}
    server.wait_until(lambda: server.in_flight == 0)
    server.set_script(None)
    assert pool.chat("still there").text == "still there"
    response.close()
    assert len(ended) == (1 if source == "ping" else 2)


def test_a_response_that_is_never_read_makes_no_call_and_is_reported(pool, server):
    ended = []
    StreamingChatResponse("ping", pool=pool, on_finish=ended.append).close()
    assert server.requests == []
    assert [type(outcome.error) for outcome in ended] == [CallCancelledError]


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"heartbeat": 0}, ConfigurationError, "heartbeat"),
        ({"heartbeat": "5"}, TypeError, "heartbeat"),
        ({"encode": "json"}, TypeError, "encode must be callable"),
        ({"on_finish": []}, TypeError, "on_finish must be callable"),
    ],
)
def test_a_wrong_argument_is_named(pool, server, options, error, message):
    with pytest.raises(error, match=message):
        StreamingChatResponse("ping", pool=pool, **options)
    assert server.requests == []


def test_wait_first_is_for_one_item(pool):
    with pytest.raises(TypeError, match="wait_first"):
        StreamingChatResponse(["a", "b"], pool=pool, wait_first=True)


def test_an_item_of_no_kind_is_refused_at_once(pool):
    with pytest.raises(TypeError):
        StreamingChatResponse(3, pool=pool)


# -- in a site ---------------------------------------------------------------------------------------------------------

site_pool = None


def stream_view(request):
    return StreamingChatResponse(request.GET.getlist("q"), pool=site_pool, heartbeat=0.05)


def one_view(request):
    return StreamingChatResponse(request.GET["q"], pool=site_pool, heartbeat=0.05, wait_first=True)


async def async_view(request):
    return StreamingChatResponse(request.GET["q"], pool=site_pool, heartbeat=0.05)


urlpatterns = [path("several", stream_view), path("one", one_view), path("async", async_view)]


@pytest.fixture
def site(pool):
    global site_pool
    site_pool = pool
    # The middleware of a usual site: some of it wraps streams.
    middleware = ["django.middleware.gzip.GZipMiddleware", "django.middleware.http.ConditionalGetMiddleware"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
        yield
    site_pool = None


def test_under_wsgi(site):
    response = Client().get("/several", {"q": ["one two", "three"]})
    assert texts(events(b"".join(response.streaming_content)), 0) == "one two"


@pytest.mark.parametrize("url", ["/several", "/one"])
def test_a_request_for_the_headers_makes_no_call(site, server, url):
    response = Client().head(url, {"q": "ping"})
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert b"".join(response.streaming_content) == b""
    assert server.requests == []
    assert Client().get(url, {"q": "ping"}).status_code == 200  # the next one does


def scope(target: str, method: str = "GET"):
    url, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": method,
        "path": url,
        "query_string": query.encode(),
        "headers": [],
        "http_version": "1.1",
    }


async def asgi_body(target: str, method: str = "GET") -> bytes:
    site = ApplicationCommunicator(get_asgi_application(), scope(target, method))
    await site.send_input({"type": "http.request"})
    assert (await site.receive_output(10))["status"] == 200
    body, more = b"", True
    while more:
        message = await site.receive_output(10)
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await site.wait(10)
    return body


@pytest.mark.parametrize("url", ["/several", "/one", "/async"])
def test_under_asgi_the_pieces_come_without_a_warning(site, url):
    body = asyncio.run(asgi_body(f"{url}?q=one%20two"))
    assert texts(events(body)) == "one two"


@pytest.mark.parametrize("url", ["/several", "/async"])
def test_under_asgi_a_request_for_the_headers_makes_no_call(site, server, url):
    assert asyncio.run(asgi_body(f"{url}?q=ping", "HEAD")) == b""
    assert server.requests == []


def test_a_request_for_the_headers_is_not_reported(pool, server):
    ended = []
    request = RequestFactory().head("/")
    response = StreamingChatResponse("ping", pool=pool, on_finish=ended.append)
    response._resource_closers.append(request.close)  # as Django's handlers do
    assert read(response) == b""
    assert (server.requests, ended) == ([], [])


def test_under_asgi_a_visitor_who_leaves_ends_the_call(site, server, pool):
    if not hasattr(
        __import__("django.core.handlers.asgi", fromlist=["ASGIHandler"]).ASGIHandler, "listen_for_disconnect"
    ):
        pytest.skip("Django 4.2 does not hear of it before the answer has ended")
    server.set_script(Stream(["some"], end="stall"))

    async def visit():
        site = ApplicationCommunicator(get_asgi_application(), scope("/several?q=ping&q=pong"))
        await site.send_input({"type": "http.request"})
        seen = b""
        while seen.count(b"some") < 2 or HEARTBEAT not in seen:
            seen += (await site.receive_output(10)).get("body", b"")
        await site.send_input({"type": "http.disconnect"})
        await site.wait(10)

    asyncio.run(visit())
    server.wait_until(lambda: server.in_flight == 0)
    server.set_script(None)
    assert pool.chat("still there").text == "still there"


def test_no_thread_is_left_of_a_stream(site, pool):
    before = set(threading.enumerate())
    asyncio.run(asgi_body("/several?q=one&q=two"))
    pool.close()
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread.name for thread in left if "chatpool" in thread.name and "FakeServer" not in thread.name] == []


def test_many_visitors_at_once_each_get_their_own(site):
    found = {}

    def visit(number: int) -> None:
        response = Client().get("/several", {"q": [f"a{number}", f"b{number}"]})
        found[number] = events(b"".join(response.streaming_content))

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: (texts(got, 0), texts(got, 1)) for number, got in found.items()} == {
        number: (f"a{number}", f"b{number}") for number in range(12)
    }
