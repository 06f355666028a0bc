"""The table of error responses: what each means for its call.  The first rule that applies wins.

Servers differ in status, code and wording.  So a rule looks at all three, and the phrases by which servers say in
words what others say by a code stand here too.
"""

from __future__ import annotations

import re
from typing import Callable, FrozenSet, Mapping, NamedTuple, Optional, Tuple, Type

from ..errors import (
    APIError,
    APIResponseError,
    AuthenticationError,
    InsufficientQuotaError,
    NotFoundError,
    RateLimitError,
    status_error_class,
)
from .error_body import ErrorFacts
from .rate_limit_headers import names_day, retry_after_of

__all__ = [
    "NOT_JSON",
    "RULES",
    "UNSUPPORTED",
    "UNUSABLE",
    "WITHDRAWN_ANSWER",
    "ErrorResponse",
    "Rule",
    "error_class",
    "obey_server",
    "rule_for",
    "rule_of_error",
    "says_too_large",
    "says_used_up",
    "status_of_inner_error",
]


class ErrorResponse(NamedTuple):
    """An error response, as the rules see it.

    Attributes:
        status: its HTTP status, or the one that the error inside a 200 names.
        error_facts: what its body says.
        headers: its headers.
        endpoint_proven: whether the endpoint has answered any call with success.
        model_proven: whether its path and model have.
    """

    status: int
    error_facts: ErrorFacts
    headers: Mapping[str, str]
    endpoint_proven: bool = False
    model_proven: bool = False


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
        name: what the row is about, for a reader.
        applies: tells whether the row is for a response.
        kind: the verdict's kind.
        scope: the verdict's scope.
        advice: what a person can do; None for the error class's own advice.
        error: the error class; None for the one of the status.
        about: the verdict's ``about``.
        for_every_call: whether many calls that are refused with the same message show that every call would be.
        is_permanent: whether the fault is in this request, so that it is refused again whatever the key and the model.
    """

    name: str
    applies: Callable[[ErrorResponse], bool]
    kind: str
    scope: str = "call"
    advice: Optional[str] = None
    error: Optional[Type[APIError]] = None
    about: str = ""
    for_every_call: bool = False
    is_permanent: bool = False


# --- what servers say in messages ---------------------------------------------------------------------------------

_ATTACHMENTS = r"(?:image|audio|file|url)s?"
_UNUSABLE_WORDS = r"(?:invalid|unsupported|download|fetch|decode|process|could not|cannot|failed)"

# Only the beginning is searched: further on, some messages quote the request.
_SEARCHED_CHARACTERS = 400


def _phrases(*phrases: str) -> Callable[[str], bool]:
    pattern = "|".join(phrases)  # compiled at the first error: most programs see none
    return lambda message: re.search(pattern, message[:_SEARCHED_CHARACTERS], re.IGNORECASE) is not None


says_used_up = _phrases(
    r"exceeded your current quota",  # OpenAI's insufficient_quota, behind gateways that pass on its text only
    r"budget has been exceeded|exceeded (?:the |your )?budget|over budget|ExceededBudget|budget_exceeded",  # LiteLLM
    r"\bbalance (?:is )?(?:too low|insufficient|not enough|exhausted|overdue)",
    r"insufficient (?:account )?(?:balance|credits?|funds)|not enough (?:balance|credits?|funds)",
    r"(?:used|spent) (?:up )?all (?:of )?(?:your |its |the )?(?:available |included )?credits|out of credits?",
    r"(?:doesn.t|does not|don.t|do not) have (?:any|enough) credits|no credits? (?:left|remaining)",
    r"credits? (?:have|has|are|is) (?:been )?(?:exhausted|depleted|used up)",
    r"exceeded your (?:monthly |daily )?included credits",
    r"(?:reached|exceeded|hit) (?:your|its|the|their) (?:monthly |hard |maximum )?(?:spend|spending|billing) limit",
    r"key limit exceeded",  # OpenRouter: the limit of money that a key was given
    r"user quota is not enough|quota is insufficient|prepaid (?:quota|balance)",  # one-api and its kin
    r"余额不足|欠费|额度不足|额度已用尽|请充值",
)
"""Recognise a message that says that no money, credit or budget is left."""

_is_model_budget_message = _phrases(r"crossed budget|exceeded budget for (?:deployment|provider|model)")
"""Recognise a message that says that one model's budget is used up; others may be served."""

_names_unknown_model = _phrases(
    r"invalid model name passed in",  # LiteLLM
    r"^invalid model\b|^unknown model\b|\bmodel not exist\b",
    r"^(?:the )?model [`'\"]?[\w./:@-]+[`'\"]? (?:does not exist|not found|is not (?:found|available|supported))",
)
"""Recognise a message that says that there is no model of that name, whatever the status."""

_refuses_key = _phrases(
    r"api key not valid|invalid api.?key|incorrect api.?key|api.?key is (?:invalid|expired)",  # Gemini says so with 400
    r"^authentication error|no connected db|no api key passed in",  # LiteLLM
)
"""Recognise a message that says that the key is not accepted, whatever the status."""

_says_coming_up = _phrases(
    r"\bloading (?:the )?model\b|\bmodel\b.{0,200}\b(?:currently |still |being )?load(?:ing|ed into memory)",
    r"\b(?:is|still) (?:loading|starting|warming up|initiali[sz]ing)\b|\bwarming up\b|\bstarting up\b",
    r"\bmodel (?:is )?not (?:yet )?ready\b|\bserver (?:is )?not (?:yet )?ready\b",
)
_says_failure = _phrases(r"fail|error|unable|could not|terminated")


def _says_starting(message: str) -> bool:
    """Recognise the message of a server that runs and is not ready yet."""
    return _says_coming_up(message) and not _says_failure(message)


_is_about_one_request = _phrases(
    r"context.{0,20}(?:length|window|size)|maximum context|too (?:long|large|big|many tokens|many images)",
    r"(?:exceed|larger|longer|greater|more)\w* .{0,60}(?:tokens?|characters?|length|context|maximum|limit)",
    r"content.{0,20}(?:filter|polic|management|moderation)|\bmoderation\b|\bflagged\b|\bsafety\b|inappropriate",
    rf"{_ATTACHMENTS}\b.{{0,80}}{_UNUSABLE_WORDS}",
    rf"{_UNUSABLE_WORDS}.{{0,80}}\b{_ATTACHMENTS}\b",
)
"""Recognise a message about this request's length or content: other requests may succeed."""


# --- codes and types, in lower case -------------------------------------------------------------------------------

_QUOTA = frozenset(
    {
        "accountoverdueerror",  # Volcengine
        "arrearage",  # Alibaba
        "billing_hard_limit_reached",
        "billing_not_active",
        "budget_exceeded",  # LiteLLM
        "credit_balance_exhausted",
        "exceeded_current_quota_error",  # Moonshot
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_quota",
        "insufficient_user_quota",  # one-api
    }
)
_MODEL = frozenset({"invalid_model", "model_not_found"})
_NO_ROOM = frozenset({"resource_unavailable"})  # OpenAI, of the tier flex
_KEY = frozenset({"auth_error", "authentication_error", "invalid_api_key", "no_db_connection"})
_KEY_OR_REGION = frozenset(
    {
        "account_deactivated",
        "invalid_api_key",
        "invalid_organization",
        "ip_not_authorized",
        "organization_deactivated",
        "unsupported_country_region_territory",
    }
)
_FLAGGED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_OF_ONE_REQUEST = _FLAGGED | {
    "context_length_exceeded",
    "data_inspection_failed",
    "invalid_base64_image",
    "invalid_image_url",
    "responsibleaipolicyviolation",
    "string_above_max_length",
}


# --- the cases ----------------------------------------------------------------------------------------------------


def _has_code(codes: FrozenSet[str]) -> Callable[[ErrorResponse], bool]:
    return lambda response: not codes.isdisjoint(response.error_facts.codes)


def _status(*statuses: int) -> Callable[[ErrorResponse], bool]:
    return lambda response: response.status in statuses


_quota, _model, _key_or_region, _flagged = map(_has_code, (_QUOTA, _MODEL, _KEY_OR_REGION, _FLAGGED))
_key, _of_one_request, _no_room = map(_has_code, (_KEY, _OF_ONE_REQUEST, _NO_ROOM))


def _names_wait(response: ErrorResponse) -> bool:
    return bool(response.headers.get("retry-after") or response.headers.get("retry-after-ms"))


def _is_out_of_credit(response: ErrorResponse) -> bool:
    if not 400 <= response.status < 500 or response.status == 402 or _quota(response):
        return 400 <= response.status < 500
    message = response.error_facts.message
    if response.status in (408, 409, 425):
        return False
    # Gemini says "exceeded your current quota" of a quota per minute too, and then when to come back.
    if not says_used_up(message) or _names_wait(response):
        return False
    if response.status == 429 and names_day(message, response.error_facts.body):
        return False
    return retry_after_of({}, message, 0.0, resets=False) is None


def _is_over_model_budget(response: ErrorResponse) -> bool:
    return 400 <= response.status < 500 and _is_model_budget_message(response.error_facts.message)


def _is_credit_pause(response: ErrorResponse) -> bool:
    return response.status == 402 and _names_wait(response) and not _quota(response)


def _is_pause(response: ErrorResponse) -> bool:
    # Azure API Management, of a quota that is used up; a refusal for good has no use for a Retry-After.
    return response.status == 403 and _names_wait(response) and not (_is_flagged(response) or _key_or_region(response))


def says_too_large(message: str) -> bool:
    """Return whether a 429 says that the request has more tokens than its limit, and will never be taken."""
    return "request too large" in message.lower()


def _can_never_fit(response: ErrorResponse) -> bool:
    return response.status == 429 and says_too_large(response.error_facts.message)


def _is_without_room(response: ErrorResponse) -> bool:
    return response.status == 429 and _no_room(response)


def _is_flagged(response: ErrorResponse) -> bool:
    return response.status == 403 and (response.error_facts.flagged or _flagged(response))


def _is_unknown_model(response: ErrorResponse) -> bool:
    missing = response.status == 404 or (response.status == 403 and _model(response))
    return missing and not response.model_proven


def _is_unknown_name(response: ErrorResponse) -> bool:
    named = _model(response) or _names_unknown_model(response.error_facts.message)
    return response.status in (400, 422) and named and not response.model_proven


def _is_key_refused(response: ErrorResponse) -> bool:
    is_bad_request = response.status == 400 and (_key(response) or _refuses_key(response.error_facts.message))
    return response.status == 401 or is_bad_request


def _is_unsupported(response: ErrorResponse) -> bool:
    # llama.cpp, asked for embeddings that it was not started for: no other 5xx lasts for ever.
    return response.status == 501 and "not_supported_error" in response.error_facts.codes


def _is_beyond_the_model(response: ErrorResponse) -> bool:
    # llama.cpp of one long text, and Ollama of one whose vector has no numbers: they say so each time.
    message = response.error_facts.message.lower()
    return response.status == 500 and ("too large to process" in message or "unsupported value: nan" in message)


def _is_starting(response: ErrorResponse) -> bool:
    return response.status >= 500 and _says_starting(response.error_facts.message)


def _is_of_one_request(response: ErrorResponse) -> bool:
    if not 400 <= response.status < 500:
        return False
    return _of_one_request(response) or _is_about_one_request(response.error_facts.message)


def _is_shut_out(response: ErrorResponse) -> bool:
    return response.status == 403 and (_key_or_region(response) or not response.endpoint_proven)


PROXY_LOGIN_ADVICE = "put user and password into the proxy's URL (http://user:password@host:port)"

# Status by status: https://platform.openai.com/docs/guides/error-codes and what compatible servers do.
RULES: Tuple[Rule, ...] = (
    Rule(
        "redirect",
        lambda response: 300 <= response.status < 400,
        "fail",
        advice="check base_url: it may be wrong",
        for_every_call=True,
    ),
    Rule("paused for lack of credit", _is_credit_pause, "throttled", error=RateLimitError),
    Rule("over the model's budget", _is_over_model_budget, "fatal", "model", error=InsufficientQuotaError),
    Rule("out of credit", _is_out_of_credit, "fatal", "run", error=InsufficientQuotaError),
    Rule("paused", _is_pause, "throttled"),
    Rule(
        "can never fit",
        _can_never_fit,
        "fail",
        advice="shorten the prompt or lower the completion's token limit",
        is_permanent=True,
    ),
    Rule("no room in the tier", _is_without_room, "throttled", about="tier"),
    Rule("rate limit", _status(429), "throttled"),
    Rule("key refused", _is_key_refused, "fatal", "run", error=AuthenticationError, about="access"),
    Rule("proxy refuses", _status(407), "fatal", "endpoint", advice=PROXY_LOGIN_ADVICE, about="access"),
    Rule(
        "prompt flagged",
        _is_flagged,
        "fail",
        advice="change the prompt: the provider's moderation refused it",
        is_permanent=True,
    ),
    Rule("no such model", _is_unknown_model, "fatal", "model", about="access"),
    Rule("no model of that name", _is_unknown_name, "fatal", "model", advice=NotFoundError.advice),
    Rule("shut out", _is_shut_out, "fatal", "endpoint", about="access"),
    Rule("no access", _status(403, 404), "fail", about="access", for_every_call=True),
    Rule("timed out at a gateway", _status(408, 504, 524), "timeout"),
    Rule("conflict at the server", _status(409), "retry", advice="run the failed items again"),
    Rule("too early", _status(425), "retry", advice="run the failed items again"),
    Rule(
        "too large",
        _status(413),
        "fail",
        advice="shorten the request: it is too large for the server",
        is_permanent=True,
    ),
    Rule("not supported", _is_unsupported, "fatal", "model", advice="use a server that was started for this"),
    Rule(
        "beyond the model",
        _is_beyond_the_model,
        "fail",
        advice="shorten or change the text: the model cannot take it",
        is_permanent=True,
    ),
    Rule("starting", _is_starting, "unavailable", advice="wait until the server is ready", about="start"),
    Rule("internal error", _status(500), "unavailable", about="content"),
    Rule("server failure", lambda response: response.status >= 500, "unavailable"),
    Rule("of one request", _is_of_one_request, "fail", is_permanent=True),
    Rule("refused", lambda response: response.status >= 400, "fail", for_every_call=True),
)
NOT_JSON = Rule(
    "not JSON",
    lambda response: True,
    "fail",
    advice="its bytes are in the error's .body, whole, and it was not asked for again",
    error=APIResponseError,
)
UNUSABLE = Rule("unusable", lambda response: True, "retry", error=APIResponseError)
UNSUPPORTED = Rule(
    "unsupported", lambda response: True, "fail", advice="the same request is not sent again", error=APIResponseError
)
WITHDRAWN_ANSWER = Rule(
    "withdrawn",
    lambda response: True,
    "fail",
    advice="run it again if it is still wanted",
    error=APIResponseError,
    about="gone",
)


def rule_for(response: ErrorResponse) -> Rule:
    """Return the rule that applies to an error response."""
    rule = next((rule for rule in RULES if rule.applies(response)), UNUSABLE)
    return obey_server(rule, response.status, response.headers)


def rule_of_error(error: APIError) -> Rule:
    """Return the rule for the response that ``error`` was made of, as far as the error tells.

    Args:
        error: one with a ``status_code``.
    """
    error_facts = ErrorFacts(error.message, error.type, error.code)
    return rule_for(ErrorResponse(error.status_code or 0, error_facts, {}))


def obey_server(rule: Rule, status: int, headers: Mapping[str, str]) -> Rule:
    """Return ``rule`` changed by the server's ``x-should-retry``, which beats the table."""
    should_retry = str(headers.get("x-should-retry") or "").strip().lower()
    if should_retry == "true" and rule.kind in ("fail", "fatal"):
        return rule._replace(kind=_retry_kind(status), scope="call", about="")
    if should_retry == "false" and rule.kind not in ("fail", "fatal"):
        return rule._replace(kind="fail", about="")
    return rule


def _retry_kind(status: int) -> str:
    if status == 429:
        return "throttled"
    return "unavailable" if status >= 500 else "retry"


def error_class(rule: Rule, status: int) -> Type[APIError]:
    """Return the class of the error for a response that ``rule`` applies to."""
    return rule.error or status_error_class(status)


# Of a response that has failed for a fault in its request (the API's ResponseErrorCode).
_OF_A_RESPONSE = frozenset(
    {
        "bio_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "unsupported_image_media_type",
    }
)

_STATUS_OF_CODE = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_policy_violation": 400,
    "content_filter": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unsupported_country_region_territory": 403,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "slow_down": 429,
    "server_error": 500,
    "vector_store_timeout": 504,
    "server_is_overloaded": 503,
    "overloaded_error": 529,
    **dict.fromkeys(_QUOTA, 429),
    **dict.fromkeys(_OF_A_RESPONSE, 400),
}


def status_of_inner_error(error_facts: ErrorFacts) -> Optional[int]:
    """Return the HTTP status that an error inside a 200 stands for, by its code or its type; None if neither says."""
    code = error_facts.code
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    # The code is the more exact of the two.
    names = (error_facts.code, error_facts.type)
    return next((_STATUS_OF_CODE[name] for name in names if isinstance(name, str) and name in _STATUS_OF_CODE), None)
