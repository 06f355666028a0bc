"""Traces and metrics of calls with OpenTelemetry, by its semantic conventions for generative AI.

A call is one span, from the moment at which it is made to its end; attempts that the instrumentation of requests
records become its children.  Needs the extra ``otel``.  Neither prompts nor answers are recorded.

The conventions are in development (https://opentelemetry.io/docs/specs/semconv/gen-ai/).  As they ask of every
instrumentation, the names are those of their version 1.36 unless ``OTEL_SEMCONV_STABILITY_OPT_IN`` in the environment
has ``gen_ai_latest_experimental``.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any, Dict, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider

from .. import ChatPool, Event, Usage, __version__

__all__ = ["GenAISpans", "instrument"]

_PROVIDERS = {
    ".amazonaws.com": "aws.bedrock",
    ".openai.azure.com": "azure.ai.openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
_DURATION_BOUNDARIES_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKEN_BOUNDARIES = [4**power for power in range(14)]


class _Names(NamedTuple):
    """The names of one version of the conventions; those that they have no name for are chatpool's own.

    Attributes:
        providers: values of ``provider``, by the end of a server's host name; all others speak OpenAI's API.
    """

    provider: str = "gen_ai.provider.name"
    providers: Mapping[str, str] = _PROVIDERS
    operation: str = "gen_ai.operation.name"
    request_model: str = "gen_ai.request.model"
    response_model: str = "gen_ai.response.model"
    finish_reasons: str = "gen_ai.response.finish_reasons"
    first_chunk_seconds: Optional[str] = "gen_ai.response.time_to_first_chunk"
    input_tokens: str = "gen_ai.usage.input_tokens"
    output_tokens: str = "gen_ai.usage.output_tokens"
    cached_tokens: Optional[str] = "gen_ai.usage.cache_read.input_tokens"
    reasoning_tokens: Optional[str] = "gen_ai.usage.reasoning.output_tokens"
    server_address: str = "server.address"
    server_port: str = "server.port"
    error_type: str = "error.type"
    duration: str = "gen_ai.client.operation.duration"
    token_usage: str = "gen_ai.client.token.usage"  # noqa: S105 - tokens of text
    token_type: str = "gen_ai.token.type"  # noqa: S105 - tokens of text
    endpoint: str = "chatpool.endpoint"
    attempt: str = "chatpool.attempt"
    queue_seconds: str = "chatpool.queue_seconds"
    retry: str = "chatpool.retry"
    reask: str = "chatpool.reask"
    fallback: str = "chatpool.fallback"
    reason: str = "chatpool.reason"
    wait_seconds: str = "chatpool.wait_seconds"


_LATEST = _Names()
_V1_36 = _Names(
    provider="gen_ai.system",
    providers={**_PROVIDERS, ".openai.azure.com": "az.ai.openai", "api.x.ai": "xai"},
    first_chunk_seconds=None,
    cached_tokens=None,
    reasoning_tokens=None,
)


def instrument(
    pool: ChatPool, tracer_provider: Optional[TracerProvider] = None, meter_provider: Optional[MeterProvider] = None
) -> GenAISpans:
    """Record the calls of ``pool``, and of all views of it, from now on.  Do it once per pool.

    Args:
        pool: the pool.
        tracer_provider: makes the spans. Default: the global one.
        meter_provider: makes the histograms. Default: the global one.

    Returns:
        The listener that was added to the pool.
    """
    spans = GenAISpans(tracer_provider, meter_provider, base_urls=pool._core.base_urls)
    pool.add_listener(spans)
    return spans


class GenAISpans:
    """A listener that records each call as a span and in two histograms: ``ChatPool(listeners=[GenAISpans()])``.

    The span is a child of the one that is current where the call is made.  It is current itself while the call is
    sent and in its callbacks, in whichever threads they run.  Each attempt that another one follows is an event of
    it, with reason and wait.  A call that gets the answer of an identical one has no span.

    Args:
        tracer_provider: makes the spans. Default: the global one.
        meter_provider: makes the histograms. Default: the global one.
        base_urls: the address of each endpoint with a ``name``, by its name, for ``server.address``;
            :func:`instrument` knows them. The names of other endpoints are their addresses.
    """

    kinds = frozenset({"queued", "retrying", "reasking", "falling_back", "succeeded", "failed"})

    def __init__(
        self,
        tracer_provider: Optional[TracerProvider] = None,
        meter_provider: Optional[MeterProvider] = None,
        *,
        base_urls: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._names = _names_of_environment()
        self._base_urls = dict(base_urls or {})
        self._tracer = trace.get_tracer("chatpool", __version__, tracer_provider)
        meter = metrics.get_meter("chatpool", __version__, meter_provider)
        self._duration = meter.create_histogram(
            self._names.duration,
            unit="s",
            description="Seconds that calls took, with their waits and retries.",
            explicit_bucket_boundaries_advisory=_DURATION_BOUNDARIES_SECONDS,
        )
        self._token_usage = meter.create_histogram(
            self._names.token_usage,
            unit="{token}",
            description="Tokens of calls, by their server's count.",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDARIES,
        )
        # Of this object, not of the module: a pool may have two of them.
        self._current: ContextVar[Optional[_Recording]] = ContextVar("chatpool_recording", default=None)

    def __call__(self, event: Event) -> None:
        if event.kind == "queued":
            self._start(event)
            return
        recording = self._current.get()
        if recording is None or recording.call_id != event.call_id:  # its beginning was not heard
            return
        recording.add_usage(event.usage)
        if event.kind in ("succeeded", "failed"):
            self._end(recording, event)
        else:
            self._add_attempt(recording, event)

    def _start(self, event: Event) -> None:
        """Start the span of a call and make it the current one: this is the call's own context."""
        names = self._names
        operation = _operation(event)
        attributes = {names.operation: operation}
        if event.model is not None:
            attributes[names.request_model] = event.model
        title = operation if event.model is None else f"{operation} {event.model}"
        span = self._tracer.start_span(title, kind=SpanKind.CLIENT, attributes=attributes)
        context.attach(trace.set_span_in_context(span))
        self._current.set(_Recording(event.call_id, span))

    def _add_attempt(self, recording: _Recording, event: Event) -> None:
        names = self._names
        attributes = {names.attempt: event.attempt, names.reason: event.reason, names.wait_seconds: event.wait}
        title = {"retrying": names.retry, "reasking": names.reask}.get(event.kind, names.fallback)
        recording.span.add_event(title, _without_none(attributes))

    def _end(self, recording: _Recording, event: Event) -> None:
        names, usage, span = self._names, recording.usage, recording.span
        common = self._common_attributes(event)
        span.set_attributes({**common, **self._span_attributes(event, usage)})
        if event.kind == "failed":
            span.set_status(StatusCode.ERROR, event.reason)
        self._duration.record(event.total or 0.0, common)
        for kind, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if count:
                self._token_usage.record(count, {**common, names.token_type: kind})
        span.end()

    def _common_attributes(self, event: Event) -> Dict[str, Any]:
        """Return the attributes that the spans and the histograms have."""
        names, endpoint = self._names, event.endpoint or ""
        server = urlsplit(self._base_urls.get(endpoint, endpoint))
        host = server.hostname or ""
        providers = [name for end, name in names.providers.items() if host.endswith(end)]
        attributes = {
            names.operation: _operation(event),
            names.provider: providers[0] if providers else "openai",
            names.request_model: event.model,
            names.response_model: event.response_model,
            names.server_address: host or None,
            names.server_port: (server.port or {"https": 443, "http": 80}.get(server.scheme)) if host else None,
            names.error_type: event.reason if event.kind == "failed" else None,
        }
        return _without_none(attributes)

    def _span_attributes(self, event: Event, usage: Usage) -> Dict[str, Any]:
        """Return the attributes that only the spans have."""
        names = self._names
        attributes = {
            names.finish_reasons: None if event.finish_reason is None else [event.finish_reason],
            names.first_chunk_seconds: event.first_chunk,
            names.input_tokens: usage.prompt_tokens or None,
            names.output_tokens: usage.completion_tokens or None,
            names.cached_tokens: usage.cached_tokens or None,
            names.reasoning_tokens: usage.reasoning_tokens or None,
            names.endpoint: event.endpoint,
            names.attempt: event.attempt,
            names.queue_seconds: event.queued,
        }
        attributes.pop(None, None)  # what this version of the conventions has no name for
        return _without_none(attributes)


class _Recording:
    """The span of one call, and the tokens of all its answers so far."""

    __slots__ = ("call_id", "span", "usage")

    def __init__(self, call_id: int, span: Any) -> None:
        self.call_id = call_id
        self.span = span
        self.usage = Usage()

    def add_usage(self, usage: Optional[Usage]) -> None:
        if usage is not None:
            self.usage += usage


def _names_of_environment() -> _Names:
    opted_in = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return _LATEST if "gen_ai_latest_experimental" in map(str.strip, opted_in) else _V1_36


def _operation(event: Event) -> str:
    return "chat" if event.operation == "responses" else event.operation  # another form of the same to the conventions


def _without_none(attributes: Mapping[Any, Any]) -> Dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
