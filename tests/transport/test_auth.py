"""The key is sent, and shown nowhere."""

from __future__ import annotations

import json
import threading

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from chatpool._transport import KeyAuth
from chatpool.errors import ConfigurationError

SECRET = "sk-a-secret-key"


def header_of(auth, name="Authorization"):
    request = requests.Request("POST", "http://host/", auth=auth)
    return requests.Session().prepare_request(request).headers.get(name)


def test_a_key_goes_into_its_header():
    assert header_of(KeyAuth(SECRET)) == f"Bearer {SECRET}"
    assert header_of(KeyAuth(SECRET, "api-key", ""), "api-key") == SECRET
    assert header_of(KeyAuth(None)) is None


@pytest.mark.parametrize("auth", [KeyAuth(SECRET), KeyAuth(lambda: SECRET), KeyAuth(None)])
def test_repr_does_not_show_the_key(auth):
    header_of(auth)
    assert SECRET not in repr(auth)
    assert SECRET not in str(auth)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", ConfigurationError),
        ("  ", ConfigurationError),
        (f"{SECRET}\n", ConfigurationError),
        (f"{SECRET}\r\nX-Evil: 1", ConfigurationError),
        (f"{SECRET}\u2026", ConfigurationError),
        (SECRET.encode(), TypeError),
        (3, TypeError),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["given", "returned"])
def test_a_key_that_cannot_be_sent_is_an_error_that_does_not_show_it(key, error, wrapped):
    with pytest.raises(error, match="api_key") as caught:
        header_of(KeyAuth((lambda: key) if wrapped else key))
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None or SECRET not in repr(caught.value.__context__)


def test_a_callable_is_asked_at_the_first_request():
    asked = []
    auth = KeyAuth(lambda: asked.append(1) or SECRET)
    assert auth.refreshable
    assert asked == []
    for _ in range(3):
        assert header_of(auth) == f"Bearer {SECRET}"
    assert asked == [1]


def test_a_refresh_asks_again():
    keys = iter(["first-key", "second-key"])
    auth = KeyAuth(lambda: next(keys))
    header_of(auth)
    auth.refresh()
    assert header_of(auth) == "Bearer second-key"
    assert auth.scrub("first-key second-key") == "*** ***"


def test_workers_that_are_refused_together_ask_for_one_new_key():
    count = 8
    asked = []
    auth = KeyAuth(lambda: asked.append(1) or f"key-{len(asked)}")
    sent = threading.Barrier(count)

    def work():
        header_of(auth)
        sent.wait(60)
        auth.refresh()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 2


def test_a_fixed_key_is_not_refreshed():
    auth = KeyAuth(SECRET)
    assert not auth.refreshable
    auth.refresh()
    assert header_of(auth) == f"Bearer {SECRET}"


@given(before=st.text(), after=st.text())
def test_the_key_is_scrubbed_wherever_it_stands(before, after):
    auth = KeyAuth(SECRET)
    text = before + SECRET + after
    assert SECRET not in auth.scrub(text)
    assert SECRET.encode() not in auth.scrub(text.encode("utf-8", "surrogatepass"))


def test_a_key_with_characters_that_json_escapes_is_scrubbed():
    key = 'a"b\\c-d'
    assert json.loads(KeyAuth(key).scrub(json.dumps({"message": f"wrong key {key}"}))) == {"message": "wrong key ***"}


def test_a_placeholder_is_not_scrubbed():
    assert KeyAuth("x").scrub(b"axis") == b"axis"
