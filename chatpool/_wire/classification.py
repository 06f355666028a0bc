"""What an answer means: one read-only value that policies look at, and at nothing else.

Asking for a stream, and what a stream that has ended means.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple

from .._values import HTTPResponse, Verdict
from ..errors import APIError, TruncatedStreamError
from ..types import ChatChunk, ChatCompletion, ChatRequest, ToolCallDelta
from .codec import TooDeep, decoded
from .error_body import (
    ErrorFacts,
    compose_message,
    facts_of,
    inner_error,
    name_call,
    page_facts,
    read_error,
    shorten,
    status_line,
    through_proxy,
    unusable_line,
    without_ids,
)
from .exceptions import ResponseTooLarge, classify_exception
from .operations import RESPONSES, is_streamed, operation_of
from .rate_limit_headers import limits, resume_line, retry_after_of
from .reasoning import separate_reasoning
from .response import NOT_SUPPORTED, UnusableAnswer, begins_with_events, decode_response, is_known, says_json
from .rules import (
    NOT_JSON,
    UNSUPPORTED,
    UNUSABLE,
    ErrorResponse,
    Rule,
    error_class,
    obey_server,
    rule_for,
    status_inside,
    used_up,
)
from .stream import StreamFault, StreamReader
from .usage import usage_of

__all__ = ["as_truncated", "chunk_of", "classify_response", "classify_stream", "streamed"]


class _Case(NamedTuple):
    """An answer with all that judging it needs."""

    reply: HTTPResponse
    request: ChatRequest
    endpoint_proven: bool
    model_proven: bool
    wall: float
    request_id: Optional[str]


def classify_response(
    reply: HTTPResponse, request: ChatRequest, *, endpoint_proven: bool, model_proven: bool, wall: float
) -> Verdict:
    """What ``reply`` means for the call that sent ``request``.  Never raises, whatever the server sent.

    Args:
        reply: the answer, read to its end.
        request: what was sent.
        endpoint_proven: whether the endpoint has answered any call with success (a 403 before that is fatal).
        model_proven: whether this path and model have (a 404 before that is fatal for them).
        wall: now, in seconds since the epoch.
    """
    status, headers = reply.status, reply.headers
    # Azure's gateway names its own refusals in a header of its own.
    request_id = headers.get("x-request-id") or headers.get("apim-request-id")
    case = _Case(reply, request, endpoint_proven, model_proven, wall, request_id)
    if not 200 <= status < 300:
        return _refused(case, status, read_error(reply.content))
    try:
        payload, content = _payload(reply, request)
    except TooDeep as problem:
        # It was paid for: all of it is kept.
        return _unusable(case, ErrorFacts(body=reply.content.decode("utf-8", "replace")), f"is {problem}")
    except ValueError:
        return _not_json(case)
    if _is_error(payload, request):
        return _failed_inside(case, payload)
    try:
        value = decode_response(request, payload, request_id)
    except UnusableAnswer as problem:
        verdict = _unusable(case, _facts_of_unusable(payload, problem), str(problem))
        return verdict._replace(usage=usage_of(payload))  # it is billed all the same
    if isinstance(value, ChatCompletion):
        usage = value.usage
        if content is not None:
            value.raw = content
    else:
        usage = usage_of(payload)
    return Verdict("success", "call", None, value, None, usage, limits(headers, wall), status, request_id)


# What ends a stream, and at some gateways an answer that was none.
_DONE = re.compile(rb"\s*(?:data:\s*)?\[DONE\]\s*")
_LONGEST_DONE = 60


def _payload(reply: HTTPResponse, request: ChatRequest) -> Tuple[Any, Optional[bytes]]:
    """The JSON of an answer, and the bytes that hold it; None where not every reader gets the same of those."""
    content = reply.content
    if not content and not is_known(request) and (request.method == "DELETE" or not says_json(reply.headers)):
        return None, content
    try:
        return _decoded(content)
    except ValueError:
        done = _DONE.search(content, max(0, len(content) - _LONGEST_DONE))
        if done is None or done.end() < len(content):
            raise
    return _decoded(content[: done.start()])


def _decoded(content: bytes) -> Tuple[Any, Optional[bytes]]:
    payload, is_plain = decoded(content)
    return payload, content if is_plain else None


def _not_json(case: _Case) -> Verdict:
    reply = case.reply
    if is_streamed(case.request) and begins_with_events(reply.content):
        return _of_events(case)
    if is_known(case.request) or says_json(reply.headers):
        return _unusable(case, page_facts(reply.content), "is not JSON")
    # Sound, say, or a file: it may be what was asked for, and paid for, and would come again.
    facts = page_facts(reply.content)._replace(body=reply.content)
    rule = obey_server(NOT_JSON, reply.status, reply.headers)
    return _verdict(case, rule, reply.status, facts, unusable_line(reply, "is not JSON"))


def _of_events(case: _Case) -> Verdict:
    """The verdict of a stream that nobody has asked for: some gateways know nothing else."""
    content, headers = case.reply.content, case.reply.headers
    reader = StreamReader(case.request, max_event_bytes=len(content) + 1)
    reader.feed(content)
    reader.end()
    fault = reader.fault
    if fault is not None and fault.error is not None:
        return _failed_inside(case, fault.error)
    if fault is not None:
        return _unusable(case, ErrorFacts(), f"is a stream that {fault.problem}")
    try:
        value = reader.completion(case.request_id)
    except UnusableAnswer as problem:
        return _unusable(case, ErrorFacts(), str(problem))
    return Verdict(
        "success",
        "call",
        None,
        value,
        None,
        value.usage,
        limits(headers, case.wall),
        case.reply.status,
        case.request_id,
    )


def _is_error(payload: Any, request: ChatRequest) -> bool:
    error = inner_error(payload)
    if not error:
        return False
    # A stored resource, say a fine-tuning job, may tell of its own failure: it is what was asked for.
    is_resource = isinstance(payload, dict) and payload.get("object") not in (None, "error")
    return is_known(request) or not is_resource


def _failed_inside(case: _Case, payload: Any) -> Verdict:
    """A 200 that holds an error: judged by the status it stands for."""
    facts = facts_of(payload[0] if isinstance(payload, list) else payload)
    status = status_inside(facts)
    if status is None and used_up(facts.message):
        status = 402
    if status is None:
        return _unusable(case, facts, "holds an error")
    return _refused(case, status, facts)


def _refused(case: _Case, status: int, facts: ErrorFacts) -> Verdict:
    refusal = ErrorResponse(status, facts, case.reply.headers, case.endpoint_proven, case.model_proven)
    rule = rule_for(refusal)
    if rule.about == "access" and status == 404 and not is_known(case.request):
        rule = rule._replace(about="")  # what is missing is a stored thing, not the model
    verdict = _verdict(case, rule, status, facts, status_line(case.reply, status))
    if rule.kind != "fail" or not rule.of_all or case.reply.headers.get("retry-after"):
        return verdict
    words = facts.message or case.reply.headers.get("location") or ""
    return verdict._replace(fingerprint=f"{status} {facts.code} {without_ids(words, case.request_id)}")


def _unusable(case: _Case, facts: ErrorFacts, problem: str) -> Verdict:
    reply = case.reply
    rule = UNSUPPORTED if facts.code == NOT_SUPPORTED else UNUSABLE
    rule = obey_server(rule, reply.status, reply.headers)
    verdict = _verdict(case, rule, reply.status, facts, unusable_line(reply, problem))
    if rule.kind != "retry":  # the server itself says that it is not worth another attempt
        return verdict
    digest = hashlib.blake2b(reply.content, digest_size=16).hexdigest()
    return verdict._replace(fingerprint=f"{reply.status} {digest}")


def _verdict(case: _Case, rule: Rule, status: int, facts: ErrorFacts, what: str) -> Verdict:
    """The verdict of a failure, with its error."""
    headers = case.reply.headers
    request_id = shorten(case.request_id, 200) if case.request_id else None
    hint = retry_after_of(
        headers,
        facts.message,
        case.wall,
        resets=rule.kind == "throttled",
        kind=(facts.type or "").lower(),
        body=facts.body,
    )
    cls = error_class(rule, status)
    cure = rule.cure or cls.advice
    if rule.kind == "throttled" and hint is not None and hint >= _WORTH_A_DATE:
        cure = resume_line(hint, case.wall)
    said = compose_message(what, name_call(case.request, case.reply, request_id), facts.message, cure)
    error = cls(
        through_proxy(said, case.reply),
        status_code=status,
        request_id=request_id,
        code=facts.code,
        type=facts.type,
        param=facts.param,
        body=facts.body,
        retry_after=hint,
    )
    if rule.about == "start" and hint is None:
        hint = _LOOK_AGAIN  # nobody has asked for it: the error does not say so
    found = limits(headers, case.wall)
    return Verdict(rule.kind, rule.scope, error, None, hint, None, found, status, request_id, rule.about)


_WORTH_A_DATE = 300.0  # seconds; for a shorter wait nobody looks at the clock
_LOOK_AGAIN = 1.0  # seconds between two looks whether a server has come up


def _facts_of_unusable(payload: Any, problem: Exception) -> ErrorFacts:
    """What can be told of an answer that is not what it should be, without quoting what a model may have written."""
    if isinstance(problem, UnusableAnswer) and problem.error is not None:
        return facts_of({"error": problem.error})._replace(body=payload)
    return facts_of(payload) if isinstance(payload, dict) else ErrorFacts()


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


def classify_stream(
    reader: StreamReader,
    reply: HTTPResponse,
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
        endpoint_proven: as for :func:`classify_response`.
        model_proven: as for :func:`classify_response`.
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
        return as_truncated(classify_exception(ResponseTooLarge(reader.max_event_bytes), url=reply.url), reader)
    if fault.error is None:
        return _broken(reader, fault, reply, request, wall)
    said = reply._replace(content=json.dumps(fault.error).encode())
    verdict = classify_response(said, request, endpoint_proven=endpoint_proven, model_proven=model_proven, wall=wall)
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


def _broken(
    reader: StreamReader, fault: StreamFault, reply: HTTPResponse, request: ChatRequest, wall: float
) -> Verdict:
    """The verdict of a stream that is no answer, without a word from the server."""
    headers = reply.headers
    rule = obey_server(UNUSABLE, reply.status, headers)
    sent = headers.get("x-request-id")
    request_id = shorten(sent, 200) if sent else None
    hint = retry_after_of(headers, "", wall)
    kind = shorten(str(headers.get("content-type") or "").partition(";")[0], 60) or "no content type"
    error = TruncatedStreamError(
        compose_message(
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
