"""The schemas of ``json_schema`` keep the rules of strict mode, and ``parse=`` takes what they allow."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import sys
import typing
import uuid
from typing import (
    Annotated,
    Any,
    Callable,
    Dict,
    FrozenSet,
    Generic,
    List,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Set,
    Tuple,
    TypeVar,
    Union,
)

import jsonschema
import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter
from typing_extensions import NotRequired, TypedDict

import chatpool
from chatpool._structured.parse import parser_of, reason_of
from chatpool.testing import Answer

from .strict_rules import breaches


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    TEXT = "a"
    NUMBER = 2
    NOTHING = None


class Star(BaseModel):
    """A star."""

    mass: float = Field(gt=0, lt=float("inf"))


class Galaxy(BaseModel):
    largest: Star = Field(description="the largest star")
    others: List[Star] = Field(description="the others", min_length=1)
    centre: Optional[Star] = Field(default=None, description="perhaps")
    kind: Literal["spiral"] = "spiral"
    typical: Star = Star(mass=1)


class Node(BaseModel):
    name: str
    children: List[Node] = []
    best: Optional[Node] = Field(default=None, description="the best")


class Cat(BaseModel):
    kind: Literal["cat"]
    meows: int = Field(ge=0)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(min_length=2, max_length=5, examples=["Rex"], description="what it hears to")


Pet = Annotated[Union[Cat, Dog], Field(discriminator="kind")]


class Home(BaseModel):
    pet: Pet
    others: List[Pet]


class Exact(BaseModel):
    model_config = ConfigDict(strict=True)

    when: datetime.datetime
    colour: Colour
    key: uuid.UUID
    pair: Tuple[int, str]
    numbers: Set[int]


class City(TypedDict):
    name: str
    people: NotRequired[Optional[int]]


class Tree(TypedDict):
    value: int
    branches: List[Tree]


class Point(NamedTuple):
    x: float
    label: str = "none"


@dataclasses.dataclass
class Visit:
    when: datetime.date
    star: Star
    point: Point
    city: City
    where: Tuple[float, float]
    mixed: Tuple[int, str]
    kind: Literal["new", 7]
    colour: Colour
    sort: Mixed
    rating: Annotated[int, Field(ge=1, le=5)]
    before: Optional[Visit] = None
    pets: List[Pet] = dataclasses.field(default_factory=list)
    note: Union[int, List[str], None] = None


@pydantic.dataclasses.dataclass
class Checked:
    number: int = Field(gt=3)
    more: List[Checked] = Field(default_factory=list)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    number: int


class Empty(BaseModel):
    pass


class Names(RootModel[List[str]]):
    pass


class OnlyCats(RootModel[Cat]):
    pass


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Everything(BaseModel):
    alias: int = Field(alias="anAlias")
    url: pydantic.HttpUrl
    looking: Annotated[str, pydantic.WithJsonSchema({"type": "string", "pattern": "^(?!x)"})]
    pattern: Annotated[str, Field(pattern="^a+$")]
    path: pathlib.Path
    data: bytes
    span: datetime.timedelta
    price: decimal.Decimal
    secret: pydantic.SecretStr
    names: FrozenSet[str]
    nothing: None
    empty: Tuple[()]
    point: Point
    nullable: Annotated[Any, pydantic.WithJsonSchema({"type": ["array", "null"], "items": {"type": "string"}})]
    few: Annotated[Any, pydantic.WithJsonSchema({"type": ["string", "null"], "enum": ["a", None], "description": "b"})]


Nested = typing_extensions.TypeAliasType("Nested", Union[int, List["Nested"]])
Number = NewType("Number", int)

TYPES = [
    *(Galaxy, Node, Home, Exact, City, Tree, Point, Visit, Checked, Open, Empty, Names, OnlyCats, Everything),
    *(Pet, List[Pet], Union[Cat, Dog], Optional[Galaxy], List[Galaxy], List[Visit], Optional[Visit], List[City]),
    *(List[Point], Box[int], Box[List[Node]], Nested, Number, TypeAdapter(Pet), TypeAdapter(List[int])),
    *(Annotated[Galaxy, Field(description="a galaxy")], Annotated[List[int], Field(min_length=3)]),
    *(Annotated[Visit, "a visit"], Tuple[int, str], Tuple[int, ...], Tuple[()], Set[int], Union[int, str], int, str),
    *(float, bool, Colour, Mixed, Literal["a", "b"], Optional[Literal["a", 1]], datetime.date, uuid.UUID),
    decimal.Decimal,
]


def named(value):
    return str(value).partition(" at 0x")[0]


def schema_of(kind, **keywords):
    return chatpool.json_schema(kind, **keywords)["json_schema"]["schema"]


@pytest.mark.parametrize("kind", TYPES, ids=named)
def test_a_strict_schema_keeps_the_rules(kind):
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert breaches(schema) == []


@pytest.mark.parametrize("kind", TYPES, ids=named)
def test_a_schema_that_is_not_strict_is_one_of_an_object_too(kind):
    schema = schema_of(kind, strict=False)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"


@pytest.mark.parametrize("kind", [each for each in TYPES if each is not bool], ids=named)
def test_what_has_a_schema_can_be_parsed(kind):
    assert callable(parser_of(kind))


def test_what_strict_mode_has_no_words_for_goes_into_the_description():
    fields = schema_of(Everything)["properties"]
    assert fields["url"]["description"] == "format: uri, minLength: 1, maxLength: 2083"
    assert fields["looking"]["description"] == "pattern: ^(?!x)"
    assert fields["pattern"]["pattern"] == "^a+$"
    assert fields["names"]["description"] == "uniqueItems: true"
    parts = [{"type": "string", "enum": ["a"]}, {"type": "null", "enum": [None]}]
    assert fields["few"] == {"title": "Few", "description": "b", "anyOf": parts}
    dog = schema_of(Home)["$defs"]["Dog"]["properties"]["name"]
    assert dog["description"] == 'what it hears to (minLength: 2, maxLength: 5, examples: ["Rex"])'


def test_what_is_said_beside_a_reference_stays():
    assert schema_of(Galaxy)["properties"]["largest"] == {
        "description": "the largest star",
        "anyOf": [{"$ref": "#/$defs/Star"}],
    }
    assert schema_of(Galaxy)["properties"]["typical"] == {"$ref": "#/$defs/Star"}


def test_a_fixed_tuple_is_a_list_of_its_types_and_its_length():
    fields = schema_of(Visit)["properties"]
    assert fields["where"] == {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}}
    assert fields["mixed"] == {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "description": "in this order: integer, string",
        "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    }


def test_a_named_tuple_is_an_object_of_its_fields_in_models_too():
    for kind in (Point, Everything):
        schema = schema_of(kind)
        point = schema if kind is Point else schema["$defs"]["Point"]
        assert list(point["properties"]) == ["x", "label"]


def test_what_is_not_used_is_not_among_the_definitions():
    assert set(schema_of(Home)["$defs"]) == {"Cat", "Dog"}
    assert set(schema_of(OnlyCats)) == {"title", "type", "properties", "required", "additionalProperties"}


def test_definitions_of_one_name_are_kept_apart():
    another = pydantic.create_model("Outer", star=(pydantic.create_model("Star", size=(int, ...)), ...))
    both = dataclasses.make_dataclass("Both", [("a", another), ("b", Galaxy), ("c", Galaxy)])
    schema = schema_of(both)
    assert breaches(schema) == []
    star = {"mass": 1.0}
    galaxy = {"largest": star, "others": [star], "centre": None, "kind": "spiral", "typical": star}
    jsonschema.validate({"a": {"star": {"size": 1}}, "b": galaxy, "c": galaxy}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": {"star": star}, "b": galaxy, "c": galaxy}, schema)


# -- what cannot be had ------------------------------------------------------------------------------------------


class Anything(BaseModel):
    some: List[Any]


class Counts(BaseModel):
    inner: Optional[Dict[str, int]]


class Formless(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    action: Callable[[int], int]


class Around(BaseModel):
    inner: Optional[Formless]


class Planet(enum.Enum):
    EARTH = (1.0, 2.0)


class Unknown:
    pass


def held(kind):
    return dataclasses.make_dataclass("Held", [("field", kind)])


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (Anything, r"Anything\.some\[\]: .*\(Any\).*strict=False"),
        (Counts, r"Counts\.inner: .*keys of its own choice.*strict=False"),
        (Formless, r"Formless\.action: its type has no JSON form"),
        (Around, r"Formless\.action: its type has no JSON form"),
        (held(Any), r"Held\.field: .*\(Any\)"),
        (held(List[Dict[str, int]]), r"Held\.field\[\]: .*keys of its own choice"),
        (held(list), r"Held\.field\[\]: .*\(Any\)"),
        (held(Union[str, object]), r"Held\.field: .*\(Any\)"),
        (held(Callable[[], int]), r"Held\.field\) cannot be made of JSON"),
        (held(Planet), r"Planet \(Held\.field\) cannot be made of JSON"),
        (held(List[Unknown]), r"Unknown \(Held\.field\) cannot be made of JSON"),
        (TypedDict("Loose", {"some": Any}), r"Loose\.some: .*\(Any\)"),
        (Dict[str, int], r"^Dict\[str, int\]: .*keys of its own choice"),
        (List[Any], r"^List\[Any\]\[\]: .*\(Any\)"),
        (Any, r"^Any: .*\(Any\)"),
        (Unknown, "cannot be made of JSON"),
        (List["NoSuchName"], "cannot be made of JSON"),  # noqa: F821
    ],
)
def test_a_type_that_cannot_be_strict_is_refused_with_its_place(kind, place):
    with pytest.raises(TypeError, match=place):
        chatpool.json_schema(kind)


def test_a_type_without_a_form_is_refused_where_it_need_not_be_strict_too():
    assert schema_of(Counts, strict=False)
    with pytest.raises(TypeError, match=r"Formless\.action"):
        chatpool.json_schema(Around, strict=False)


def test_without_pydantic_the_standard_types_are_all_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    plain = dataclasses.make_dataclass("Plain", [("city", City), ("point", Point), ("kind", Literal["a", 1])])
    assert breaches(schema_of(List[plain])) == []
    made = parser_of(List[plain])('{"answer": [{"city": {"name": "Rome"}, "point": [1], "kind": "a"}]}')
    assert made == [plain({"name": "Rome"}, Point(1.0), "a")]
    with pytest.raises(TypeError, match=r"date \(Held\.field\) cannot be made of JSON.*pydantic"):
        parser_of(held(datetime.date))


# -- and back ----------------------------------------------------------------------------------------------------

CAT = Cat(kind="cat", meows=1)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (List[Cat], '[{"kind": "cat", "meows": 1}]', [CAT]),
        (List[City], '[{"name": "Rome"}]', [{"name": "Rome"}]),
        (List[Point], '[{"x": 1, "label": "a"}]', [Point(1.0, "a")]),
        (Optional[Cat], "null", None),
        (Optional[Cat], '{"kind": "cat", "meows": 1}', CAT),
        (Pet, '{"kind": "cat", "meows": 1}', CAT),
        (Union[Cat, Dog], '{"kind": "cat", "meows": 1}', CAT),
        (TypeAdapter(List[int]), "[1]", [1]),
        (TypeAdapter(Pet), '{"kind": "cat", "meows": 1}', CAT),
        (Names, '["a"]', Names(["a"])),
        (Nested, "[1, [2]]", [1, [2]]),
        (Number, "7", 7),
        (Tuple[int, str], '[1, "a"]', (1, "a")),
        (Set[int], "[1, 2]", {1, 2}),
        (Colour, '"red"', Colour.RED),
        (Literal["a", "b"], '"a"', "a"),
        (Annotated[int, Field(ge=1)], "3", 3),
        (datetime.date, '"2020-01-02"', datetime.date(2020, 1, 2)),
        (int, "7", 7),
    ],
    ids=named,
)
def test_a_value_that_is_no_object_is_taken_alone_and_out_of_its_wrapping(kind, text, value):
    for around in ("%s", '{"answer": %s}', '```json{"answer": %s}```', '<think>x</think>{"answer":%s}'):
        assert parser_of(kind)(around % text) == value


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Colour, "red", Colour.RED),
        (Literal["yes", "no"], " yes\n", "yes"),
        (Literal["1", "2"], "1", "1"),
        (datetime.date, "2020-01-02", datetime.date(2020, 1, 2)),
        (decimal.Decimal, " 1.5", decimal.Decimal("1.5")),
        (decimal.Decimal, '{"answer": "1.5"}', decimal.Decimal("1.5")),
        (str, '"x"', '"x"'),
        (str, '{"answer": "x"}', "x"),
    ],
)
def test_one_word_needs_no_quotes(kind, text, value):
    assert parser_of(kind)(text) == value


def why(kind, text):
    with pytest.raises(ValueError) as raised:
        parser_of(kind)(text)
    return reason_of(raised.value)


def test_complaints_name_the_place_inside_the_wrapping():
    assert why(List[Cat], '{"answer": [{"kind": "cat"}]}') == "answer[0].meows: Field required"
    assert why(List[City], '{"answer": [{}]}') == "answer[0].name: missing"
    assert why(Literal["yes", "no"], "It is.") == 'expected one of "yes", "no", got "It is."'
    assert why(decimal.Decimal, "many") == 'expected a number, got "many"'


@dataclasses.dataclass
class Reply:
    answer: str


@dataclasses.dataclass
class Refusal:
    why: str


def test_a_field_of_the_types_own_that_is_called_like_the_wrapping_is_no_wrapping():
    assert parser_of(Reply)('{"answer": "a"}') == Reply("a")
    assert parser_of(Union[Reply, Refusal])('{"answer": "a"}') == Reply("a")
    assert parser_of(Union[Reply, Refusal])('{"answer": {"answer": "a"}}') == Reply("a")
    assert parser_of(Union[Reply, Refusal])('{"answer": {"why": "a"}}') == Refusal("a")
    assert parser_of(Dict[str, int])('{"answer": 1}') == {"answer": 1}
    assert parser_of(Any)('{"answer": 1}') in (1, {"answer": 1})


def test_a_union_of_classes_tells_what_each_of_them_lacks():
    said = why(Union[Reply, Refusal], '{"answer": {"text": "a"}}')
    assert "an object (Reply): answer.text: unknown field, answer.answer: missing" in said
    assert "an object (Refusal): answer.text: unknown field, answer.why: missing" in said


EXACT = {
    "when": "2020-01-02T03:04:05",
    "colour": "red",
    "key": "12345678-1234-5678-1234-567812345678",
    "pair": [1, "a"],
    "numbers": [1, 2],
}


@pytest.mark.parametrize("kind", [Exact, List[Exact], Optional[Exact], TypeAdapter(Exact), held(Exact)], ids=named)
def test_a_strict_model_gets_its_values_as_json_wherever_it_stands(kind):
    value = [EXACT] if kind == List[Exact] else {"field": EXACT} if dataclasses.is_dataclass(kind) else EXACT
    made = parser_of(kind)(json.dumps(value))
    found = made[0] if isinstance(made, list) else getattr(made, "field", made)
    assert found.when == datetime.datetime(2020, 1, 2, 3, 4, 5)
    assert found.pair == (1, "a")


def test_constraints_in_a_dataclass_are_held_to():
    assert why(held(Annotated[int, Field(le=5)]), '{"field": 6}') == "field: Input should be less than or equal to 5"


def test_pydantics_fields_in_a_dataclass_are_held_to_and_its_values_as_defaults_change_nothing():
    @dataclasses.dataclass
    class Rated:
        rating: int = Field(default=3, le=5)

    @dataclasses.dataclass
    class Secret:
        number: int
        secret: pydantic.SecretStr = pydantic.SecretStr("x")

    assert parser_of(Rated)("{}").rating == 3
    assert why(Rated, '{"rating": 6}') == "rating: Input should be less than or equal to 5"
    assert why(Secret, '{"number": "3", "more": 1}') == 'more: unknown field; number: expected int, got "3"'


def test_a_model_that_is_not_fully_defined_is_refused_at_once():
    class Later(BaseModel):
        field: NoSuchName  # noqa: F821

    with pytest.raises(TypeError, match="not fully defined"):
        parser_of(Later)


def test_an_enum_may_know_more_names_for_its_members():
    class Size(enum.Enum):
        SMALL = "small"

        @classmethod
        def _missing_(cls, value):
            return cls.SMALL if str(value).lower() == "small" else None

    assert parser_of(Size)("Small") is Size.SMALL
    assert parser_of(List[Size])('["SMALL"]') == [Size.SMALL]
    assert why(Size, "large") == 'expected one of "small", got "large"'


def test_a_model_and_a_typed_dict_that_pydantic_does_not_take_together_are_taken_one_by_one():
    class Old(typing.TypedDict):  # pydantic wants that of typing_extensions before Python 3.12
        name: str

    for value in ({"kind": "cat", "meows": 1}, {"name": "Rome"}):
        assert parser_of(Union[Cat, Old])(json.dumps(value)) in (CAT, value)
    assert breaches(schema_of(Union[Cat, Old])) == []


def test_through_the_pool_a_list_is_asked_for_and_taken(always):
    server, pool = always(Answer('{"answer": [{"name": "Rome", "people": null}]}'))
    reply = pool.chat("x", parse=List[City], response_format=chatpool.json_schema(List[City], name="cities"))
    assert reply.parsed == [{"name": "Rome", "people": None}]
    assert server.requests[0].body["response_format"]["json_schema"]["name"] == "cities"
    assert len(server.requests) == 1


# -- types of any shape ------------------------------------------------------------------------------------------

NULL = type(None)
PLAIN = st.sampled_from([int, float, str, bool, NULL, Colour, Literal["a", 1], datetime.date, uuid.UUID, Star, Point])
NAMES = st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1, max_size=3)
counter = iter(range(10**9))


def record(names, kinds, how):
    name, fields = f"Made{next(counter)}", list(zip(names, kinds))
    if how == "dataclass":
        return dataclasses.make_dataclass(name, fields)
    if how == "TypedDict":
        return TypedDict(name, dict(fields))
    if how == "NamedTuple":
        return NamedTuple(name, fields)
    return pydantic.create_model(name, **{each: (kind, ...) for each, kind in fields})


def larger(inner):
    return st.one_of(
        inner.map(lambda kind: List[kind]),
        inner.map(lambda kind: Optional[kind]),
        inner.map(lambda kind: Tuple[kind, kind]),
        st.tuples(inner, inner).map(lambda kinds: Union[kinds]),
        st.builds(
            record,
            NAMES,
            st.lists(inner, min_size=3, max_size=3),
            st.sampled_from(["dataclass", "TypedDict", "NamedTuple", "model"]),
        ),
    )


def example(schema, definitions, depth=0):
    """A value that the schema allows."""
    if "$ref" in schema:
        return example(definitions[schema["$ref"].rpartition("/")[2]], definitions, depth + 1)
    if "anyOf" in schema:
        return example(schema["anyOf"][-1 if depth > 5 else 0], definitions, depth + 1)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if schema["type"] == "object":
        return {name: example(each, definitions, depth + 1) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [example(schema["items"], definitions, depth + 1)] * schema.get("minItems", 1)
    texts = {"date": "2020-01-02", "uuid": "12345678-1234-5678-1234-567812345678"}
    values = {
        "string": texts.get(schema.get("format"), "a"),
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "null": None,
    }
    return values[schema["type"]]


@given(st.recursive(PLAIN, larger, max_leaves=5))
def test_whatever_the_type_its_schema_keeps_the_rules_and_parse_takes_what_it_allows(kind):
    schema = schema_of(kind)
    assert breaches(schema) == []
    value = example(schema, schema.get("$defs", {}))
    jsonschema.validate(value, schema)
    if kind not in (bool, NULL):  # parse= has no use for them
        parser_of(kind)(json.dumps(value))
