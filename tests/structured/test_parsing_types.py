"""Values of annotated types out of JSON, by the standard library alone."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from typing import (
    Annotated,
    Any,
    ClassVar,
    Dict,
    Generic,
    List,
    Literal,
    Mapping,
    NewType,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import json_schema
from chatpool._structured.parse import parser_of, reason_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Address:
    zip: str
    city: Optional[str] = None


@dataclasses.dataclass
class Customer:
    name: str
    address: Address
    tags: List[str] = dataclasses.field(default_factory=list)
    scores: Dict[str, float] = dataclasses.field(default_factory=dict)
    colour: Colour = Colour.RED
    kind: Literal["new", "old", 7] = "new"
    note: Union[int, str, None] = None


@dataclasses.dataclass
class Node:
    value: int
    children: List[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Positive:
    number: int

    def __post_init__(self):
        if self.number <= 0:
            raise ValueError("number must be positive")


@dataclasses.dataclass
class Holder:
    positive: Positive
    total: float = dataclasses.field(default=0.0, init=False)


def read(kind, value):
    return parser_of(kind)(json.dumps(value))


def reason(kind, value):
    with pytest.raises(ValueError) as raised:
        read(kind, value)
    return reason_of(raised.value)


def hold(kind):
    """A dataclass with one field of this type."""
    return dataclasses.make_dataclass("Held", [("field", kind)])


def test_a_whole_dataclass():
    value = {
        "name": "Ada",
        "address": {"zip": "1", "city": None},
        "tags": ["a"],
        "scores": {"x": 1, "y": 2.5},
        "colour": "blue",
        "kind": 7,
        "note": "n",
    }
    assert read(Customer, value) == Customer("Ada", Address("1"), ["a"], {"x": 1.0, "y": 2.5}, Colour.BLUE, 7, "n")


def test_defaults_stand_in_for_what_is_missing():
    assert read(Customer, {"name": "Ada", "address": {"zip": "1"}}) == Customer("Ada", Address("1"))


def test_everything_that_is_wrong_is_told_with_its_place():
    value = {"name": 1, "address": {"zip": 12, "zap": 0}, "tags": ["a", 2], "scores": {"x": "y"}, "colour": "green"}
    assert reason(Customer, value).split("; ") == [
        "name: expected str, got 1",
        "address.zap: unknown field",
        "address.zip: expected str, got 12",
        "tags[1]: expected str, got 2",
        'scores.x: expected float, got "y"',
        'colour: expected one of "red", "blue", got "green"',
    ]


def test_what_is_missing_is_told():
    assert reason(Customer, {}) == "name: missing; address: missing"


def test_of_very_many_complaints_ten_are_told():
    said = reason(List[int], ["x"] * 25)
    assert said.count("expected int") == 10
    assert said.endswith("; and 15 more")


def test_the_wrong_kind_of_value_altogether():
    assert reason(Customer, [1]) == "expected an object (Customer), got a list"
    assert reason(Customer, {"name": "a", "address": "b"}) == 'address: expected an object (Address), got "b"'


def test_types_may_hold_themselves():
    assert read(Node, {"value": 1, "children": [{"value": 2}]}) == Node(1, [Node(2)])
    assert reason(Node, {"value": 1, "children": [{"value": 2, "children": [{}]}]}) == (
        "children[0].children[0].value: missing"
    )


def test_a_check_of_the_classs_own_is_a_complaint_with_its_place():
    assert reason(Positive, {"number": -1}) == "number must be positive"
    assert reason(Holder, {"positive": {"number": -1}}) == "positive: number must be positive"


def test_a_field_that_the_class_sets_itself_is_not_asked_for():
    assert read(Holder, {"positive": {"number": 1}}).total == 0.0
    assert reason(Holder, {"positive": {"number": 1}, "total": 2.0}) == "total: unknown field"


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        (int, 3.0, 3),
        (float, 3, 3.0),
        (Any, {"a": [1]}, {"a": [1]}),
        (Optional[int], None, None),
        (Union[float, int], 3, 3),
        (Union[float, int], 3.5, 3.5),
        (Union[str, int], 3, 3),
        (Union[bool, int], True, True),
        (Union[List[int], str], [1], [1]),
        (Union[Address, Positive], {"number": 3}, Positive(3)),
        (List[Any], [1, "a"], [1, "a"]),
        (list, [1], [1]),
        (dict, {"a": 1}, {"a": 1}),
        (List, [1], [1]),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Tuple[int, str], [1, "a"], (1, "a")),
        (Tuple[int, ...], [1, 2], (1, 2)),
        (tuple, [1], (1,)),
        (Level, 2, Level.HIGH),
        (Literal["a", 1, True], True, True),
        (None, None, None),
        (NewType("Number", int), 3, 3),
    ],
)
def test_values_that_are_of_the_type(kind, value, made):
    found = read(hold(kind), {"field": value}).field
    assert found == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (int, True, "expected int, got true"),
        (int, "3", 'expected int, got "3"'),
        (int, 3.5, "expected int, got 3.5"),
        (float, "3", 'expected float, got "3"'),
        (float, 10**400, "expected float, got 1000"),
        (bool, 1, "expected bool, got 1"),
        (str, None, "expected str, got null"),
        (str, {"a": 1}, "expected str, got an object"),
        (Optional[int], "x", 'expected int, got "x"'),
        (Optional[Address], {}, "field.zip: missing"),
        (Union[int, str], [], "expected int or str, got a list"),
        (Union[int, Address, None], [], "expected int or an object (Address) or null, got a list"),
        (List[int], "ab", 'expected a list, got "ab"'),
        (Tuple[int, str], [1], "expected a list of 2 items, got 1 items"),
        (Tuple[int, str], {}, "expected a list of 2 items, got an object"),
        (Dict[str, int], [1], "expected an object, got a list"),
        (Literal["a", 1], "b", 'expected one of "a", 1, got "b"'),
        (Literal[1], True, "expected one of 1, got true"),
        (Level, "1", 'expected one of 1, 2, got "1"'),
        (str, 10**100, "expected str, got 1"),
    ],
)
def test_values_that_are_not(kind, value, said):
    found = reason(hold(kind), {"field": value})
    assert said in found
    assert found.startswith("field")
    assert len(found) < 120


@pytest.mark.parametrize("kind", [complex, Dict[int, str], List[set], Optional[bytes], object, "no.such.thing"])
def test_a_type_that_no_json_makes_is_refused_at_once(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)  # which makes some of them of JSON
    with pytest.raises(TypeError, match=r"Held\.field|annotations of Held cannot be evaluated"):
        parser_of(hold(kind))


@dataclasses.dataclass
class Scaled:
    number: int
    factor: dataclasses.InitVar[int]
    offset: dataclasses.InitVar[Optional[int]] = None
    unit: ClassVar[str] = "m"

    def __post_init__(self, factor, offset):
        self.number = self.number * factor + (offset or 0)


def test_what_only_the_class_gets_is_asked_for_like_its_fields():
    assert read(Scaled, {"number": 2, "factor": 3}).number == 6
    assert read(Scaled, {"number": 2, "factor": 3, "offset": 4}).number == 10
    assert reason(Scaled, {"number": 2, "offset": "x"}) == 'factor: missing; offset: expected int, got "x"'
    assert reason(Scaled, {"number": 2, "factor": 3, "unit": "km"}) == "unit: unknown field"
    assert list(json_schema(Scaled)["json_schema"]["schema"]["properties"]) == ["number", "factor", "offset"]


T = TypeVar("T")
Number = TypeVar("Number", bound=int)


@dataclasses.dataclass
class Boxed(Generic[T]):
    content: T
    more: List[T] = dataclasses.field(default_factory=list)
    last: Optional[T] = None
    rows: list[dict[str, T]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Rows(Boxed[List[Number]]):
    named: Dict[str, Number] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Ages(Boxed[int]):
    pass


def test_a_class_that_comes_from_a_generic_one_has_its_types(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert read(Ages, {"content": 1, "more": [2], "last": 3}) == Ages(1, [2], 3)
    assert reason(Ages, {"content": "1", "more": ["2"], "last": "3", "rows": [{"a": "4"}]}) == (
        'content: expected int, got "1"; more[0]: expected int, got "2"; last: expected int, got "3"; '
        'rows[0].a: expected int, got "4"'
    )
    assert read(Rows, {"content": [1], "named": {"a": 2}}) == Rows([1], named={"a": 2})
    assert reason(Rows, {"content": [1, "x"], "named": {"a": "x"}}) == (
        'content[1]: expected int, got "x"; named.a: expected int, got "x"'
    )
    fields = json_schema(Ages, strict=False)["json_schema"]["schema"]["properties"]
    assert fields["last"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}


def test_a_type_that_is_left_open_may_be_any(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert read(Boxed, {"content": "x", "more": [1, "y"], "last": {"z": 2}}) == Boxed("x", [1, "y"], {"z": 2})
    with pytest.raises(TypeError, match=r"Boxed\.content: a strict schema cannot hold a value of any type"):
        json_schema(Boxed)


def test_types_that_are_no_classes_are_read_as_well():
    assert read(List[Annotated[int, "a number"]], [1]) == [1]
    with pytest.raises(TypeError, match="cannot be made of JSON"):
        parser_of(List["Customer"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_whatever_comes_makes_a_value_or_a_complaint(value):
    said = ""
    try:
        made = read(Customer, value)
    except ValueError as error:
        made, said = None, reason_of(error)
    assert isinstance(made, Customer) or said


NODES = st.recursive(
    st.builds(Node, st.integers()), lambda inner: st.builds(Node, st.integers(), st.lists(inner)), max_leaves=10
)
CUSTOMERS = st.builds(
    Customer,
    st.text(),
    st.builds(Address, st.text(), st.none() | st.text()),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    st.just(Colour.RED),
    st.sampled_from(["new", "old", 7]),
    st.none() | st.integers() | st.text(),
)


@given(NODES | CUSTOMERS)
def test_a_dataclass_comes_back_from_its_own_json(value):
    written = json.dumps(dataclasses.asdict(value), default=lambda member: member.value)
    assert parser_of(type(value))(written) == value
