"""From JSON values to the types that annotations name, mostly dataclasses.

Types are strict: a text is no number, and 1 is not true.  But a whole number passes for a float, and 3.0 for an int.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Callable, Dict, List, Sequence, Tuple

from .annotations import NULL, PLAIN, Builder, adapter_of, is_record, name_of
from .json_text import ABOUT_ANSWERS, Mismatch, can_be_mended, mismatch_of, shown

__all__ = ["Reader", "foreign_reader", "reader_of"]

Reader = Callable[[Any, str], Any]
"""Takes a JSON value and its place; raises :class:`Mismatch`."""


def reader_of(kind: Any) -> Reader:
    """Return what makes values of this type of JSON values.

    Raises:
        TypeError: the type, or one inside it, is not supported; the message names the place.
    """
    return _Readers().of(kind, name_of(kind))


def _mismatch(path: str, problem: str) -> Mismatch:
    return Mismatch([f"{path}: {problem}" if path else problem])


class _Readers(Builder[Reader]):
    """Build the readers of types."""

    def anything(self) -> Reader:
        return _anything

    def plain(self, kind: Any) -> Reader:
        return _plain_reader(kind)

    def choice(self, choices: Sequence[Tuple[Any, Any]], kind: Any) -> Reader:
        return _choice_reader(choices, kind)

    def list_of(self, item: Reader, origin: Any) -> Reader:
        return _list_reader(item, origin)

    def row(self, parts: Sequence[Reader]) -> Reader:
        return _row_reader(parts)

    def dict_of(self, item: Reader) -> Reader:
        return _dict_reader(item)

    def union(self, kinds: Sequence[Any], parts: Sequence[Reader], *, nullable: bool) -> Reader:
        return _union_reader(parts, [_expected(kind) for kind in (*kinds, *[NULL] * nullable)], nullable=nullable)

    def record(self, cls: Any) -> Any:
        return _RecordReader(cls)

    def add_field(self, made: Any, name: str, part: Reader, needed: bool) -> None:
        made.fields[name] = part, needed

    def reference(self, cls: Any, made: Any) -> Reader:
        reader: Reader = made
        return reader

    def foreign(self, kind: Any, where: str) -> Reader:
        return foreign_reader(adapter_of(kind, where).validate_json)


class _RecordReader:
    """Make an object of a class with fields; all unknown, missing and wrong ones are in one error."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self._is_row = issubclass(cls, tuple)
        self.fields: Dict[str, Tuple[Reader, bool]] = {}

    def __call__(self, value: Any, path: str) -> Any:
        if self._is_row and isinstance(value, list) and len(value) <= len(self.fields):
            value = dict(zip(self.fields, value))
        if not isinstance(value, dict):
            raise _mismatch(path, f"expected {_expected(self._cls)}, got {shown(value)}")
        under = f"{path}." if path else ""
        problems = [f"{under}{name}: unknown field" for name in value if name not in self.fields]
        arguments: Dict[str, Any] = {}
        for name, (read, needed) in self.fields.items():
            if name in value:
                _collect(arguments, name, read, value[name], f"{under}{name}", problems)
            elif needed:
                problems.append(f"{under}{name}: missing")
        if problems:
            raise Mismatch(problems)
        try:
            return self._cls(**arguments)
        except ABOUT_ANSWERS as error:  # its __post_init__ checks more
            if not can_be_mended(error):
                raise
            raise mismatch_of(error, path) from error


def _collect(values: Any, key: Any, read: Reader, value: Any, path: str, problems: List[str]) -> None:
    try:
        values[key] = read(value, path)
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
        raise _mismatch(path, f"expected {_expected(kind)}, got {shown(value)}")

    return read


def _choice_reader(choices: Sequence[Tuple[Any, Any]], kind: Any) -> Reader:
    names = ", ".join(shown(value) for value, _ in choices)
    # An enum may know more names for its members.
    bases = kind.__mro__ if isinstance(kind, type) else ()
    find_more = any("_missing_" in vars(base) for base in bases if base is not enum.Enum)

    def read(value: Any, path: str) -> Any:
        for known, meant in choices:
            if type(known) is type(value) and known == value:
                return meant
        try:
            if find_more:
                return kind(value)
        except ValueError:
            pass
        raise _mismatch(path, f"expected one of {names}, got {shown(value)}")

    return read


def _list_reader(read_item: Reader, origin: Any) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(path, f"expected a list, got {shown(value)}")
        items: Dict[int, Any] = {}
        problems: List[str] = []
        for index, item in enumerate(value):
            _collect(items, index, read_item, item, f"{path}[{index}]", problems)
        if problems:
            raise Mismatch(problems)
        return tuple(items.values()) if origin is tuple else list(items.values())

    return read


def _row_reader(readers: Sequence[Reader]) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, list) or len(value) != len(readers):
            got = f"{len(value)} items" if isinstance(value, list) else shown(value)
            raise _mismatch(path, f"expected a list of {len(readers)} items, got {got}")
        return tuple(read_item(item, f"{path}[{index}]") for index, (read_item, item) in enumerate(zip(readers, value)))

    return read


def _dict_reader(read_item: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(path, f"expected an object, got {shown(value)}")
        items: Dict[str, Any] = {}
        problems: List[str] = []
        for key, item in value.items():
            _collect(items, key, read_item, item, f"{path}.{key}" if path else key, problems)
        if problems:
            raise Mismatch(problems)
        return items

    return read


def _union_reader(readers: Sequence[Reader], names: Sequence[str], *, nullable: bool) -> Reader:
    def read(value: Any, path: str) -> Any:
        if value is None and nullable:
            return None
        mismatches: List[Mismatch] = []
        for read_kind in readers:
            try:
                return read_kind(value, path)
            except Mismatch as mismatch:
                mismatches.append(mismatch)
        if len(mismatches) == 1:  # Optional: its own message is the clearest
            raise mismatches[0]
        problem = f"expected {' or '.join(names)}, got {shown(value)}"
        if isinstance(value, dict):  # it is meant to be one of them
            named = [(name, mismatch) for name, mismatch in zip(names, mismatches) if "(" in name]
            problem += "".join(f" (as {name}: {', '.join(mismatch.problems)})" for name, mismatch in named)
        raise _mismatch(path, problem)

    return read


def foreign_reader(validate_json: Callable[[str], Any]) -> Reader:
    """Return a reader that has pydantic make the values."""

    def read(value: Any, path: str) -> Any:
        try:
            # As JSON, in which even strict models take a date from a text.
            return validate_json(json.dumps(value))
        except (ValueError, AssertionError) as error:
            if not can_be_mended(error):
                raise
            raise mismatch_of(error, path) from error

    return read


_NAMES = {str: "str", int: "int", float: "float", bool: "bool", NULL: "null"}


def _expected(kind: Any) -> str:
    """Return the name of a type in an error that is sent to the model."""
    if isinstance(kind, type) and kind in PLAIN:
        return _NAMES[kind]
    return f"an object ({name_of(kind)})" if is_record(kind) else name_of(kind)
