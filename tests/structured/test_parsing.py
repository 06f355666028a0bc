"""``parse=``: what it takes, and what it makes of an answer's text."""

from __future__ import annotations

import abc
import dataclasses
import decimal
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

import pydantic
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import chatpool
from chatpool import ConfigurationError
from chatpool._structured.json_text import json_in
from chatpool._structured.parse import parser_of, reason_of
from chatpool.testing import Answer


@dataclasses.dataclass
class City:
    name: str
    people: int = 0


class Person(pydantic.BaseModel):
    name: str
    age: int
    friends: List[Person] = []


def reason(parse, text):
    """Why a text makes no value."""
    with pytest.raises(Exception) as raised:
        parser_of(parse)(text)
    return reason_of(raised.value)


# -- functions -----------------------------------------------------------------------------------------------


def test_a_function_gets_the_text_as_it_is():
    assert parser_of(lambda text: text)("```json\n{}\n``` ") == "```json\n{}\n``` "


def test_a_type_that_takes_a_text_is_a_function_of_it():
    assert parser_of(int)(" 7\n") == 7
    assert parser_of(str)("<think>so</think>7") == "<think>so</think>7"


@pytest.mark.parametrize("text", ["<think>6 or so</think>\n\n7", "```\n7\n```", "Six?\n</think>7", "[THINK]6[/THINK]7"])
@pytest.mark.parametrize("kind", [int, float, decimal.Decimal])
def test_a_number_is_taken_out_of_what_is_around_it_like_json(text, kind):
    assert parser_of(kind)(text) == kind(7)
    with pytest.raises(ValueError):
        parser_of(kind)(text.replace("7", "seven"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too long"), "too long"),
        (ValueError(), "ValueError"),
        (KeyError("name"), "KeyError: 'name'"),
        (RuntimeError(), "RuntimeError"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_the_reason_is_what_a_function_says(error, said):
    def parse(text):
        raise error

    assert reason(parse, "x") == said


def test_a_long_reason_is_cut():
    def parse(text):
        raise ValueError("x" * 10_000)

    assert len(reason(parse, "")) == 1500


def test_an_errors_method_of_another_library_is_no_obstacle():
    class Odd(Exception):
        def errors(self):
            return [1, 2]

    def parse(text):
        raise Odd("odd")

    assert reason(parse, "") == "Odd: odd"


# -- JSON in a text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Rome"}',
        '\n {"name": "Rome"} \n',
        '```json\n{"name": "Rome"}\n```',
        '```\n{"name": "Rome"}\n```\n',
        '~~~JSON\n{"name": "Rome"}\n~~~',
        'Here it is:\n\n```json\n{"name": "Rome"}\n```\n\nAnything else?',
        '````json\n{"name": "Rome"}\n````',
        '  ```json\n  {"name":\n  "Rome"}\n  ```',
        '```json\r\n{"name": "Rome"}\r\n```\r\n',
        '```json\n{"name": "Rome"}\n````',
        '```json{"name": "Rome"}```',
        '```json {"name": "Rome"} ```',
        '```{"name": "Rome"}```',
        '~~~{"name": "Rome"}~~~',
        '```json\n{"name": "Rome"}```',
        '```json\r\n{"name": "Rome"}```\r\n',
        '```json {\n"name": "Rome"}\n```',
        'Here it is: ```json{"name": "Rome"}``` Anything else?',
        '{"name": "Rome"}\n```',
        '{"name": "Rome"}```',
        '\ufeff{"name": "Rome"}',
        '<think>Paris? No.</think>{"name": "Rome"}',
        '<think>\n\n</think>\n\n```json\n{"name": "Rome"}\n```',
        '<think>```json\n{"name": "Paris"}\n```</think>\n```json{"name": "Rome"}```',
        '<think>a</think>\n<think>b</think>\n{"name": "Rome"}',
        '<Thinking>{"name": "Paris"}</Thinking>{"name": "Rome"}',
        '[THINK]Paris?[/THINK]{"name": "Rome"}',
        'Paris? No, it is {"name": "Rome"}.\n</think>\n\n{"name": "Rome"}',
    ],
)
def test_json_is_found_alone_or_in_its_only_fence(text):
    assert parser_of(City)(text) == City("Rome")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Rome",
        'The answer: {"name": "Rome"}',
        '```json\n{"name": "Rome"}',
        '```json\n{"name": "Rome"}\n```\nor\n```json\n{"name": "Paris"}\n```',
        '```json\n{"name": "Rome"}\n```\nor\n```json\n{"name": "Paris"}',
        '````json\n{"name": "Rome"}\n```',
        '{"name": "Rome", "people": NaN}',
        '{"name": "Rome"} {"name": "Paris"}',
        '```json{"name": "Rome"}``` or ```json{"name": "Paris"}```',
        '````json{"name": "Rome"}```',
        '{"name": "Rome"}``',
        '<think>{"name": "Rome"}',
        '<think>{"name": "Rome"}</thinking>',
    ],
)
def test_anything_else_is_not_json(text):
    assert reason(City, text).startswith("not JSON: ")


@pytest.mark.parametrize(
    "text",
    [
        "```a b\n```a\n" * 100_000,
        "```[" * 100_000,
        '```{"a":"' * 100_000,
        "<think>" * 100_000,
        "<think></think>" * 100_000,
        "x</think>" * 100_000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.usefixtures("no_collection")
def test_very_many_fences_and_thoughts_take_no_longer_than_their_length(text):
    assert reason(City, text).startswith("not JSON: ")


@pytest.mark.usefixtures("no_collection")
def test_nesting_without_an_end_is_said_to_be_too_deep():
    assert reason(City, "[" * 100_000) == "not JSON that can be read: nested too deeply"


@pytest.mark.parametrize("name", ["```json\n{}\n```", "```{}```", "<think>x</think>", "</think>", "~~~"])
@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "```json{}```", "<think>x</think>{}"])
def test_a_fence_inside_a_json_text_is_part_of_it(name, around):
    text = around.replace("{}", json.dumps({"name": name}))
    assert parser_of(City)(text) == City(name)


ODD = st.text(st.sampled_from('`~{}[]<>/ \n\\"a'), max_size=12) | st.sampled_from(
    ["```", "</think>", "<think>", "```json\n"]
)
VALUES = st.recursive(
    ODD | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=6,
)
AROUND = [
    "%s",
    "```json\n%s\n```",
    "```json%s```",
    "``` %s ```",
    "```\n%s```",
    "%s\n```",
    "Yes:\n```json %s\n```\nOK?",
    "~~~%s~~~",
]


@given(
    VALUES,
    st.sampled_from(AROUND),
    st.sampled_from(["", "<think>%s</think>\n", "<think>```json\n{}\n```</think>", "Hm.\n</think>\n"]),
    st.sampled_from([None, 2]),
)
def test_whatever_the_value_it_comes_out_of_what_is_around_it(value, around, thoughts, indent):
    text = json.dumps(value, indent=indent)
    assume(not (text[0].isalnum() and "json%s" in around))  # as in jsontrue, json7
    assert json_in(thoughts + around.replace("%s", text)) == value


# -- pydantic ------------------------------------------------------------------------------------------------


def test_a_pydantic_model_validates_the_json():
    ada = parser_of(Person)('```json\n{"name": "Ada", "age": 36, "friends": [{"name": "Bob", "age": 3}]}\n```')
    assert ada == Person(name="Ada", age=36, friends=[Person(name="Bob", age=3)])


def test_its_complaints_come_one_per_place_without_links():
    said = reason(Person, '{"age": "x", "friends": [{"name": "Bob"}]}')
    assert said.startswith("name: Field required; age: Input should be a valid integer")
    assert said.endswith("; friends[0].age: Field required")
    assert "http" not in said


def test_text_that_is_no_json_is_said_to_be_none():
    assert reason(Person, "hello").startswith("Invalid JSON")


def test_a_type_adapter_will_do_as_well():
    assert parser_of(pydantic.TypeAdapter(List[Person]))('[{"name": "Ada", "age": 1}]') == [Person(name="Ada", age=1)]


def test_a_list_of_models_is_a_type_too():
    assert parser_of(List[Person])('[{"name": "Ada", "age": 1}]') == [Person(name="Ada", age=1)]
    assert reason(List[Person], '[{"name": "Ada"}]') == "[0].age: Field required"


def test_a_model_of_pydantics_first_version_is_known_by_its_methods():
    class Old:
        __fields__ = {"name": None}

        @classmethod
        def parse_raw(cls, text):
            return json.loads(text)["name"]

    assert parser_of(Old)('```json\n{"name": "Ada"}\n```') == "Ada"


def test_pydantic_and_jsonschema_are_not_imported_for_dataclasses():
    program = """
import dataclasses, sys
from chatpool._structured.parse import parser_of

@dataclasses.dataclass
class City:
    name: str

assert parser_of(City)('{"name": "Rome"}') == City("Rome")
assert not {"pydantic", "jsonschema"} & set(sys.modules)
"""
    root = Path(chatpool.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=60)


# -- what cannot be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parse", [7, "json", City("Rome"), Person(name="Ada", age=1), [City], True])
def test_what_cannot_be_used_is_a_type_error_at_once(serve, parse):
    server, pool = serve()
    with pytest.raises(TypeError, match="parse must be a function of the text, a dataclass, a pydantic model or"):
        pool.chat("x", parse=parse)
    with pytest.raises(TypeError, match="parse must be"):
        pool.map(["x"], parse=parse)
    assert not server.requests


def test_an_object_in_place_of_its_class_is_said_to_be_one():
    with pytest.raises(TypeError, match="got an object of City: pass the class itself"):
        parser_of(City("Rome"))


class Pair:
    def __init__(self, first, second):
        """Of two texts."""


class Abstract(abc.ABC):
    @abc.abstractmethod
    def method(self):
        """Nothing."""


class Foreign:
    __attrs_attrs__ = ()


async def coroutine(text):
    return text


class Asks:
    def __init__(self, text=""):
        self.text = text

    async def __call__(self, text):
        """Nothing of use here."""


@pytest.mark.parametrize(
    ("parse", "said"),
    [
        (lambda: 1, "is called with one argument, the text"),
        (Pair, "missing a required argument: 'second'"),
        (Abstract, "abstract class Abstract"),
        (Foreign, "Foreign is an attrs class"),
        (coroutine, "pass an ordinary function"),
        (Asks(), "pass an ordinary function"),
        (Callable[[str], int], "cannot be made of JSON"),
        (range, "cannot be made of JSON"),
    ],
)
def test_what_would_fail_for_every_answer_is_a_type_error_at_once(serve, parse, said):
    server, pool = serve()
    with pytest.raises(TypeError, match=said):
        pool.map(["x"], parse=parse)
    assert not server.requests


def test_a_decorated_function_is_taken_for_what_it_is():
    def of_two(text, more):
        return text + more

    @functools.wraps(of_two)
    def of_one(text):
        return of_two(text, "!")

    assert parser_of(of_one)("x") == "x!"
    assert parser_of(functools.partial(int, base=2))("11") == 3
    assert parser_of(Asks)("x").text == "x"


def test_bool_is_refused_as_it_makes_true_of_everything():
    with pytest.raises(TypeError, match="pass a function that looks at it"):
        parser_of(bool)


@pytest.mark.parametrize("keyword", ["parse", "max_reasks", "accept"])
def test_calls_without_an_answer_to_read_do_not_have_the_keywords(serve, keyword):
    _, pool = serve()
    with pytest.raises(TypeError, match=rf"embed\(\) got an unexpected keyword argument '{keyword}'"):
        pool.embed("x", **{keyword: 1})


def test_a_view_of_a_pool_does_not_take_what_batch_runs_put_there(serve):
    _, pool = serve()
    with pytest.raises(TypeError, match="unexpected keyword argument 'answers'"):
        pool.with_options(answers=None)


# -- through the pool ----------------------------------------------------------------------------------------

ROME = Answer('{"name": "Rome", "people": 3}')


def test_a_call_has_the_value_beside_the_text(always):
    _, pool = always(ROME)
    reply = pool.chat("Which city?", parse=City)
    assert reply.parsed == City("Rome", 3)
    assert reply.text == '{"name": "Rome", "people": 3}'
    assert pool.submit("Which city?", parse=City).result().parsed == City("Rome", 3)
    assert pool.responses("Which city?", parse=City).parsed == City("Rome", 3)


def test_every_kind_of_run_has_it(always):
    _, pool = always(ROME)
    assert [reply.parsed for reply in pool.map(["a", "b"], parse=City)] == [City("Rome", 3)] * 2
    assert [outcome.value.parsed for outcome in pool.imap(["a"], parse=City)] == [City("Rome", 3)]
    assert [outcome.value.parsed for outcome in pool.as_completed(["a"], parse=City)] == [City("Rome", 3)]


def test_the_one_shot_form_has_it_too(always):
    server, _ = always(ROME)
    replies = chatpool.map(["a"], model="m", base_url=server.base_url, parse=City)
    assert replies[0].parsed == City("Rome", 3)


def test_without_it_nothing_is_made_of_the_text(always):
    _, pool = always(ROME)
    assert pool.chat("Which city?").parsed is None


def test_nothing_of_it_goes_into_the_request(always):
    server, pool = always(ROME)
    pool.chat("x", parse=City, max_reasks=1, accept=("stop",))
    assert set(server.requests[0].body) == {"messages", "model"}


def test_items_that_share_an_answer_have_values_of_their_own(always):
    server, pool = always(Answer('{"a": 1}'))
    replies = pool.map(["x"] * 3, parse=Dict[str, int], dedupe=True)
    assert len(server.requests) == 1
    assert [reply.parsed for reply in replies] == [{"a": 1}] * 3
    assert len({id(reply.parsed) for reply in replies}) == 3


def test_a_null_is_a_value(always):
    _, pool = always(Answer("null"))
    assert pool.chat("x", parse=Optional[City]).parsed is None


def test_a_function_runs_in_the_callers_context(always):
    import contextvars

    wanted = contextvars.ContextVar("wanted", default="nothing")
    _, pool = always(Answer("x"))
    wanted.set("this")
    assert pool.chat("x", parse=lambda text: wanted.get()).parsed == "this"


def test_a_function_may_call_the_pool(always):
    _, pool = always(Answer("x"), max_workers=1)
    assert pool.chat("x", parse=lambda text: pool.chat("again").text * 2).parsed == "xx"


def test_jsonschema_that_is_not_there_is_said_before_anything_is_sent(serve, monkeypatch):
    server, pool = serve()
    monkeypatch.setitem(sys.modules, "jsonschema.validators", None)
    with pytest.raises(ConfigurationError, match="needs jsonschema"):
        pool.chat("x", parse={"type": "object"})
    assert not server.requests
