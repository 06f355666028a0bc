"""``parse=``: a function, a type, a TypeAdapter or a JSON schema, as one function from an answer's text to a value."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import inspect
import json
import re
import typing
from collections.abc import Mapping
from typing import Any, Callable, Iterator, List, Literal, Set
from urllib.parse import unquote

from ..errors import ConfigurationError, Reask
from .annotations import complete, is_pydantics, is_record, name_of
from .from_json import Reader, foreign_reader, reader_of
from .json_schema import Wrapping
from .json_text import Mismatch, can_be_mended, json_in, problems_of, shown, unfenced
from .strict_schema import ANSWER

__all__ = ["Parser", "parser_of", "reason_of"]

Parser = Callable[[str], Any]
"""Makes a value of an answer's text; an exception of any class says why it cannot."""

_MAX_PROBLEMS = 10
_MAX_REASON_CHARS = 1500  # it is sent to the model
_MAX_SCHEMA_ERROR_CHARS = 200  # jsonschema's errors quote the value

_WRAPPED = re.compile(rf'\s*\{{\s*"{ANSWER}"\s*:')

# Classes of these modules make a value of a text that is not the one in its JSON: set("abc") holds letters.
_OF_JSON = frozenset({"builtins", "collections", "datetime"})
_OF_TEXT = (str, int, float, complex)
_OF_NUMBERS = frozenset({"builtins", "decimal", "fractions", "uuid"})

_OTHER_LIBRARIES = {"__attrs_attrs__": "an attrs class", "__struct_fields__": "a msgspec.Struct"}


def parser_of(parse: Any) -> Parser:
    """Return the parser that ``parse=`` stands for.

    A function gets the text as it is. For everything else the text has to be JSON, alone or in its only fence.

    Raises:
        TypeError: it cannot be used; the message says what would be right.
        ConfigurationError: it is no JSON schema, or jsonschema is not installed.
    """
    if isinstance(parse, Mapping):
        return _SchemaParser(parse)
    while hasattr(parse, "__supertype__"):  # a NewType
        parse = parse.__supertype__
    validate = _validation_of(parse)
    if validate is not None:
        complete(parse, name_of(parse))
        return _PydanticParser(parse, validate)
    if parse is bool:
        raise TypeError("parse=bool makes True of every text: pass a function that looks at it")
    if _is_type_of_json(parse):
        return _TypeParser(parse, reader_of(parse), bare=_takes_bare_text(parse))
    _check_function(parse)
    return _TextParser(parse) if isinstance(parse, type) else typing.cast(Parser, parse)


def _validation_of(parse: Any) -> Any:
    """Return pydantic's method from JSON to a value, None if ``parse`` is none of its types; it is not imported."""
    if typing.get_origin(parse) is not None:
        return None
    if isinstance(parse, type):
        # Version 2 also has parse_raw, which warns that it is out of date.
        method = getattr(parse, "model_validate_json", None)
        if method is None and hasattr(parse, "__fields__"):
            method = getattr(parse, "parse_raw", None)
    else:
        method = getattr(parse, "validate_json", None)
    return method if callable(method) else None


def _is_type_of_json(parse: Any) -> bool:
    # List[Item] can be called, and would make a list of the letters.
    if typing.get_origin(parse) is not None or parse is Any or hasattr(parse, "__value__"):
        return True
    if not isinstance(parse, type):
        return False
    if is_record(parse) or is_pydantics(parse) or issubclass(parse, enum.Enum):
        return True
    return parse.__module__ in _OF_JSON and parse not in _OF_TEXT


def _takes_bare_text(parse: Any) -> bool:
    """Return whether a text without quotes can be the value: one word of several, a date."""
    if hasattr(parse, "__metadata__"):  # Annotated
        return _takes_bare_text(parse.__origin__)
    if not isinstance(parse, type) or is_record(parse):
        return typing.get_origin(parse) is Literal
    return issubclass(parse, enum.Enum) or parse.__module__ == "datetime" or is_pydantics(parse)


def _check_function(parse: Any) -> None:
    """Check that ``parse`` can be called with a text, and makes a value of it.

    Raises:
        TypeError: it cannot.
    """
    if not callable(parse):
        raise TypeError(
            "parse must be a function of the text, a dataclass, a pydantic model or another type that is made of JSON, "
            f"or a JSON schema (a dict), got {_description_of(parse)}"
        )
    for sign, library in _OTHER_LIBRARIES.items():
        if isinstance(parse, type) and hasattr(parse, sign):
            raise TypeError(f"parse={parse.__name__} is {library}: pass a function that makes one of the text")
    if inspect.iscoroutinefunction(parse if inspect.isroutine(parse) or isinstance(parse, type) else parse.__call__):
        raise TypeError("parse= is called in a thread, without an event loop: pass an ordinary function")
    if inspect.isabstract(parse) or getattr(parse, "_is_protocol", False):
        raise TypeError(f"no object can be made of the abstract class {parse.__name__}: pass a function of the text")
    try:
        signature = inspect.signature(parse, follow_wrapped=False)
    except (TypeError, ValueError):  # some do not say what they take
        return
    try:
        signature.bind("")
    except TypeError as error:
        raise TypeError(f"parse= is called with one argument, the text, and cannot be: {error}") from error


class _TypeParser:
    """Make values of one type; can be shared among threads.

    Args:
        kind: the type.
        read: makes values of it out of JSON values.
        bare: whether a text that is no such JSON may be the value itself.
    """

    def __init__(self, kind: Any, read: Reader, *, bare: bool) -> None:
        self._read = read
        self._bare = bare
        self._wrapping = Wrapping(kind)

    def __call__(self, text: str) -> Any:
        try:
            value = json_in(text)
        except Mismatch:
            if self._bare:
                return self._read(unfenced(text).strip(), "")
            raise
        try:
            return _read_first(self._wrapping.contents(value), value, self._read)
        except Mismatch:
            if self._bare and not isinstance(value, (dict, list, str)):
                with contextlib.suppress(Mismatch):
                    return self._read(unfenced(text).strip(), "")
            raise
        except RecursionError:
            raise Mismatch(["nested too deeply"]) from None


class _PydanticParser:
    """Make values as pydantic does; can be shared among threads."""

    def __init__(self, kind: Any, validate: Callable[[str], Any]) -> None:
        self._validate = validate
        self._wrapping = Wrapping(kind)

    def __call__(self, text: str) -> Any:
        text = unfenced(text)
        if _WRAPPED.match(text):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(text)
                contents = self._wrapping.contents(value)
                if contents[0] is not value:
                    return _read_first(contents, value, foreign_reader(self._validate))
        return self._validate(text)


class _TextParser:
    """Make values of a class that takes a text."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self._wrapping = Wrapping(cls)

    def __call__(self, text: str) -> Any:
        if _WRAPPED.match(unfenced(text)):
            value = json_in(text)
            contents = self._wrapping.contents(value)
            if contents[0] is not value:
                return _read_first(contents, value, reader_of(self._cls))
        try:
            return self._value_of(text)
        except ValueError:
            bare = unfenced(text).strip()
            if self._cls.__module__ not in _OF_NUMBERS or bare == text.strip():
                raise
            return self._value_of(bare)

    def _value_of(self, text: str) -> Any:
        try:
            return self._cls(text)
        except ArithmeticError as error:
            if self._cls.__module__ == "decimal":  # which has an error of its own for texts that are no numbers
                raise Mismatch([f"expected a number, got {shown(text)}"]) from error
            raise


def _read_first(contents: List[Any], value: Any, read: Reader) -> Any:
    """Return what ``read`` makes of the first of the contents that it can read.

    Args:
        contents: not empty.
        value: the whole value, of which they are parts.
        read: makes a value.

    Raises:
        Mismatch: it can read none; this is the error of the first.
    """
    mismatches = []
    for content in contents:
        try:
            return read(content, "" if content is value else ANSWER)
        except Mismatch as mismatch:
            mismatches.append(mismatch)
    raise mismatches[0]


def _description_of(value: Any) -> str:
    kind = type(value).__name__
    return f"an object of {kind}: pass the class itself" if dataclasses.is_dataclass(value) else f"a value of {kind}"


def reason_of(error: BaseException) -> str:
    """Return why a text made no value, as it is sent to the model."""
    if isinstance(error, Reask):
        return str(error) or "it is not what was asked for"
    problems = problems_of(error) if isinstance(error, Exception) else []
    more = len(problems) - _MAX_PROBLEMS
    text = "; ".join(problems[:_MAX_PROBLEMS] + [f"and {more} more"] * (more > 0)) or str(error)
    if not (problems or (text and isinstance(error, ValueError) and can_be_mended(error))):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MAX_REASON_CHARS else text[: _MAX_REASON_CHARS - 3] + "..."


class _SchemaParser:
    """Return the JSON value of a text, if the schema allows it; needs the jsonschema package.

    Args:
        schema: the JSON schema; of a draft that ``$schema`` names, otherwise the newest.

    Raises:
        ConfigurationError: jsonschema is not installed, the schema is not one, or it refers to another document
            (none is ever fetched).
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        validators = _validators()
        # A copy, as JSON: later changes of the dict, and objects that are not JSON, do not get into a run.
        try:
            self._schema = json.loads(json.dumps(dict(schema)))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"parse= is no JSON schema: {error}") from error
        self._validator = validators.validator_for(self._schema, default=validators.Draft202012Validator)
        try:
            self._validator.check_schema(self._schema)
        except Exception as error:
            message = getattr(error, "message", str(error))
            raise ConfigurationError(f"parse= is no JSON schema: {_cut(message)}") from error
        _refuse_other_documents(self._schema)

    def __call__(self, text: str) -> Any:
        value = json_in(text)
        try:
            # A new one each time: older versions must not be shared among threads.
            unsorted_errors = list(self._validator(self._schema).iter_errors(value))
        except RecursionError:
            raise Mismatch(["nested too deeply"]) from None
        errors = sorted(unsorted_errors, key=lambda error: list(map(str, error.path)))
        if errors:
            raise Mismatch([_line(error) for error in errors])
        return value


def _validators() -> Any:
    try:
        return importlib.import_module("jsonschema.validators")
    except ImportError as error:
        raise ConfigurationError(
            "parse= with a JSON schema needs jsonschema: pip install jsonschema; "
            "or pass a dataclass, which needs nothing"
        ) from error


def _refuse_other_documents(schema: Any) -> None:
    known: Set[str] = {identifier.rstrip("#") for identifier in _values_of(schema, "$id")}
    for reference in _values_of(schema, "$ref"):
        document, _, pointer = reference.partition("#")
        if document and document not in known:
            raise ConfigurationError(
                f"parse= refers to {_cut(reference)!r}, and no document is fetched: put that schema under '$defs'"
            )
        if not known and pointer.startswith("/") and not _leads_somewhere(schema, pointer):
            raise ConfigurationError(f"parse= refers to {_cut(reference)!r}, and nothing is there")


def _leads_somewhere(schema: Any, pointer: str) -> bool:
    """Follow a JSON pointer (RFC 6901)."""
    for step in pointer.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdigit() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return False
    return True


def _values_of(schema: Any, name: str) -> Iterator[str]:
    """Yield all texts under the key ``name``, at any depth."""
    left: List[Any] = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get(name), str):
                yield value[name]
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _line(error: Any) -> str:
    place = ""
    for step in error.path:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    place = place.lstrip(".")
    return f"{place}: {_cut(error.message)}" if place else _cut(error.message)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SCHEMA_ERROR_CHARS else text[: _MAX_SCHEMA_ERROR_CHARS - 3] + "..."
