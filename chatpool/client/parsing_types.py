"""From JSON values to the types that annotations name: dataclasses above all.

Types are held to: a text is no number and 1 is not true.  But a whole number passes for a float, and 3.0 for an int.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from typing import Any, Callable, Dict, List, Literal, Sequence, Tuple, Union

from .parsing_json import Mismatch, problems_of, shown

__all__ = ["UNIONS", "Reader", "fields_of", "reader_of", "unsupported"]

Reader = Callable[[Any, str], Any]
"""Takes a JSON value and its place; raises :class:`Mismatch`."""

# typing.Annotated is a class only by accident of the version: its origin is compared by name.
UNIONS = (Union, getattr(types, "UnionType", Union))

_NULL = type(None)
_PLAIN: Dict[Any, str] = {str: "str", int: "int", float: "float", bool: "bool", _NULL: "null"}
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_DICTS = (dict, collections.abc.Mapping)

_SUPPORTED = (
    "use str, int, float, bool, None, Any, Optional, Union, List, Tuple, Dict with keys of type str, Literal, an Enum, "
    "a dataclass or a pydantic model; or pass a function that makes the value of the text"
)


def unsupported(where: str, kind: Any) -> TypeError:
    """A type that JSON values are not made into."""
    return TypeError(f"a {_name(kind)} ({where}) cannot be made of JSON: {_SUPPORTED}")


def reader_of(kind: Any) -> Reader:
    """What makes values of this type out of JSON values.

    Raises:
        TypeError: the type, or one inside it, is not supported; the message names the place.
    """
    return _Readers().of(kind, _name(kind))


def fields_of(cls: Any) -> Dict[str, Tuple[Any, bool]]:
    """A dataclass's fields by name: the type, and whether it has to be there.

    Raises:
        TypeError: an annotation cannot be evaluated, or the class needs more than its fields.
    """
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:
        raise TypeError(f"the annotations of {_name(cls)} cannot be evaluated: {error}") from error
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar):
            raise unsupported(f"{_name(cls)}.{name}", hint)
    return {
        field.name: (
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
        if field.init
    }


def _name(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _mismatch(path: str, problem: str) -> Mismatch:
    return Mismatch([f"{path}: {problem}" if path else problem])


class _Readers:
    """Makes readers; remembers those of dataclasses, which may hold themselves."""

    def __init__(self) -> None:
        self._made: Dict[Any, _DataclassReader] = {}

    def of(self, kind: Any, where: str) -> Reader:
        """The reader for a type that is found at ``where``."""
        kind = _NULL if kind is None else getattr(kind, "__supertype__", kind)  # that of a NewType
        if kind is Any:
            return _anything
        if isinstance(kind, type) and kind in _PLAIN:
            return _plain_reader(kind)
        origin = typing.get_origin(kind)
        return self._of_class(kind, where) if origin is None else self._of_generic(kind, origin, where)

    def _of_class(self, kind: Any, where: str) -> Reader:
        if kind in _LISTS or kind in _DICTS:
            return self._of_generic(kind, kind, where)
        if not isinstance(kind, type):
            raise unsupported(where, kind)
        if hasattr(kind, "model_validate"):
            return _model_reader(kind.model_validate)
        if dataclasses.is_dataclass(kind):
            return self._of_dataclass(kind)
        if issubclass(kind, enum.Enum):
            return _choice_reader([(member.value, member) for member in kind])
        raise unsupported(where, kind)

    def _of_dataclass(self, cls: Any) -> Reader:
        if cls not in self._made:
            reader = self._made[cls] = _DataclassReader(cls)
            for name, (kind, needed) in fields_of(cls).items():
                reader.fields[name] = self.of(kind, f"{_name(cls)}.{name}"), needed
        return self._made[cls]

    def _of_generic(self, kind: Any, origin: Any, where: str) -> Reader:
        arguments = [argument for argument in typing.get_args(kind) if not isinstance(argument, typing.TypeVar)]
        if hasattr(kind, "__metadata__"):  # Annotated
            return self.of(kind.__origin__, where)
        if origin in UNIONS:
            return self._of_union(arguments, where)
        if origin is Literal:
            return _choice_reader([(value, value) for value in arguments])
        if origin in _DICTS and (not arguments or arguments[0] in (str, Any)):
            return _dict_reader(self.of(arguments[1], where) if arguments else _anything)
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return _row_reader([self.of(argument, where) for argument in arguments])
        if origin in _LISTS:
            return _list_reader(self.of(arguments[0], where) if arguments else _anything, origin)
        raise unsupported(where, kind)

    def _of_union(self, kinds: Sequence[Any], where: str) -> Reader:
        # A float takes whole numbers too: where there is an int, they are its.
        ordered = sorted(kinds, key=lambda kind: kind is float)
        readers = [self.of(kind, where) for kind in ordered if kind is not _NULL]
        names = [_expected(kind) for kind in ordered]
        return _union_reader(readers, " or ".join(names), nullable=_NULL in kinds)


class _DataclassReader:
    """Makes a dataclass of an object; what is unknown, missing or wrong is told all at once."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self.fields: Dict[str, Tuple[Reader, bool]] = {}

    def __call__(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(path, f"expected {_expected(self._cls)}, got {shown(value)}")
        under = f"{path}." if path else ""
        problems = [f"{under}{name}: unknown field" for name in value if name not in self.fields]
        found: Dict[str, Any] = {}
        for name, (read, needed) in self.fields.items():
            if name in value:
                _collect(found, name, read, value[name], f"{under}{name}", problems)
            elif needed:
                problems.append(f"{under}{name}: missing")
        if problems:
            raise Mismatch(problems)
        try:
            return self._cls(**found)
        except (TypeError, ValueError) as error:  # its __post_init__ checks more
            raise Mismatch(problems_of(error, path) or [f"{path}: {error}" if path else str(error)]) from error


def _collect(found: Any, key: Any, read: Reader, value: Any, path: str, problems: List[str]) -> None:
    try:
        found[key] = read(value, path)
    except Mismatch as mismatch:
        problems.extend(mismatch.problems)


def _anything(value: Any, path: str) -> Any:
    return value


def _plain_reader(kind: Any) -> Reader:
    def read(value: Any, path: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int and abs(value) <= 2**1023:
            return float(value)
        if kind is int and type(value) is float and value.is_integer():
            return int(value)
        raise _mismatch(path, f"expected {_PLAIN[kind]}, got {shown(value)}")

    return read


def _choice_reader(choices: Sequence[Tuple[Any, Any]]) -> Reader:
    names = ", ".join(shown(value) if _is_json(value) else repr(value) for value, _ in choices)

    def read(value: Any, path: str) -> Any:
        for known, meant in choices:
            if type(known) is type(value) and known == value:
                return meant
        raise _mismatch(path, f"expected one of {names}, got {shown(value)}")

    return read


def _is_json(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, _NULL))


def _list_reader(read_one: Reader, origin: Any) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(path, f"expected a list, got {shown(value)}")
        found: Dict[int, Any] = {}
        problems: List[str] = []
        for index, each in enumerate(value):
            _collect(found, index, read_one, each, f"{path}[{index}]", problems)
        if problems:
            raise Mismatch(problems)
        return tuple(found.values()) if origin is tuple else list(found.values())

    return read


def _row_reader(readers: Sequence[Reader]) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, list) or len(value) != len(readers):
            got = f"{len(value)} items" if isinstance(value, list) else shown(value)
            raise _mismatch(path, f"expected a list of {len(readers)} items, got {got}")
        return tuple(one(each, f"{path}[{index}]") for index, (one, each) in enumerate(zip(readers, value)))

    return read


def _dict_reader(read_one: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(path, f"expected an object, got {shown(value)}")
        found: Dict[str, Any] = {}
        problems: List[str] = []
        for key, each in value.items():
            _collect(found, key, read_one, each, f"{path}.{key}" if path else key, problems)
        if problems:
            raise Mismatch(problems)
        return found

    return read


def _union_reader(readers: Sequence[Reader], names: str, *, nullable: bool) -> Reader:
    def read(value: Any, path: str) -> Any:
        if value is None and nullable:
            return None
        told: List[Mismatch] = []
        for each in readers:
            try:
                return each(value, path)
            except Mismatch as mismatch:
                told.append(mismatch)
        if len(told) == 1:  # Optional: its own words are the clearest
            raise told[0]
        raise _mismatch(path, f"expected {names}, got {shown(value)}")

    return read


def _model_reader(validate: Callable[[Any], Any]) -> Reader:
    def read(value: Any, path: str) -> Any:
        try:
            return validate(value)
        except ValueError as error:
            raise Mismatch(problems_of(error, path) or [str(error)]) from error

    return read


def _expected(kind: Any) -> str:
    """A type as a model may be told it."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    return f"an object ({_name(kind)})" if dataclasses.is_dataclass(kind) else _name(kind)
