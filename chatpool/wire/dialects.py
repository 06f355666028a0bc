"""What servers say in words of their own where others have a code for it."""

from __future__ import annotations

import re
from typing import Callable, Pattern

__all__ = ["is_about_one_request", "is_starting", "names_unknown_model", "over_model_budget", "refuses_key", "used_up"]

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
