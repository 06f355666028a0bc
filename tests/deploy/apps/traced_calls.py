"""Calls under OpenTelemetry's requests instrumentation, each from a span of its own.

Prints, as JSON, for each prompt the trace it was sent from, and the parents of all client spans:
``traced_calls.py BASE_URL submit|chat``.
"""

from __future__ import annotations

import json
import sys
import threading

from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import chatpool

CALLS = 64

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
RequestsInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("test")
pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=CALLS)
traces = {}


def call(number):
    """One call from a span of its own; returns its future, if it has one."""
    with tracer.start_as_current_span(f"parent of {number}") as span:
        traces[str(number)] = format(span.get_span_context().trace_id, "032x")
        return pool.submit(str(number)) if sys.argv[2] == "submit" else pool.chat(str(number))


if sys.argv[2] == "submit":
    for future in [call(number) for number in range(CALLS)]:
        future.result(30)
else:
    threads = [threading.Thread(target=call, args=[number]) for number in range(CALLS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
pool.close()
spans = exporter.get_finished_spans()
parents = {span.context.span_id: span.name for span in spans if span.kind is not trace.SpanKind.CLIENT}
clients = [span for span in spans if span.kind is trace.SpanKind.CLIENT]
print(json.dumps({"traces": traces, "parents": [span.parent and parents[span.parent.span_id] for span in clients]}))
