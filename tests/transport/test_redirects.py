"""Redirects that may be followed."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from chatpool._transport.urls import redirect_method, redirect_target

HERE = "https://api.example.com/v1/chat/completions"


def target(location, status=307, url=HERE):
    return redirect_target(status, CaseInsensitiveDict({"Location": location}), url)


@pytest.mark.parametrize("status", [303, 307, 308])
@pytest.mark.parametrize(
    ("location", "followed_to"),
    [
        ("/v2/chat", "https://api.example.com/v2/chat"),
        ("other?x=1", "https://api.example.com/v1/chat/other?x=1"),
        ("https://api.example.com/v2", "https://api.example.com/v2"),
        ("https://API.example.com:443/v2#part", "https://API.example.com:443/v2"),
        ("//api.example.com/v2", "https://api.example.com/v2"),
    ],
)
def test_a_target_of_the_same_origin_is_followed(status, location, followed_to):
    assert target(location, status) == followed_to


@pytest.mark.parametrize(
    "location",
    [
        "http://api.example.com/v2",
        "https://api.example.com:8443/v2",
        "https://example.com/v2",
        "https://api.example.com.evil.org/",
        "//evil.org/",
        "https://user@api.example.com/",
        "https://api.example.com@evil.org/",
        "https://api.example.com\\@evil.org/",
        "/\\evil.org",
        "file:///etc/passwd",
        "https://api.example.com:port/",
        "https://[broken/",
        "/with space",
        "/with\ttab",
        "",
    ],
)
def test_any_other_target_is_not(location):
    assert target(location) is None


@pytest.mark.parametrize("status", [200, 300, 301, 302, 304, 404])
def test_a_status_that_may_or_may_not_change_the_method_is_not_followed(status):
    assert target("/v2", status) is None


def test_see_other_is_followed_by_get_and_others_by_the_same_method():
    assert [redirect_method(303, method) for method in ("POST", "GET", "DELETE", "HEAD")] == ["GET"] * 3 + ["HEAD"]
    assert [redirect_method(status, "POST") for status in (307, 308)] == ["POST", "POST"]


def test_a_redirect_without_a_location_is_not_followed():
    assert redirect_target(307, CaseInsensitiveDict(), HERE) is None


@given(st.text() | st.builds("https://{}/{}".format, st.text(), st.text()))
def test_no_location_at_all_leads_to_another_origin(location):
    followed = target(location)
    if followed is not None:
        parts = urlsplit(followed)
        assert (parts.scheme, parts.hostname, parts.port or 443) == ("https", "api.example.com", 443)
