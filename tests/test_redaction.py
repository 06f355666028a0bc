"""Text that is safe to show."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import errors
from chatpool._journal import error_facts, error_of
from chatpool._redaction import Secret, printable, secret

WINDOW_TITLE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 漢字, 🙂", "plain, ünïcode, 漢字, 🙂"),
        ("line\n\tbreak\r\n", "line\n\tbreak\r\n"),
        (WINDOW_TITLE, "\\u001b]0;owned\\u0007"),
        ("\x9b31m\x7f\0", "\\u009b31m\\u007f\\u0000"),
        ("done\rundone", "done\\u000dundone"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("half \ud83d pair", "half \\ud83d pair"),
        ("one\u2028two", "one\\u2028two"),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_escapes(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_what_is_printable_can_be_encoded_and_stays_as_it_is(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.recursive(st.text(), st.lists))
def test_json_stays_json_of_the_same_value(value):
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"Reask", "from_dict", "status_error_class"}))
def test_the_message_of_an_error_can_be_printed_whatever_the_server_said(name):
    cls = getattr(errors, name)
    error = cls(f"refused: {WINDOW_TITLE} \ud83d")
    assert str(error) == error.message == "refused: \\u001b]0;owned\\u0007 \\ud83d"
    assert str(pickle.loads(pickle.dumps(error))) == str(error.copied()) == str(error)
    assert str(error_of(error_facts(error), 1)) == str(error)


def test_a_secret_is_used_as_any_text_and_not_shown():
    key = Secret("sk-secret")
    assert (key, "Bearer " + key, key.encode(), len(key)) == ("sk-secret", "Bearer sk-secret", b"sk-secret", 9)
    assert repr(key) == "***"
    assert repr({"key": key, "all": [key]}) == "{'key': ***, 'all': [***]}"
    for other in (copy.deepcopy(key), pickle.loads(pickle.dumps(key)), secret(key)):
        assert (type(other), other) == (Secret, "sk-secret")


def test_only_texts_become_secrets():
    def fetch():
        return "sk-secret"

    assert secret(fetch) is fetch
    assert secret(None) is None
    assert repr(secret({"X-Key": "sk-secret", "X-None": None})) == "{'X-Key': ***, 'X-None': None}"
