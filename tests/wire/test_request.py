"""Items of all kinds become requests."""

from __future__ import annotations

import json
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ChatCompletion, ChatRequest
from chatpool._wire import embedding_request, encode, renamed, to_request

USER = {"role": "user", "content": "ping"}
SYSTEM = {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("item", "path", "body"),
    [
        ("ping", "/chat/completions", {"messages": [USER]}),
        ("", "/chat/completions", {"messages": [{"role": "user", "content": ""}]}),
        ([USER], "/chat/completions", {"messages": [USER]}),
        ((SYSTEM, USER), "/chat/completions", {"messages": [SYSTEM, USER]}),
        ({"messages": [USER], "n": 2}, "/chat/completions", {"messages": [USER], "n": 2}),
        ({"input": "ping"}, "/responses", {"input": "ping"}),
        ({"input": [USER]}, "/responses", {"input": [USER]}),
        ({"prompt": "ping"}, "/completions", {"prompt": "ping"}),
        ({"prompt": ["ping", "pong"]}, "/completions", {"prompt": ["ping", "pong"]}),
        ({"prompt": {"id": "pmpt_1"}}, "/responses", {"prompt": {"id": "pmpt_1"}}),
        ({"prompt": {"id": "pmpt_1"}, "input": "ping"}, "/responses", {"prompt": {"id": "pmpt_1"}, "input": "ping"}),
        (types.MappingProxyType({"input": "ping"}), "/responses", {"input": "ping"}),
        (ChatRequest({"input": "x"}, "/embeddings"), "/embeddings", {"input": "x"}),
        (ChatRequest({}, "/models", "GET"), "/models", {}),
    ],
)
def test_every_kind_of_item_goes_to_its_path(item, path, body):
    request = to_request(item)
    assert (request.path, dict(request.body)) == (path, body)


def test_a_request_keeps_its_method():
    assert to_request(ChatRequest({}, "/models", "GET")).method == "GET"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": None},
        {"role": "tool", "tool_call_id": "1", "content": "4"},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
    ],
)
def test_messages_of_every_role_are_taken(message):
    assert to_request([USER, message]).body["messages"] == [USER, message]


class TestFilling:
    """What the item lacks comes from the pool; what the call says wins."""

    @pytest.mark.parametrize(
        ("item", "keywords", "model"),
        [
            ("ping", {"model": "pool"}, "pool"),
            ("ping", {}, None),
            ({"messages": [USER], "model": "item"}, {"model": "pool"}, "item"),
            ({"messages": [USER], "model": None}, {"model": "pool"}, "pool"),
            ({"messages": [USER], "model": None}, {}, None),
            ({"messages": [USER], "model": "item"}, {"model": "pool", "extra": {"model": "call"}}, "call"),
            ("ping", {"defaults": {"model": "default"}}, "default"),
            ("ping", {"model": "pool", "defaults": {"model": "default"}}, "pool"),
        ],
    )
    def test_the_model_closest_to_the_call_wins(self, item, keywords, model):
        request = to_request(item, **keywords)
        assert request.model == model
        assert ("model" in request.body) == (model is not None)

    def test_call_beats_item_beats_defaults(self):
        defaults = {"a": "default", "b": "default", "c": "default"}
        item = {"messages": [USER], "b": "item", "c": "item"}
        body = to_request(item, defaults=defaults, extra={"c": "call"}).body
        assert (body["a"], body["b"], body["c"]) == ("default", "item", "call")

    @pytest.mark.parametrize("path", ["/moderations", "/models", "/files/1"])
    def test_paths_that_refuse_chat_fields_get_what_the_call_says_and_nothing_else(self, path):
        request = ChatRequest({"input": "x"}, path)
        filled = to_request(request, model="m", system="s", defaults={"temperature": 0}, extra={"user": "u"})
        assert filled.body == {"input": "x", "user": "u"}

    def test_neither_the_item_nor_the_settings_are_changed(self):
        item, defaults, extra = {"messages": [USER]}, {"a": 1}, {"b": 2}
        to_request(item, model="m", system="s", defaults=defaults, extra=extra)
        assert (item, defaults, extra) == ({"messages": [USER]}, {"a": 1}, {"b": 2})

    @pytest.mark.parametrize("wrap", [list, lambda m: {"messages": m}, lambda m: {"input": m}, lambda m: {"prompt": m}])
    def test_a_conversation_that_grows_later_does_not_change_the_request(self, wrap):
        messages = [USER]
        request = to_request(wrap(messages))
        messages.append(SYSTEM)
        assert SYSTEM not in next(iter(request.body.values()))


class TestSystem:
    """One system text for all calls, unless a call brings its own."""

    @pytest.mark.parametrize(
        ("item", "messages"),
        [
            ("ping", [SYSTEM, USER]),
            ([USER], [SYSTEM, USER]),
            ([{"role": "system", "content": "own"}, USER], [{"role": "system", "content": "own"}, USER]),
            ([{"role": "developer", "content": "own"}, USER], [{"role": "developer", "content": "own"}, USER]),
            (ChatRequest({"messages": (USER,)}), [SYSTEM, USER]),
        ],
    )
    def test_it_goes_first_unless_the_messages_start_with_one(self, item, messages):
        assert to_request(item, system="be brief").body["messages"] == messages

    def test_it_goes_before_the_messages_that_the_call_gives(self):
        assert to_request("other", system="be brief", extra={"messages": [USER]}).body["messages"] == [SYSTEM, USER]

    @pytest.mark.parametrize(
        ("own", "sent"), [({}, "be brief"), ({"instructions": None}, "be brief"), ({"instructions": "own"}, "own")]
    )
    def test_for_responses_it_is_the_instructions(self, own, sent):
        assert to_request({"input": "ping", **own}, system="be brief").body["instructions"] == sent

    def test_with_a_bare_prompt_it_has_no_place_and_is_not_dropped_silently(self):
        with pytest.raises(TypeError, match="system has no place"):
            to_request({"prompt": "ping"}, system="be brief")

    def test_it_must_be_text(self):
        with pytest.raises(TypeError, match="system must be a str"):
            to_request("ping", system=["be brief"])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "an item must be a str.*got None"),
        (7, "an item must be a str.*got a value of type int"),
        (b"secret", "an item must be a str.*got a value of type bytes"),
        (iter(["secret"]), "an item must be a str.*list_iterator"),
        ([], "empty list"),
        (["secret", "secret"], "message 0 of a list item is a str.*several prompts"),
        ([USER, 7], "message 1 of a list item is a value of type int"),
        ([{"content": "secret"}], "message 0 of a list item has no 'role'"),
        ([{"role": "user"}], "message 0 of a list item .role 'user'. has no 'content'"),
        ([USER, ChatCompletion(text="secret", message={})], r"message 1 .* is a ChatCompletion: put its \.message"),
        ([[USER]], "message 0 of a list item is a value of type list"),
        ({"messages": "secret"}, "'messages' must be a list of message dicts"),
        ({"messages": []}, "'messages' must hold at least one message"),
        ({"messages": None}, "'messages' must be a list of message dicts, got None"),
        ({"messages": ["secret"]}, "message 0 of 'messages' is a str"),
        ({"input": None}, "'input' must be a str or a list that is not empty, got None"),
        ({"input": []}, "'input' must be .* got an empty list"),
        ({"prompt": 7}, "'prompt' must be a str"),
        ({"question": "secret"}, "got 'question'.*prompt="),
        ({}, "got no keys at all"),
        (ChatRequest("secret"), r"ChatRequest\.body must be a dict"),
        (ChatRequest({}, "chat"), r"ChatRequest\.path must be a path"),
        (ChatRequest({}, "/x", ""), r"ChatRequest\.method must be"),
    ],
)
def test_a_wrong_item_is_told_what_would_be_right_and_is_not_shown(item, message):
    with pytest.raises(TypeError, match=f"(?s){message}") as caught:
        to_request(item)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "keywords"),
    [
        ({"messages": [USER], "stream": True}, {}),
        ("ping", {"extra": {"stream": True}}),
        ("ping", {"defaults": {"stream": True}}),
        (ChatRequest({"stream": True}, "/other"), {}),
    ],
)
def test_asking_for_a_stream_names_the_way_to_get_one(item, keywords):
    with pytest.raises(TypeError, match=r"pool\.stream"):
        to_request(item, **keywords)


def test_a_stream_that_is_switched_off_is_no_stream():
    assert to_request("ping", extra={"stream": False}).body["stream"] is False


class TestEmbeddings:
    """One text, or one list of token numbers."""

    @pytest.mark.parametrize("text", ["a text", "", [1, 2, 3], (4, 5)])
    def test_it_goes_to_its_path_with_model_and_fields(self, text):
        request = embedding_request(text, model="m", defaults={"user": "u"}, extra={"dimensions": 8})
        assert request == ChatRequest({"user": "u", "input": text, "dimensions": 8, "model": "m"}, "/embeddings")

    @pytest.mark.parametrize("text", [None, 7, [], ["secret"], [[1, 2]], b"secret", [True]])
    def test_anything_else_is_refused(self, text):
        with pytest.raises(TypeError, match="a text to embed must be a str") as caught:
            embedding_request(text, model="m")
        assert "secret" not in str(caught.value)


@given(st.text(), st.text(min_size=1), st.dictionaries(st.sampled_from("abc"), st.integers()))
def test_a_text_is_sent_as_it_is_whatever_the_settings(text, model, defaults):
    body = to_request(text, model=model, defaults=defaults).body
    assert body == {**defaults, "messages": [{"role": "user", "content": text}], "model": model}


class TestAnotherModel:
    def test_the_name_is_replaced_and_nothing_else(self):
        request = to_request([USER], model="ours", extra={"n": 2})
        assert json.loads(renamed(encode(request.body), request, "theirs")) == {**request.body, "model": "theirs"}

    def test_it_is_added_where_the_path_takes_one(self):
        request = to_request("ping")
        assert json.loads(renamed(encode(request.body), request, "theirs"))["model"] == "theirs"

    def test_other_paths_get_none(self):
        request = ChatRequest({"input": "x"}, "/moderations")
        assert renamed(b'{"input":"x"}', request, "theirs") == b'{"input":"x"}'
