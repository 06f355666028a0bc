"""Classification of responses and ended streams: each becomes a :class:`~chatpool._values.Verdict`.

A good response becomes a value, an error response goes through the table of :mod:`.rules`, and everything between the
two (pages, cut streams, errors inside a 200) is an unusable answer.  Exceptions are classified in :mod:`.exceptions`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple

from .._values import BackgroundResponse, HTTPResponse, Verdict
from ..errors import APIError, DayLimitError, RateLimitError, TruncatedStreamError
from ..types import ChatChunk, ChatCompletion, ChatRequest, ToolCallDelta, Usage
from .codec import TooDeep, decoded, loads
from .error_body import (
    ErrorFacts,
    compose_message,
    content_type_of,
    error_facts_of,
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
from .operations import RESPONSES, SPEECH, background_response, is_streamed, operation_of
from .rate_limit_headers import day_reset, limit_headers_of, names_day, resume_line, retry_after_of
from .response import (
    HTTP_OK,
    NOT_SUPPORTED,
    WITHDRAWN,
    UnfinishedAnswer,
    UnusableAnswer,
    begins_with_events,
    decode_response,
    inner_error,
    is_known,
    says_json,
    says_page,
    separate_reasoning,
    text_of,
    usage_of,
)
from .rules import (
    NOT_JSON,
    UNSUPPORTED,
    UNUSABLE,
    WITHDRAWN_ANSWER,
    ErrorResponse,
    Rule,
    error_class,
    obey_server,
    rule_for,
    says_used_up,
    status_of_inner_error,
)
from .stream import StreamFault, StreamReader

__all__ = ["as_truncated", "chunk_of", "classify_response", "classify_stream", "streamed"]

_DATED_FROM_SECONDS = 300.0  # a shorter wait is no reason to look at the clock
_DAY_FROM_SECONDS = 3601.0  # no limit per minute or per hour asks for such a wait
_STARTING_RECHECK_SECONDS = 1.0  # between two looks whether a server has come up
_REQUEST_ID_CHARACTERS = 200


class _Context(NamedTuple):
    """A response and what its classification depends on; see :func:`classify_response`."""

    response: HTTPResponse
    request: ChatRequest
    endpoint_proven: bool
    model_proven: bool
    wall: float
    request_id: Optional[str]


# --- whole responses ----------------------------------------------------------------------------------------------


def classify_response(
    response: HTTPResponse, request: ChatRequest, *, endpoint_proven: bool, model_proven: bool, wall: float
) -> Verdict:
    """Return what ``response`` means for the call that sent ``request``.  Never raises, whatever the server sent.

    Args:
        response: the response, read to its end.
        request: what was sent.
        endpoint_proven: whether the endpoint has answered any call with success (a 403 before that is fatal).
        model_proven: whether this path and model have (a 404 before that is fatal for them).
        wall: now, in seconds since the epoch.
    """
    status, headers = response.status, response.headers
    # Azure's gateway names its own refusals in another header.
    request_id = headers.get("x-request-id") or headers.get("apim-request-id")

    def context() -> _Context:  # made for answers that are no plain success only
        return _Context(response, request, endpoint_proven, model_proven, wall, request_id)

    if not 200 <= status < 300:
        return _classify_error(context(), status, read_error(response.content))
    if request.response != "json":
        return _classify_plain(context())
    try:
        payload, content = _payload(response, request)
    except TooDeep as problem:
        # It was paid for: all of it is kept.
        body = response.content.decode("utf-8", "replace")
        return _classify_unusable(context(), ErrorFacts(body=body), f"is {problem}")
    except ValueError:
        return _classify_not_json(context())
    if _is_error(payload, request):
        return _classify_inner_error(context(), payload)
    try:
        value = decode_response(request, payload, request_id)
    except UnusableAnswer as problem:
        background = _background_of(problem, request)
        if background is not None:
            return _pending(context(), background)
        verdict = _classify_unusable(context(), _error_facts_of_unusable(payload, problem), str(problem))
        return verdict._replace(usage=usage_of(payload))  # it is billed all the same
    if isinstance(value, ChatCompletion):
        usage = value.usage
        if content is not None:
            value.raw = content
    else:
        usage = usage_of(payload)
    return _success(value, usage, response, status, request_id, wall)


def _success(
    value: Any, usage: Optional[Usage], response: HTTPResponse, status: int, request_id: Optional[str], wall: float
) -> Verdict:
    limits = limit_headers_of(response.headers, wall)
    # By position: this runs once per call.
    return Verdict("success", "call", None, value, None, usage, limits, status, request_id)


def _background_of(problem: UnusableAnswer, request: ChatRequest) -> Optional[BackgroundResponse]:
    """Return the response that the server goes on making, None where there is none, or none that can be asked for."""
    return background_response(request, problem.response_id) if isinstance(problem, UnfinishedAnswer) else None


def _pending(context: _Context, background: BackgroundResponse) -> Verdict:
    response = context.response
    return Verdict(
        "pending",
        retry_after=retry_after_of(response.headers, "", context.wall, resets=False),
        limits=limit_headers_of(response.headers, context.wall),
        status=response.status,
        request_id=context.request_id,
        background=background,
    )


# What ends a stream, and at some gateways an answer that was none.
_DONE_MARK = re.compile(rb"\s*(?:data:\s*)?\[DONE\]\s*")
_DONE_MARK_BYTES = 60


def _payload(response: HTTPResponse, request: ChatRequest) -> Tuple[Any, Optional[bytes]]:
    """Return the JSON of an answer, and its bytes; None for these where another reader would get another value."""
    content = response.content
    if not content and not is_known(request) and (request.method == "DELETE" or not says_json(response.headers)):
        return None, content
    try:
        return _decoded(content)
    except ValueError:
        done = _DONE_MARK.search(content, max(0, len(content) - _DONE_MARK_BYTES))
        if done is None or done.end() < len(content):
            raise
    return _decoded(content[: done.start()])


def _decoded(content: bytes) -> Tuple[Any, Optional[bytes]]:
    payload, is_plain = decoded(content)
    return payload, content if is_plain else None


def _is_error(payload: Any, request: ChatRequest) -> bool:
    error = inner_error(payload)
    if not error:
        return False
    # A stored resource, say a fine-tuning job, may tell of its own failure: it is what was asked for.
    is_resource = isinstance(payload, dict) and payload.get("object") not in (None, "error")
    return is_known(request) or not is_resource


def _classify_not_json(context: _Context) -> Verdict:
    response = context.response
    if is_streamed(context.request) and begins_with_events(response.content):
        return _classify_unasked_stream(context)
    if is_known(context.request) or says_json(response.headers):
        return _classify_unusable(context, page_facts(response.content), "is not JSON")
    # Sound, say, or a file: it may be what was asked for, and paid for, and would come again.
    error_facts = page_facts(response.content)._replace(body=response.content)
    rule = obey_server(NOT_JSON, response.status, response.headers)
    return _failure(context, rule, response.status, error_facts, unusable_line(response, "is not JSON"))


def _classify_plain(context: _Context) -> Verdict:
    """Classify an answer that was asked for as text, as bytes, or in a file."""
    response, request = context.response, context.request
    if says_json(response.headers):
        with contextlib.suppress(ValueError):
            payload = loads(response.content)
            if inner_error(payload):
                return _classify_inner_error(context, payload)
    if says_page(response.headers) and request.method != "GET":
        return _classify_unusable(context, page_facts(response.content), "is a page")
    if not response.content and operation_of(request.path) == SPEECH:
        return _classify_unusable(context, ErrorFacts(), "is empty")
    value: Any = response.content
    if request.response == "text":
        value = text_of(response.content, response.headers)
    elif isinstance(request.response, os.PathLike):
        value = pathlib.Path(request.response)
    return _success(value, None, response, response.status, context.request_id, context.wall)


def _classify_unasked_stream(context: _Context) -> Verdict:
    """Classify a stream that the request has not asked for: some gateways know nothing else."""
    response = context.response
    reader = StreamReader(context.request, max_event_bytes=len(response.content) + 1)
    reader.feed(response.content)
    reader.end()
    fault = reader.fault
    if fault is not None and fault.error is not None:
        return _classify_inner_error(context, fault.error)
    if fault is not None:
        return _classify_unusable(context, ErrorFacts(), f"is a stream that {fault.problem}")
    try:
        value = reader.completion(context.request_id)
    except UnusableAnswer as problem:
        return _classify_unusable(context, ErrorFacts(), str(problem))
    return _success(value, value.usage, response, response.status, context.request_id, context.wall)


def _classify_inner_error(context: _Context, payload: Any) -> Verdict:
    """Classify a 200 that holds an error, by the status that the error stands for."""
    error_facts = error_facts_of(payload[0] if isinstance(payload, list) else payload)
    status = status_of_inner_error(error_facts)
    if status is None and says_used_up(error_facts.message):
        status = 402
    if status is None:
        return _classify_unusable(context, error_facts, "holds an error")
    return _classify_error(context, status, error_facts)


def _classify_error(context: _Context, status: int, error_facts: ErrorFacts) -> Verdict:
    response = context.response
    rule = rule_for(ErrorResponse(status, error_facts, response.headers, context.endpoint_proven, context.model_proven))
    if rule.about == "access" and status == 404 and not is_known(context.request):
        rule = rule._replace(about="")  # what is missing is a stored thing, not the model
    verdict = _failure(context, rule, status, error_facts, status_line(response, status))
    if rule.kind != "fail" or not rule.for_every_call or response.headers.get("retry-after"):
        return verdict
    message = without_ids(error_facts.message or response.headers.get("location") or "", context.request_id)
    return verdict._replace(fingerprint=f"{status} {error_facts.code} {message}")


_UNUSABLE_RULES = {NOT_SUPPORTED: UNSUPPORTED, WITHDRAWN: WITHDRAWN_ANSWER}


def _classify_unusable(context: _Context, error_facts: ErrorFacts, problem: str) -> Verdict:
    response = context.response
    code = error_facts.code
    rule = _UNUSABLE_RULES.get(code, UNUSABLE) if isinstance(code, str) else UNUSABLE
    rule = obey_server(rule, response.status, response.headers)
    verdict = _failure(context, rule, response.status, error_facts, unusable_line(response, problem))
    if rule.kind != "retry":  # the server itself says that it is not worth another attempt
        return verdict
    digest = hashlib.blake2b(response.content, digest_size=16).hexdigest()
    return verdict._replace(fingerprint=f"{response.status} {digest}")


def _error_facts_of_unusable(payload: Any, problem: Exception) -> ErrorFacts:
    """Return the facts of an answer that is not what it should be, without quoting what a model may have written."""
    if isinstance(problem, UnusableAnswer) and problem.error is not None:
        return error_facts_of({"error": problem.error})._replace(body=payload)
    return error_facts_of(payload) if isinstance(payload, dict) else ErrorFacts()


def _failure(context: _Context, rule: Rule, status: int, error_facts: ErrorFacts, summary: str) -> Verdict:
    """Return the verdict of a failure, with its error.

    Args:
        context: the response.
        rule: the rule that applies to it.
        status: its status, or the one that the error inside it stands for.
        error_facts: what its body says.
        summary: what happened, for the error's message.
    """
    headers = context.response.headers
    request_id = _shortened_id(context.request_id)
    retry_after = retry_after_of(
        headers,
        error_facts.message,
        context.wall,
        resets=rule.kind == "throttled",
        kind=(error_facts.type or "").lower(),
        body=error_facts.body,
    )
    error_type = error_class(rule, status)
    advice = rule.advice or error_type.advice
    of_day = error_type is RateLimitError and _is_of_day(rule, error_facts, retry_after)
    if of_day:
        error_type = DayLimitError
        retry_after = day_reset(error_facts.body, retry_after, context.wall)
    if rule.kind == "throttled" and retry_after is not None and (of_day or retry_after >= _DATED_FROM_SECONDS):
        advice = resume_line(retry_after, context.wall, of_day=of_day)
    call = name_call(context.request, context.response, request_id)
    error = error_type(
        through_proxy(compose_message(summary, call, error_facts.message, advice), context.response),
        status_code=status,
        request_id=request_id,
        code=error_facts.code,
        type=error_facts.type,
        param=error_facts.param,
        body=error_facts.body,
        retry_after=retry_after,
    )
    if isinstance(error, DayLimitError) and retry_after is not None:
        error.resume_at = context.wall + retry_after
    if rule.about == "start" and retry_after is None:
        retry_after = _STARTING_RECHECK_SECONDS  # the server has not asked for it: the error does not say so
    return Verdict(
        rule.kind,
        rule.scope,
        error,
        retry_after=retry_after,
        limits=limit_headers_of(headers, context.wall),
        status=status,
        request_id=request_id,
        about=rule.about,
        key_refused=status == 401,
    )


def _is_of_day(rule: Rule, error_facts: ErrorFacts, retry_after: Optional[float]) -> bool:
    """Return whether a refusal is for a limit per day, or for longer."""
    if rule.kind != "throttled":
        return False
    is_long = retry_after is not None and retry_after >= _DAY_FROM_SECONDS
    return is_long or names_day(error_facts.message, error_facts.body)


def _shortened_id(request_id: Optional[str]) -> Optional[str]:
    return shorten(request_id, _REQUEST_ID_CHARACTERS) if request_id else None


# --- streams ------------------------------------------------------------------------------------------------------


def streamed(request: ChatRequest) -> ChatRequest:
    """Return ``request`` as one for a stream, with the usage in its last chunk.

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
    """Return a whole answer as the one chunk of a stream, for a server that did not stream."""
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
    response: HTTPResponse,
    request: ChatRequest,
    *,
    endpoint_proven: bool,
    model_proven: bool,
    wall: float,
) -> Verdict:
    """Return what a stream that has ended means for the call; a success has the whole answer as its value.

    Never raises, whatever the server sent.  Where something of the answer had come the error is a
    :class:`TruncatedStreamError` with its text, raised from the server's error.

    Args:
        reader: has read the stream, to its end or to a fault.
        response: the stream's status and headers; its content does not matter.
        request: what was sent.
        endpoint_proven: as for :func:`classify_response`.
        model_proven: as for :func:`classify_response`.
        wall: now, in seconds since the epoch.
    """
    fault = reader.fault
    request_id = response.headers.get("x-request-id")
    if fault is None:
        try:
            value = reader.completion(request_id)
        except UnusableAnswer as problem:
            fault = StreamFault("garbage", str(problem))
        else:
            return _success(value, value.usage, response, HTTP_OK, request_id, wall)
    if fault.kind == "overflow":
        return as_truncated(classify_exception(ResponseTooLarge(reader.max_event_bytes), url=response.url), reader)
    if fault.error is None:
        return _classify_broken_stream(reader, fault, response, request, wall)
    inner = response._replace(content=json.dumps(fault.error).encode())
    verdict = classify_response(inner, request, endpoint_proven=endpoint_proven, model_proven=model_proven, wall=wall)
    return as_truncated(verdict, reader)


def as_truncated(verdict: Verdict, reader: StreamReader) -> Verdict:
    """Return ``verdict`` of what broke a stream, with an error that says so and keeps the text that had come.

    Where nothing of the answer had come it is left as it is: the call just failed.
    """
    cause = verdict.error
    if not isinstance(cause, APIError) or not reader.begun:
        return verdict
    error = TruncatedStreamError(f"the stream broke off after {reader.size:,} bytes: {cause.message}", text=reader.text)
    fields = ("status_code", "request_id", "code", "type", "param", "body", "retry_after")
    error.__dict__.update({name: getattr(cause, name) for name in fields})
    error.__cause__ = cause
    return verdict._replace(error=error, fingerprint=None)  # what had come before was not the same


def _classify_broken_stream(
    reader: StreamReader, fault: StreamFault, response: HTTPResponse, request: ChatRequest, wall: float
) -> Verdict:
    """Classify a stream that is no answer and holds no error of the server's."""
    status, headers = response.status, response.headers
    rule = obey_server(UNUSABLE, status, headers)
    request_id = _shortened_id(headers.get("x-request-id"))
    retry_after = retry_after_of(headers, "", wall)
    size = f"{reader.size:,} bytes"
    error = TruncatedStreamError(
        compose_message(
            f"the stream {fault.problem}: HTTP {status} ({content_type_of(response)}, {size})",
            name_call(request, response, request_id),
            "",
            TruncatedStreamError.advice,
        ),
        text=reader.text,
        status_code=status,
        request_id=request_id,
        retry_after=retry_after,
    )
    return Verdict(
        rule.kind,
        rule.scope,
        error,
        retry_after=retry_after,
        limits=limit_headers_of(headers, wall),
        status=status,
        request_id=request_id,
    )
