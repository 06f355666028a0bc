"""requests' Response, made once and for the whole answer."""

from __future__ import annotations

import datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.cookies import RequestsCookieJar
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.response import HTTPResponse

from .headers import ParsedHeaders

__all__ = ["whole_response"]

_UNKNOWN = datetime.timedelta(0)


class _NoCookies(RequestsCookieJar):
    """An empty jar that stays empty, so that all responses can share it."""

    def set_cookie(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


_NO_COOKIES = _NoCookies(policy=DefaultCookiePolicy(allowed_domains=[]))


def whole_response(request: PreparedRequest, raw: HTTPResponse, content: bytes, adapter: Any) -> requests.Response:
    """What ``HTTPAdapter.build_response`` makes, for an answer whose body has been read.

    It spends nothing on cookies, which nobody reads: two scans of all headers for each answer.
    """
    headers = _headers_of(raw)
    # Session.send scans the original response for cookies, if it finds it.
    raw._original_response = None
    response = requests.Response.__new__(requests.Response)
    response.__dict__.update(
        _content=content,
        _content_consumed=True,
        _next=None,
        status_code=raw.status,
        headers=headers,
        raw=raw,
        url=request.url,
        encoding=get_encoding_from_headers(headers),
        history=[],
        reason=raw.reason,
        cookies=_NO_COOKIES,
        elapsed=_UNKNOWN,
        request=request,
        connection=adapter,
    )
    return response


def _headers_of(raw: HTTPResponse) -> CaseInsensitiveDict[str]:
    parsed = getattr(raw._original_response, "msg", None)
    return parsed.case_insensitive() if type(parsed) is ParsedHeaders else CaseInsensitiveDict(raw.headers)
