"""``parse=`` with a JSON schema, and the schemas that are made of classes."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from typing import Any, Dict, List, Literal, Optional, Tuple

import jsonschema
import pydantic
import pytest

import chatpool
from chatpool import ConfigurationError
from chatpool._structured.parse import parser_of, reason_of
from chatpool.testing import Answer

CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "districts": {"type": "array", "items": {"$ref": "#/$defs/district"}}},
    "required": ["name"],
    "$defs": {"district": {"type": "object", "required": ["id"]}},
}


def reason(schema, text):
    with pytest.raises(ValueError) as raised:
        parser_of(schema)(text)
    return reason_of(raised.value)


def test_the_value_is_the_json(always):
    _, pool = always(Answer('```json\n{"name": "Rome"}\n```'))
    assert pool.chat("x", parse=CITY).parsed == {"name": "Rome"}


def test_complaints_have_their_places():
    assert reason(CITY, '{"districts": [{}, {"id": 1}]}') == (
        "'name' is a required property; districts[0]: 'id' is a required property"
    )


def test_a_complaint_that_quotes_a_long_value_is_cut():
    said = reason({"type": "string"}, json.dumps({"a": "x" * 1000}))
    assert len(said) == 200


def test_not_json():
    assert reason(CITY, "Rome").startswith("not JSON: ")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "no such type"}, "no JSON schema: 'no such type' is not valid"),
        ({"properties": 3}, "no JSON schema: 3 is not of type 'object'"),
        ({"const": {1, 2}}, "no JSON schema: Object of type set is not JSON serializable"),
        ({"$ref": "https://example.com/city.json"}, "refers to 'https://example.com/city.json', and no document"),
        ({"anyOf": [{"$ref": "other.json#/a"}]}, "refers to 'other.json#/a'"),
        ({"$ref": "#/$defs/city"}, "refers to '#/\\$defs/city', and nothing is there"),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/7"}]}, "and nothing is there"),
    ],
)
def test_a_schema_that_cannot_work_is_said_before_anything_is_sent(serve, schema, said):
    server, pool = serve()
    with pytest.raises(ConfigurationError, match=said):
        pool.map(["x"], parse=schema)
    assert not server.requests


def test_a_schema_may_refer_to_one_inside_it_by_its_own_name():
    inner = {"$id": "https://example.com/name", "type": "string"}
    schema = {"$ref": "https://example.com/name", "$defs": {"name": inner}}
    assert parser_of(schema)('"Rome"') == "Rome"
    assert reason(schema, "3") == "3 is not of type 'string'"


def test_names_in_references_may_have_any_letters():
    schema = {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "string"}}}
    assert parser_of(schema)('"Rome"') == "Rome"
    assert parser_of({"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}]})('"Rome"') == "Rome"


@pytest.mark.usefixtures("no_collection")
def test_a_value_that_is_nested_too_deeply_for_the_schema_is_a_complaint():
    schema = {"type": "array", "items": {"$ref": "#"}}
    assert reason(schema, "[" * 900 + "]" * 900) == "nested too deeply"


def test_the_draft_is_the_one_that_the_schema_names():
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "maximum": 3}
    assert reason({**old, "exclusiveMaximum": True}, "3")


def test_changes_of_the_dict_come_too_late():
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    parse = parser_of(schema)
    schema["properties"]["name"]["type"] = "number"
    assert parse('{"name": "Rome"}') == {"name": "Rome"}


# -- chatpool.json_schema --------------------------------------------------------------------------------------


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Part:
    name: str
    parts: List[Part] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Machine:
    part: Part
    size: Size
    price: Optional[float] = None
    kind: Literal["new", "old", 7] = "new"
    spots: Tuple[int, ...] = ()


@dataclasses.dataclass
class Loose:
    counts: Dict[str, int]
    anything: Any = None


class Model(pydantic.BaseModel):
    default: int = 3
    names: Optional[List[str]] = None
    inner: Optional[Model] = None


MACHINE = {
    "part": {"name": "a", "parts": [{"name": "b", "parts": []}]},
    "size": "small",
    "price": None,
    "kind": "old",
    "spots": [1],
}


def test_a_dataclass_as_a_response_format():
    form = chatpool.json_schema(Machine)
    assert form["type"] == "json_schema"
    assert (form["json_schema"]["name"], form["json_schema"]["strict"]) == ("Machine", True)
    schema = form["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"]) == ["part", "size", "price", "kind", "spots"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["size"] == {"type": "string", "enum": ["small", "large"]}
    texts, numbers = {"type": "string", "enum": ["new", "old"]}, {"type": "integer", "enum": [7]}
    assert schema["properties"]["kind"] == {"anyOf": [texts, numbers]}
    assert schema["$defs"]["Part"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}


def test_what_its_schema_allows_is_what_the_dataclass_takes():
    schema = chatpool.json_schema(Machine)["json_schema"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(MACHINE, schema)
    assert parser_of(Machine)(json.dumps(MACHINE)) == Machine(Part("a", [Part("b")]), Size.SMALL, None, "old", (1,))
    for name in MACHINE:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**MACHINE, name: {"wrong": 1}}, schema)


def test_a_dataclass_that_holds_itself_stands_among_the_definitions():
    schema = chatpool.json_schema(Part)["json_schema"]["schema"]
    jsonschema.validate({"name": "a", "parts": [{"name": "b", "parts": []}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "a", "parts": [{"name": 1, "parts": []}]}, schema)


def test_a_strict_schema_has_no_dicts_of_any_keys():
    with pytest.raises(TypeError, match=r"Loose\.counts: a strict schema cannot hold .*strict=False"):
        chatpool.json_schema(Loose)
    schema = chatpool.json_schema(Loose, strict=False)["json_schema"]["schema"]
    assert schema["properties"]["counts"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert schema["required"] == ["counts"]


def test_a_pydantic_model_gets_what_strict_needs():
    schema = chatpool.json_schema(Model)["json_schema"]["schema"]
    found = schema["$defs"]["Model"]
    assert found["required"] == ["default", "names", "inner"]
    assert found["additionalProperties"] is False
    assert "default" not in found["properties"]["default"]


def test_a_pydantic_schema_that_is_not_strict_stays_as_it_is_with_an_object_at_its_root():
    own = Model.model_json_schema()["$defs"]["Model"]
    assert chatpool.json_schema(Model, strict=False)["json_schema"]["schema"] == {**own, "$defs": {"Model": own}}


def test_a_pydantic_model_with_a_dict_is_not_strict():
    class Free(pydantic.BaseModel):
        counts: Dict[str, int]

    with pytest.raises(TypeError, match=r"Free\.counts: a strict schema cannot hold"):
        chatpool.json_schema(Free)


def test_a_schema_is_passed_on_as_it_is():
    form = chatpool.json_schema(CITY, name="a city!", strict=False)
    assert form["json_schema"] == {"name": "a_city_", "strict": False, "schema": CITY}
    assert chatpool.json_schema(CITY)["json_schema"]["name"] == "answer"


@pytest.mark.parametrize("kind", [3, "City", Part("a"), Model(), [Part]])
def test_anything_else_is_refused(kind):
    with pytest.raises(TypeError, match="json_schema takes a dataclass, a pydantic model or a JSON schema"):
        chatpool.json_schema(kind)


def test_a_type_without_a_schema_is_refused_with_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(TypeError, match=r"a complex \(Odd\.field\) cannot be made of JSON"):
        chatpool.json_schema(dataclasses.make_dataclass("Odd", [("field", complex)]))


def test_two_dataclasses_of_one_name_are_told_apart():
    other = dataclasses.make_dataclass("Part", [("id", int)])
    both = dataclasses.make_dataclass("Both", [("a", Part), ("b", other)])
    schema = chatpool.json_schema(both)["json_schema"]["schema"]
    jsonschema.validate({"a": {"name": "a", "parts": []}, "b": {"id": 1}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": {"id": 1}, "b": {"id": 1}}, schema)


def test_a_class_in_its_place_is_told_of_it(serve):
    server, pool = serve()
    with pytest.raises(TypeError, match="response_format is the class Part.*pass chatpool.json_schema of it"):
        pool.chat("x", response_format=Part)
    with pytest.raises(TypeError, match="metadata.kind is the class int, which JSON cannot hold"):
        pool.chat("x", metadata={"kind": int})
    assert server.requests == []


def test_a_name_is_a_text():
    with pytest.raises(TypeError, match="name must be a str, got 3"):
        chatpool.json_schema(Part, name=3)


def test_it_goes_as_response_format_with_parse_of_the_same_class(always):
    server, pool = always(Answer(json.dumps(MACHINE)))
    reply = pool.chat("x", parse=Machine, response_format=chatpool.json_schema(Machine))
    assert server.requests[0].body["response_format"] == chatpool.json_schema(Machine)
    assert reply.parsed.size is Size.SMALL
