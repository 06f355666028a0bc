"""The table that says what an error answer means for its call.  The first rule that applies wins.

What servers say in words of their own where others have a code for it.
"""

from __future__ import annotations

import re
from typing import Callable, Mapping, NamedTuple, Optional, Pattern, Tuple, Type

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
from .rate_limit_headers import retry_after_of

__all__ = [
    "NOT_JSON",
    "RULES",
    "UNSUPPORTED",
    "UNUSABLE",
    "ErrorResponse",
    "Rule",
    "error_class",
    "is_about_one_request",
    "is_starting",
    "names_unknown_model",
    "obey_server",
    "over_model_budget",
    "refuses_key",
    "rule_for",
    "status_inside",
    "used_up",
]


_ATTACHED = r"(?:image|audio|file|url)s?"
_SPOILT = r"(?:invalid|unsupported|download|fetch|decode|process|could not|cannot|failed)"

# Only the beginning is looked at: further on, some messages quote the request.
_LOOK_AT = 400


def _phrases(*phrases: str) -> Callable[[str], bool]:
    pattern: Pattern[str] = re.compile("|".join(phrases), re.IGNORECASE)
    return lambda message: pattern.search(message[:_LOOK_AT]) is not None


used_up = _phrases(
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
"""Recognises: no money, credit or budget is left."""

over_model_budget = _phrases(r"crossed budget|exceeded budget for (?:deployment|provider|model)")
"""Recognises: one model's budget is used up, others may be served."""

names_unknown_model = _phrases(
    r"invalid model name passed in",  # LiteLLM
    r"^invalid model\b|^unknown model\b|\bmodel not exist\b",
    r"^(?:the )?model [`'\"]?[\w./:@-]+[`'\"]? (?:does not exist|not found|is not (?:found|available|supported))",
)
"""Recognises: there is no model of that name, whatever the status."""

refuses_key = _phrases(
    r"api key not valid|invalid api.?key|incorrect api.?key|api.?key is (?:invalid|expired)",  # Gemini says so with 400
    r"^authentication error|no connected db|no api key passed in",  # LiteLLM
)
"""Recognises: the key is not taken, whatever the status."""

_comes_up = _phrases(
    r"\bloading (?:the )?model\b|\bmodel\b.{0,200}\b(?:currently |still |being )?load(?:ing|ed into memory)",
    r"\b(?:is|still) (?:loading|starting|warming up|initiali[sz]ing)\b|\bwarming up\b|\bstarting up\b",
    r"\bmodel (?:is )?not (?:yet )?ready\b|\bserver (?:is )?not (?:yet )?ready\b",
)
_goes_wrong = _phrases(r"fail|error|unable|could not|terminated")


def is_starting(message: str) -> bool:
    """Recognise a server that is there and not ready yet, by the words of its failure."""
    return _comes_up(message) and not _goes_wrong(message)


is_about_one_request = _phrases(
    r"context.{0,20}(?:length|window|size)|maximum context|too (?:long|large|big|many tokens|many images)",
    r"(?:exceed|larger|longer|greater|more)\w* .{0,60}(?:tokens?|characters?|length|context|maximum|limit)",
    r"content.{0,20}(?:filter|polic|management|moderation)|\bmoderation\b|\bflagged\b|\bsafety\b|inappropriate",
    rf"{_ATTACHED}\b.{{0,80}}{_SPOILT}",
    rf"{_SPOILT}.{{0,80}}\b{_ATTACHED}\b",
)
"""Recognises a refusal of this request's length or content: others may fare better."""


class ErrorResponse(NamedTuple):
    """An answer that is an error, with what the rules look at.

    Attributes:
        status: its HTTP status, or the one that the error inside a 200 names.
        facts: what its body says.
        headers: its headers.
        endpoint_proven: whether the endpoint has answered any call with success.
        model_proven: whether its path and model have.
    """

    status: int
    facts: ErrorFacts
    headers: Mapping[str, str]
    endpoint_proven: bool = False
    model_proven: bool = False


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
        name: what the row is about.
        applies: whether a refusal is such a case.
        kind: the verdict's kind.
        scope: the verdict's scope.
        cure: what a person can do; None for the error class's own advice.
        error: the error class; None for the one of the status.
        about: the verdict's ``about``.
        of_all: whether many calls that are refused in the same words show that every call would be.
    """

    name: str
    applies: Callable[[ErrorResponse], bool]
    kind: str
    scope: str = "call"
    cure: Optional[str] = None
    error: Optional[Type[APIError]] = None
    about: str = ""
    of_all: bool = False


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


def _says(words: frozenset[str]) -> Callable[[ErrorResponse], bool]:
    return lambda refusal: not words.isdisjoint(refusal.facts.words)


def _status(*statuses: int) -> Callable[[ErrorResponse], bool]:
    return lambda refusal: refusal.status in statuses


_quota, _model, _key_or_region, _flagged = map(_says, (_QUOTA, _MODEL, _KEY_OR_REGION, _FLAGGED))
_key, _of_one_request = _says(_KEY), _says(_OF_ONE_REQUEST)


def _names_wait(refusal: ErrorResponse) -> bool:
    return bool(refusal.headers.get("retry-after") or refusal.headers.get("retry-after-ms"))


def _is_out_of_credit(refusal: ErrorResponse) -> bool:
    if not 400 <= refusal.status < 500 or refusal.status == 402 or _quota(refusal):
        return 400 <= refusal.status < 500
    message = refusal.facts.message
    if refusal.status in (408, 409, 425):
        return False
    # Gemini says "exceeded your current quota" of a quota per minute too, and then when to come back.
    return used_up(message) and not _names_wait(refusal) and retry_after_of({}, message, 0.0, resets=False) is None


def _is_over_model_budget(refusal: ErrorResponse) -> bool:
    return 400 <= refusal.status < 500 and over_model_budget(refusal.facts.message)


def _is_credit_pause(refusal: ErrorResponse) -> bool:
    return refusal.status == 402 and _names_wait(refusal) and not _quota(refusal)


def _is_pause(refusal: ErrorResponse) -> bool:
    # Azure API Management, of a quota that is used up; a refusal for good has no use for a Retry-After.
    return refusal.status == 403 and _names_wait(refusal) and not (_is_flagged(refusal) or _key_or_region(refusal))


def _can_never_fit(refusal: ErrorResponse) -> bool:
    return refusal.status == 429 and "request too large" in refusal.facts.message.lower()


def _is_flagged(refusal: ErrorResponse) -> bool:
    return refusal.status == 403 and (refusal.facts.flagged or _flagged(refusal))


def _is_unknown_model(refusal: ErrorResponse) -> bool:
    missing = refusal.status == 404 or (refusal.status == 403 and _model(refusal))
    return missing and not refusal.model_proven


def _is_unknown_name(refusal: ErrorResponse) -> bool:
    named = _model(refusal) or names_unknown_model(refusal.facts.message)
    return refusal.status in (400, 422) and named and not refusal.model_proven


def _is_key_refused(refusal: ErrorResponse) -> bool:
    worded = refusal.status == 400 and (_key(refusal) or refuses_key(refusal.facts.message))
    return refusal.status == 401 or worded


def _is_unsupported(refusal: ErrorResponse) -> bool:
    # llama.cpp, asked for embeddings that it was not started for: no other 5xx lasts for ever.
    return refusal.status == 501 and "not_supported_error" in refusal.facts.words


def _is_beyond_the_model(refusal: ErrorResponse) -> bool:
    # llama.cpp of one long text, and Ollama of one whose vector has no numbers: they say so each time.
    said = refusal.facts.message.lower()
    return refusal.status == 500 and ("too large to process" in said or "unsupported value: nan" in said)


def _is_starting(refusal: ErrorResponse) -> bool:
    return refusal.status >= 500 and is_starting(refusal.facts.message)


def _is_of_one_request(refusal: ErrorResponse) -> bool:
    if not 400 <= refusal.status < 500:
        return False
    return _of_one_request(refusal) or is_about_one_request(refusal.facts.message)


def _is_shut_out(refusal: ErrorResponse) -> bool:
    return refusal.status == 403 and (_key_or_region(refusal) or not refusal.endpoint_proven)


CURE_PROXY_LOGIN = "put user and password into the proxy's URL (http://user:password@host:port)"

# Status by status: https://platform.openai.com/docs/guides/error-codes and what compatible servers do.
RULES: Tuple[Rule, ...] = (
    Rule(
        "redirect",
        lambda refusal: 300 <= refusal.status < 400,
        "fail",
        cure="check base_url: it may be wrong",
        of_all=True,
    ),
    Rule("paused for lack of credit", _is_credit_pause, "throttled", error=RateLimitError),
    Rule("over the model's budget", _is_over_model_budget, "fatal", "model", error=InsufficientQuotaError),
    Rule("out of credit", _is_out_of_credit, "fatal", "run", error=InsufficientQuotaError),
    Rule("paused", _is_pause, "throttled"),
    Rule("can never fit", _can_never_fit, "fail", cure="shorten the prompt or lower the completion's token limit"),
    Rule("rate limit", _status(429), "throttled"),
    Rule("key refused", _is_key_refused, "fatal", "run", error=AuthenticationError, about="access"),
    Rule("proxy refuses", _status(407), "fatal", "endpoint", cure=CURE_PROXY_LOGIN, about="access"),
    Rule("prompt flagged", _is_flagged, "fail", cure="change the prompt: the provider's moderation refused it"),
    Rule("no such model", _is_unknown_model, "fatal", "model", about="access"),
    Rule("no model of that name", _is_unknown_name, "fatal", "model", cure=NotFoundError.advice),
    Rule("shut out", _is_shut_out, "fatal", "endpoint", about="access"),
    Rule("no access", _status(403, 404), "fail", about="access", of_all=True),
    Rule("timed out at a gateway", _status(408, 504, 524), "timeout"),
    Rule("conflict at the server", _status(409), "retry", cure="run the failed items again"),
    Rule("too early", _status(425), "retry", cure="run the failed items again"),
    Rule("too large", _status(413), "fail", cure="shorten the request: it is too large for the server"),
    Rule("not supported", _is_unsupported, "fatal", "model", cure="use a server that was started for this"),
    Rule("beyond the model", _is_beyond_the_model, "fail", cure="shorten or change the text: the model cannot take it"),
    Rule("starting", _is_starting, "unavailable", cure="wait until the server is ready", about="start"),
    Rule("internal error", _status(500), "unavailable", about="content"),
    Rule("server failure", lambda refusal: refusal.status >= 500, "unavailable"),
    Rule("of one request", _is_of_one_request, "fail"),
    Rule("refused", lambda refusal: refusal.status >= 400, "fail", of_all=True),
)
NOT_JSON = Rule(
    "not JSON",
    lambda refusal: True,
    "fail",
    cure="its bytes are in the error's .body, whole, and it was not asked for again",
    error=APIResponseError,
)
UNUSABLE = Rule("unusable", lambda refusal: True, "retry", error=APIResponseError)
UNSUPPORTED = Rule(
    "unsupported", lambda refusal: True, "fail", cure="the same request is not sent again", error=APIResponseError
)


def rule_for(refusal: ErrorResponse) -> Rule:
    """The rule that applies to a refusal."""
    rule = next((rule for rule in RULES if rule.applies(refusal)), UNUSABLE)
    return obey_server(rule, refusal.status, refusal.headers)


def obey_server(rule: Rule, status: int, headers: Mapping[str, str]) -> Rule:
    """``rule`` as the server's ``x-should-retry`` changes it: that beats the table."""
    word = str(headers.get("x-should-retry") or "").strip().lower()
    if word == "true" and rule.kind in ("fail", "fatal"):
        return rule._replace(kind=_retry_kind(status), scope="call", about="")
    if word == "false" and rule.kind not in ("fail", "fatal"):
        return rule._replace(kind="fail", about="")
    return rule


def _retry_kind(status: int) -> str:
    if status == 429:
        return "throttled"
    return "unavailable" if status >= 500 else "retry"


def error_class(rule: Rule, status: int) -> Type[APIError]:
    """The class of the error for an answer that ``rule`` applies to."""
    return rule.error or status_error_class(status)


_STATUS_OF_WORD = {
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
    "server_is_overloaded": 503,
    "overloaded_error": 529,
    **dict.fromkeys(_QUOTA, 429),
}


def status_inside(facts: ErrorFacts) -> Optional[int]:
    """The HTTP status that an error inside a 200 stands for, by its code or its type; None if neither says."""
    code = facts.code
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    # The code is the more exact of the two.
    words = (facts.code, facts.type)
    return next((_STATUS_OF_WORD[word] for word in words if isinstance(word, str) and word in _STATUS_OF_WORD), None)
