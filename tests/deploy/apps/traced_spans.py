"""Calls with a span each, and the instrumentation of requests; some are tried again, one is a stream.

Prints all spans as JSON: ``traced_spans.py BASE_URL``.
"""

from __future__ import annotations

import json
import sys

from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import chatpool
from chatpool.contrib.otel import instrument

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
RequestsInstrumentor().instrument()

with chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=8) as pool:
    instrument(pool)
    with trace.get_tracer("test").start_as_current_span("caller"):
        assert pool.map([str(number) for number in range(32)], progress=False).failures == []
        assert "".join(chunk.text for chunk in pool.stream("streamed")) == "streamed"

print(
    json.dumps(
        [
            {
                "name": span.name,
                "id": format(span.context.span_id, "016x"),
                "parent": span.parent and format(span.parent.span_id, "016x"),
                "status": span.attributes.get("http.status_code"),
                "events": len(span.events),
                "start": span.start_time,
                "end": span.end_time,
            }
            for span in exporter.get_finished_spans()
        ]
    )
)
