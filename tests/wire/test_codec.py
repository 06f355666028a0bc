"""Bodies to bytes and bytes to JSON, with and without orjson."""

from __future__ import annotations

import datetime
import json
import tracemalloc
import types
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ConfigurationError
from chatpool._wire import codec, encode

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@pytest.fixture
def orjson_like(monkeypatch):
    """A stand-in with orjson's ways: NaN becomes null, 64-bit integers, str keys, no lone surrogates."""
    seen = []

    def dumps(body):
        def limited(value):
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    raise TypeError("Dict key must be str")
                return {key: limited(part) for key, part in value.items()}
            if isinstance(value, (list, tuple)):
                return [limited(part) for part in value]
            if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
                return None
            if isinstance(value, int) and abs(value) >= 2**64:
                raise TypeError("Integer exceeds 64-bit range")
            return value

        seen.append(body)
        return json.dumps(limited(body), ensure_ascii=False, separators=(",", ":")).encode("utf-8")

    monkeypatch.setattr(codec, "_fast_dumps", dumps)
    return seen


@given(st.dictionaries(texts, values))
def test_what_is_encoded_decodes_to_the_same(body):
    assert codec.loads(encode(body)) == body


def test_a_body_is_compact_utf8():
    assert encode({"messages": [{"role": "user", "content": "naïve 猫"}]}) == (
        '{"messages":[{"role":"user","content":"naïve 猫"}]}'.encode()
    )


def test_mappings_and_tuples_are_written_as_objects_and_arrays():
    body = types.MappingProxyType({"a": types.MappingProxyType({"b": (1, 2)}), "c": OrderedDict(d=None)})
    assert json.loads(encode(body)) == {"a": {"b": [1, 2]}, "c": {"d": None}}


CIRCULAR: dict = {}
CIRCULAR["metadata"] = [CIRCULAR]

UNFIT = [
    ({"temperature": float("nan")}, ConfigurationError, "temperature is nan"),
    ({"temperature": None, "top_p": float("inf")}, ConfigurationError, "top_p is inf"),
    ({"logit_bias": {"50256": float("-inf")}}, ConfigurationError, r"logit_bias\.50256 is -inf"),
    ({"messages": [{"role": "user", "content": b"secret"}]}, TypeError, r"messages\[0\]\.content is a builtins\.bytes"),
    ({"metadata": {"when": datetime.date(2024, 1, 1)}}, TypeError, r"metadata\.when is a datetime\.date"),
    ({"stop": {"a", "b"}}, TypeError, "stop is a builtins.set"),
    (
        {"messages": [{"content": "secret \ud800"}]},
        ConfigurationError,
        r"messages\[0\]\.content holds a lone surrogate",
    ),
    ({"metadata": {(1, 2): "secret"}}, TypeError, "metadata has a key of type tuple"),
    ({"metadata": {"\udfff": 1}}, ConfigurationError, "metadata holds a lone surrogate"),
    (CIRCULAR, ConfigurationError, "metadata is circular"),
]


@pytest.mark.parametrize(("body", "cls", "message"), UNFIT)
def test_what_json_cannot_hold_is_refused_by_its_field_and_not_shown(body, cls, message):
    with pytest.raises(cls, match=message) as caught:
        encode(body)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("body", "cls", "message"), UNFIT)
def test_with_orjson_the_same_is_refused(orjson_like, body, cls, message):
    with pytest.raises(cls, match=message):
        encode(body)


@pytest.mark.parametrize("body", [{"a": None}, {"a": 2**70}, {1: "int key"}, {"a": "null"}, {"a": [1.5, True]}])
def test_with_orjson_the_bytes_are_the_same(orjson_like, monkeypatch, body):
    with_orjson = encode(body)
    monkeypatch.setattr(codec, "_fast_dumps", None)
    assert orjson_like == [body]
    assert with_orjson == encode(body)


def test_what_orjson_cannot_decode_is_left_to_the_standard_library(monkeypatch):
    def refuse(content):
        raise ValueError("NaN is no JSON")

    monkeypatch.setattr(codec, "_fast_loads", refuse)
    assert codec.loads(b"[1, 2]") == [1, 2]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("text", ['{"a": "\u00e9\u20ac"}', '"\U0001f600"', "12", "[]", ' {"a": [NaN, "\\ud800"]} '])
def test_the_coding_of_json_is_found(coding, text):
    assert repr(codec.loads(text.encode(coding))) == repr(json.loads(text))


def test_what_is_no_json_raises_value_error():
    with pytest.raises(ValueError):
        codec.loads(b"<html>")


def nested(depth):
    return b'{"a":[' * (depth // 2) + b"[" * (depth % 2) + b"1" + b"]" * (depth % 2) + b"]}" * (depth // 2)


@pytest.mark.parametrize("decode", [codec.loads, lambda content: codec.loads(content.decode())])
def test_json_may_be_nested_200_deep(decode):
    assert decode(nested(200)) == json.loads(nested(200))
    for depth in (201, 400, 900, 100_000):
        with pytest.raises(codec.TooDeep, match="nested more than 200 deep"):
            decode(nested(depth))


@pytest.mark.parametrize(
    "beside",
    [b"[" + b"0.25," * 5000 + b"1]", b"[" + b"[]," * 300 + b"0]", b"[" + b'{"a":{"b":[1]}},' * 300 + b"0]", b'"[[{{"'],
)
@pytest.mark.parametrize("place", [b"[%b,%b]", b'{"deep":[0,%b],"beside":%b}'])
def test_depth_is_found_beside_anything(place, beside):
    fits = 200 - place.count(b"[") - place.count(b"{")
    assert codec.loads(place % (nested(fits), beside))
    with pytest.raises(codec.TooDeep):
        codec.loads(place % (nested(fits + 1), beside))


def depth_of(value):
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if held is None else 1 + max(map(depth_of, held), default=0)


@given(values, st.integers(1, 4))
def test_what_is_too_deep_has_more_levels(value, most):
    content = json.dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_MAX_DEPTH", most)
        assert codec._is_deep(value, content) == (depth_of(value) > most and len(content) > 2 * most)


def test_many_brackets_are_no_depth():
    assert codec.loads(b"[" + b"[[]]," * 1000 + b"0]")[-1] == 0
    assert codec.loads('"' + "{[" * 1000 + '"') == "{[" * 1000


def test_integers_that_python_does_not_read_are_none():
    long = b"9" * 4301
    assert codec.decoded(b'{"a": %s, "b": [-%s, 5, 1e5]}' % (long, long)) == ({"a": None, "b": [None, 5, 1e5]}, False)
    assert codec.decoded(b"[" + b"9" * 4300 + b"]") == ([int("9" * 4300)], True)


def test_the_payload_of_a_small_body_takes_no_more_than_it_has():
    tracemalloc.start()
    try:
        payloads = [encode({"model": "m", "input": str(number)}) for number in range(100)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 200 * len(payloads)
