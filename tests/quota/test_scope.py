"""What a scope may look like."""

from __future__ import annotations

import pytest

from chatpool import ConfigurationError
from chatpool._quota import parse_scope


def test_a_plain_name_is_for_this_host():
    assert parse_scope("nightly jobs") == ("nightly jobs", None, None)


@pytest.mark.parametrize(
    ("scope", "name", "url", "shown"),
    [
        ("redis://host/team", "team", "redis://host/0", "redis://host:6379"),
        ("redis://host:1/team", "team", "redis://host:1/0", "redis://host:1"),
        ("redis://host:1/3/team", "team", "redis://host:1/3", "redis://host:1"),
        ("redis://host:1/a/b", "a/b", "redis://host:1/0", "redis://host:1"),
        ("redis://host:1/2024", "2024", "redis://host:1/0", "redis://host:1"),
        ("rediss://me:hush@host:1/team", "team", "rediss://me:hush@host:1/0", "rediss://host:1"),
        ("redis://host/team?ssl=1", "team", "redis://host/0?ssl=1", "redis://host:6379"),
        ("unix:///run/redis.sock?name=team", "team", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/r.sock?name=team&db=2", "team", "unix:///run/r.sock?db=2", "unix:///run/r.sock"),
    ],
)
def test_a_url_names_a_redis_and_ends_with_the_name(scope, name, url, shown):
    found = parse_scope(scope)
    assert (found.name, found.redis.url, found.redis.display_url) == (name, url, shown)


def test_a_url_may_say_how_many_share():
    found = parse_scope("redis://host/team?sharers=6")
    assert (found.sharers, found.redis.url) == (6, "redis://host/0")


@pytest.mark.parametrize(
    ("scope", "complaint"),
    [
        ("", "1 to 200 printable"),
        ("  ", "1 to 200 printable"),
        ("a\nb", "1 to 200 printable"),
        ("x" * 201, "1 to 200 printable"),
        ("redis://host", "1 to 200 printable"),
        ("redis://host:1/", "1 to 200 printable"),
        ("redis://host:port/team", "cannot be read"),
        ("memcached://host/team", "memcached://"),
        ("redis://host/team?sharers=none", "sharers="),
        ("redis://host/team?sharers=0", "sharers="),
        ("unix:///run/redis.sock", "1 to 200 printable"),
    ],
)
def test_what_cannot_be_read_is_said_when_the_limit_is_made(scope, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        parse_scope(scope)


def test_a_scope_of_another_type_is_refused():
    with pytest.raises(TypeError, match=r"redis://host:port/name.*got a int"):
        parse_scope(5)


def test_the_password_is_in_no_message():
    with pytest.raises(ConfigurationError) as caught:
        parse_scope("redis://:hush@host:port/team")
    assert "hush" not in str(caught.value)
    assert "hush" not in parse_scope("redis://:hush@host/team").redis.display_url
