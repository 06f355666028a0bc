"""Spans and histograms of calls, as OpenTelemetry's SDK gets them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from chatpool import BadRequestError, ChatPool, ChatPoolError, Endpoint
from chatpool.contrib.otel import GenAISpans, instrument
from chatpool.testing import Answer, Error, FakeServer, Stall, Stream, chat_completion


class Recorded:
    """The SDK with exporters in memory, and what they have got."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("test")

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def span(self):
        (span,) = self.spans
        return span

    def points(self, name):
        """The data points of a histogram, and its unit."""
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        return list(metric.data.data_points), metric.unit
        return [], None


@pytest.fixture
def recorded():
    recorded = Recorded()
    yield recorded
    recorded.meters.shutdown()


@pytest.fixture
def pool_of(recorded):
    """A function from a server's script to a pool that is recorded; its server is ``pool_of.server``."""
    opened = []

    def make(script=None, **options):
        make.server = FakeServer(script)
        pool = ChatPool("m", base_url=make.server.base_url, **options)
        instrument(pool, recorded.tracers, recorded.meters)
        opened.extend([pool.abort, make.server.close])
        return pool

    yield make
    for close in opened:
        close()


def test_a_call_is_one_span_with_the_attributes_of_the_conventions(pool_of, recorded):
    body = {**chat_completion("Paris", finish_reason="length"), "model": "m-2026"}
    body["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    pool = pool_of(Answer(body=body))
    pool.chat("capital?")
    span = recorded.span
    assert (span.name, span.kind, span.parent, span.status.status_code) == (
        "chat m",
        SpanKind.CLIENT,
        None,
        StatusCode.UNSET,
    )
    attributes = dict(span.attributes)
    assert attributes.pop("chatpool.queue_seconds") >= 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-2026",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": pool_of.server.port,
        "chatpool.endpoint": pool_of.server.base_url,
        "chatpool.attempt": 1,
    }


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda pool: pool.chat({"prompt": "a"}), "text_completion m"),
        (lambda pool: pool.responses("a"), "chat m"),
        (lambda pool: pool.embed("a"), "embeddings m"),
        (lambda pool: pool.request("/models", method="GET"), "request"),
        (lambda pool: list(pool.stream("a")), "chat m"),
    ],
)
def test_the_name_has_the_operation_and_the_model(pool_of, recorded, call, name):
    call(pool_of())
    assert recorded.span.name == name
    assert recorded.span.attributes["gen_ai.operation.name"] == name.split()[0]


@pytest.mark.parametrize("value", ["gen_ai_latest_experimental", "http/dup, gen_ai_latest_experimental"])
def test_the_latest_names_have_to_be_asked_for(pool_of, recorded, monkeypatch, value):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", value)
    pool = pool_of(Stream(["Once", " upon"]))
    list(pool.stream("a"))
    attributes = recorded.span.attributes
    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert "gen_ai.system" not in attributes


@pytest.mark.parametrize(
    ("address", "old", "latest"),
    [
        ("https://res.openai.azure.com/openai/v1", "az.ai.openai", "azure.ai.openai"),
        ("https://api.x.ai/v1", "xai", "x_ai"),
        ("https://api.mistral.ai/v1", "mistral_ai", "mistral_ai"),
        ("http://localhost:8000/v1", "openai", "openai"),
    ],
)
def test_the_provider_is_told_by_the_address(recorded, monkeypatch, address, old, latest):
    for opt_in, name, expected in [
        ("", "gen_ai.system", old),
        ("gen_ai_latest_experimental", "gen_ai.provider.name", latest),
    ]:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
        recorded.exporter.clear()
        spans = GenAISpans(recorded.tracers, recorded.meters, base_urls={"there": address})
        with FakeServer() as server:
            endpoint = Endpoint(server.base_url, "k", name="there")
            with ChatPool("m", endpoints=[endpoint], listeners=[spans]) as pool:
                pool.chat("a")
        assert recorded.span.attributes[name] == expected


def test_named_endpoints_have_their_addresses_too(recorded):
    with FakeServer(script=[Error(401)]) as first, FakeServer() as second:
        endpoints = [Endpoint(first.base_url, "k", name="first"), Endpoint(second.base_url, "k", name="second")]
        with ChatPool("m", endpoints=endpoints) as pool:
            instrument(pool, recorded.tracers, recorded.meters)
            pool.chat("a")
            attributes = recorded.span.attributes
        assert attributes["chatpool.endpoint"] == "second"
        assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", second.port)


def test_a_retry_is_an_event_with_its_reason_and_wait(pool_of, recorded, instant_waits):
    pool_of([Error(503)]).chat("a")
    (event,) = recorded.span.events
    assert event.name == "chatpool.retry"
    wait = event.attributes["chatpool.wait_seconds"]
    assert dict(event.attributes) == {
        "chatpool.attempt": 1,
        "chatpool.reason": "503 server_error",
        "chatpool.wait_seconds": wait,
    }
    assert wait > 0
    assert recorded.span.attributes["chatpool.attempt"] == 2


def test_an_answer_that_is_asked_for_again_counts_with_the_last_one(pool_of, recorded):
    pool = pool_of([Answer("no number"), Answer("3")])
    assert pool.chat("a", parse=int).parsed == 3
    assert [event.name for event in recorded.span.events] == ["chatpool.reask"]
    single = chat_completion("3")["usage"]
    assert recorded.span.attributes["gen_ai.usage.input_tokens"] > single["prompt_tokens"]
    points, _ = recorded.points("gen_ai.client.token.usage")
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in points} == {
        "input": recorded.span.attributes["gen_ai.usage.input_tokens"],
        "output": recorded.span.attributes["gen_ai.usage.output_tokens"],
    }


def test_a_failure_has_the_class_of_its_error(pool_of, recorded):
    with pytest.raises(BadRequestError):
        pool_of(Error(400, message="secret words")).chat("more secret words")
    span = recorded.span
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "BadRequestError")
    assert span.attributes["error.type"] == "BadRequestError"
    assert "secret" not in span.to_json()
    (point,), _ = recorded.points("gen_ai.client.operation.duration")
    assert point.attributes["error.type"] == "BadRequestError"


def test_the_histograms_have_the_units_and_the_buckets_of_the_conventions(pool_of, recorded):
    pool_of().chat("a")
    (duration,), unit = recorded.points("gen_ai.client.operation.duration")
    assert unit == "s"
    assert duration.explicit_bounds == pytest.approx(
        (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    )
    assert set(duration.attributes) == {
        "gen_ai.operation.name",
        "gen_ai.system",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "server.address",
        "server.port",
    }
    tokens, unit = recorded.points("gen_ai.client.token.usage")
    assert unit == "{token}"
    assert {point.attributes["gen_ai.token.type"] for point in tokens} == {"input", "output"}
    assert tokens[0].explicit_bounds[:3] + tokens[0].explicit_bounds[-1:] == (1, 4, 16, 67108864)


def test_the_span_is_a_child_of_the_callers_and_current_in_every_attempt_and_callback(pool_of, recorded, instant_waits):
    current = []

    def note():
        current.append(trace.get_current_span().get_span_context().span_id)
        return "k"

    pool = pool_of([Error(503)], api_key=note)
    done = threading.Event()
    with recorded.tracer.start_as_current_span("caller") as caller:
        future = pool.submit("a", parse=lambda text: note() and text)
        future.add_done_callback(lambda _: done.set())
        assert trace.get_current_span() is caller
    assert done.wait(30)
    span = next(span for span in recorded.spans if span.name == "chat m")
    assert span.parent.span_id == caller.get_span_context().span_id
    assert len(current) >= 2  # the key's, and the parsing of the second attempt's answer
    assert set(current) == {span.context.span_id}


def test_a_call_in_a_callback_is_a_child_of_the_call_that_it_belongs_to(pool_of, recorded):
    pool = pool_of()
    pool.chat("outer", parse=lambda text: text if text == "inner" else pool.chat("inner").text)
    inner, outer = recorded.spans
    assert inner.parent.span_id == outer.context.span_id
    assert outer.attributes["gen_ai.usage.input_tokens"] == inner.attributes["gen_ai.usage.input_tokens"]


def test_a_stream_ends_with_its_last_piece(pool_of, recorded):
    pool = pool_of(Stream(["Once", " upon", " a time"]))
    stream = iter(pool.stream("a"))
    next(stream)
    assert recorded.spans == ()
    list(stream)
    pool.close()
    assert recorded.span.end_time > recorded.span.start_time


def in_a_thread(iterator):
    """Ask for the first thing in a thread of its own; it comes to nothing."""

    def ask():
        with contextlib.suppress(ChatPoolError):
            next(iterator, None)

    threading.Thread(target=ask, daemon=True).start()


@pytest.mark.parametrize("end", ["cancel", "drop", "abort", "closed stream"])
def test_calls_that_are_given_up_end_too(pool_of, recorded, end):
    pool = pool_of(lambda request: Stall(), max_workers=2)
    if end == "cancel":
        futures = [pool.submit(str(number)) for number in range(5)]
        pool_of.server.wait_for(2)
        assert all(future.cancel() for future in futures)
    elif end == "closed stream":
        stream = pool.stream("0")
        in_a_thread(stream)
        pool_of.server.wait_for(1)
        stream.close()
    else:
        run = pool.as_completed(list("abcde"), progress=False, buffersize=5)
        in_a_thread(run)
        pool_of.server.wait_for(2)
        if end == "drop":
            run.close()
    pool.abort()
    assert len(recorded.spans) == {"closed stream": 1}.get(end, 5)
    assert {span.status.status_code for span in recorded.spans} == {StatusCode.ERROR}


@pytest.mark.slow
def test_a_run_keeps_no_more_spans_than_calls_that_are_open(recorded):
    alive, most = [0], [0]

    class Watching(SimpleSpanProcessor):
        def on_start(self, span, parent_context=None):
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def on_end(self, span):
            alive[0] -= 1

    tracers = TracerProvider()
    tracers.add_span_processor(Watching(recorded.exporter))
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, max_workers=4) as pool:
        instrument(pool, tracers, recorded.meters)
        for _ in pool.imap((str(number) for number in range(500)), progress=False, buffersize=50):
            pass
        gc.collect()
    assert alive == [0]
    assert most[0] <= 60


def test_identical_items_are_one_span(pool_of, recorded):
    pool = pool_of()
    with recorded.tracer.start_as_current_span("caller"):
        pool.map(["a"] * 6, dedupe=True, progress=False)
    assert [span.name for span in recorded.spans] == ["chat m", "caller"]


def test_two_pairs_of_providers_record_the_same_calls(pool_of, recorded):
    second = Recorded()
    pool = pool_of([Error(503)], retry=1)
    instrument(pool, second.tracers, second.meters)
    pool.chat("a")
    assert recorded.span.attributes["chatpool.attempt"] == second.span.attributes["chatpool.attempt"] == 2


def test_a_call_that_was_under_way_before_is_not_recorded(pool_of, recorded):
    release, later = threading.Event(), Recorded()
    pool = pool_of(lambda request: release.wait(30) and None)
    early = pool.submit("early")
    instrument(pool, later.tracers, later.meters)
    late = pool.submit("late")
    release.set()
    assert [early.result(30).text, late.result(30).text] == ["early", "late"]
    assert (len(recorded.spans), len(later.spans)) == (2, 1)


def test_without_an_sdk_nothing_happens():
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, listeners=[GenAISpans()]) as pool:
        assert pool.chat("a").text == "a"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_records_its_own_calls(pool_of, recorded):
    pool = pool_of()
    pool.chat("parent")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            recorded.exporter.clear()
            pool.map(["child", "child too"], progress=False)
            os.write(writing, json.dumps([span.name for span in recorded.spans]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert json.load(answer) == ["chat m", "chat m"]
    assert len(recorded.spans) == 1
