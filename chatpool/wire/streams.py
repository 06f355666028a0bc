"""Asking for a stream, and what a stream that has ended means."""

from __future__ import annotations

import json
from typing import Any, Dict

from ..errors import APIError, TruncatedStreamError
from ..types import ChatChunk, ChatCompletion, ChatRequest, Reply, ToolCallDelta, Verdict
from .answers import UnusableAnswer
from .chunks import StreamFault, StreamReader
from .failures import ResponseTooLarge, judge_exception
from .hints import limits, wait_hint
from .messages import compose, cut, name_call
from .paths import RESPONSES, operation_of
from .reasoning import separate_reasoning
from .rules import UNUSABLE, obey_server
from .verdict import judge_reply

__all__ = ["as_truncated", "chunk_of", "judge_stream", "streamed"]


def streamed(request: ChatRequest) -> ChatRequest:
    """``request`` as one for a stream, with the usage in its last chunk.

    A body's own ``stream_options`` are kept; None there leaves the field out, for servers that refuse it.

    Raises:
        TypeError: its path does not stream.
    """
    StreamReader(request)
    body: Dict[str, Any] = {**request.body, "stream": True}
    if operation_of(request.path) != RESPONSES:
        body.setdefault("stream_options", {"include_usage": True})
    if body.get("stream_options", ...) is None:
        del body["stream_options"]
    return ChatRequest(body, request.path, request.method)


def chunk_of(completion: ChatCompletion) -> ChatChunk:
    """A whole answer as the one chunk of a stream, for a server that did not stream."""
    calls = tuple(
        ToolCallDelta(index, call.id, call.name, call.arguments_json)
        for index, call in enumerate(completion.tool_calls)
    )
    raw = completion.raw
    reasoning = completion.reasoning if "output" in raw else separate_reasoning(completion.message)
    chunk = ChatChunk(completion.text, completion.finish_reason, calls, completion.usage, raw)
    chunk.reasoning = reasoning or ""
    return chunk


def judge_stream(
    reader: StreamReader,
    reply: Reply,
    request: ChatRequest,
    *,
    endpoint_proven: bool,
    model_proven: bool,
    wall: float,
) -> Verdict:
    """What a stream that has ended means for the call; a success has the whole answer as its value.

    Never raises, whatever the server sent.  Where something of the answer had come the error is a
    :class:`TruncatedStreamError` with its text, raised from what the server said.

    Args:
        reader: what has read the stream, to its end or to a fault.
        reply: the answer's status and headers; its content does not matter.
        request: what was sent.
        endpoint_proven: as for :func:`judge_reply`.
        model_proven: as for :func:`judge_reply`.
        wall: now, in seconds since the epoch.
    """
    fault = reader.fault
    request_id = reply.headers.get("x-request-id")
    if fault is None:
        try:
            value = reader.completion(request_id)
        except UnusableAnswer as problem:
            fault = StreamFault("garbage", str(problem))
        else:
            return Verdict(
                "success", "call", None, value, None, value.usage, limits(reply.headers, wall), 200, request_id
            )
    if fault.kind == "overflow":
        return as_truncated(judge_exception(ResponseTooLarge(reader.max_event_bytes), url=reply.url), reader)
    if fault.error is None:
        return _broken(reader, fault, reply, request, wall)
    said = reply._replace(content=json.dumps(fault.error).encode())
    verdict = judge_reply(said, request, endpoint_proven=endpoint_proven, model_proven=model_proven, wall=wall)
    return as_truncated(verdict, reader)


def as_truncated(verdict: Verdict, reader: StreamReader) -> Verdict:
    """``verdict`` of what broke a stream, with an error that says so and keeps the text that had come.

    Where nothing of the answer had come it is left as it is: the call just failed.
    """
    cause = verdict.error
    if not isinstance(cause, APIError) or not reader.begun:
        return verdict
    error = TruncatedStreamError(f"the stream broke off after {reader.size:,} bytes: {cause.message}", text=reader.text)
    facts = ("status_code", "request_id", "code", "type", "param", "body", "retry_after")
    error.__dict__.update({name: getattr(cause, name) for name in facts})
    error.__cause__ = cause
    return verdict._replace(error=error, fingerprint=None)  # what had come before was not the same


def _broken(reader: StreamReader, fault: StreamFault, reply: Reply, request: ChatRequest, wall: float) -> Verdict:
    """The verdict of a stream that is no answer, without a word from the server."""
    headers = reply.headers
    rule = obey_server(UNUSABLE, reply.status, headers)
    sent = headers.get("x-request-id")
    request_id = cut(sent, 200) if sent else None
    hint = wait_hint(headers, "", wall)
    kind = cut(str(headers.get("content-type") or "").partition(";")[0], 60) or "no content type"
    error = TruncatedStreamError(
        compose(
            f"the stream {fault.problem}: HTTP {reply.status} ({kind}, {reader.size:,} bytes)",
            name_call(request, reply, request_id),
            "",
            TruncatedStreamError.advice,
        ),
        text=reader.text,
        status_code=reply.status,
        request_id=request_id,
        retry_after=hint,
    )
    return Verdict(rule.kind, rule.scope, error, None, hint, None, limits(headers, wall), reply.status, request_id)
