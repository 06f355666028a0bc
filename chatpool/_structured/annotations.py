"""A walk over the types that annotations name, for values made of JSON and for JSON schemas alike.

What the standard library describes is read here.  The rest is pydantic's, where it is installed: it is imported for
types that are its own, and for those that nothing else here knows.
"""

from __future__ import annotations

import abc
import collections.abc
import contextlib
import dataclasses
import enum
import importlib
import sys
import types
import typing
from typing import Any, Dict, Generic, List, Literal, Sequence, Tuple, TypeVar, Union

__all__ = [
    "NULL",
    "PLAIN",
    "UNIONS",
    "Builder",
    "adapter_of",
    "complete",
    "fields_of",
    "is_pydantics",
    "is_record",
    "name_of",
    "unsupported",
]

T = TypeVar("T")

# typing.Annotated is a class only by accident of the version: its origin is compared by name.
UNIONS = (Union, getattr(types, "UnionType", Union))

NULL = type(None)
PLAIN = (str, int, float, bool, NULL)
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_DICTS = (dict, collections.abc.Mapping)

_QUALIFIERS = frozenset({"Final", "NotRequired", "ReadOnly", "Required"})

_OF_PYDANTIC = ("__get_pydantic_core_schema__", "__pydantic_validator__", "__pydantic_config__")
_ITS_PACKAGES = frozenset({"annotated_types", "pydantic"})

_SUPPORTED = (
    "use str, int, float, bool, None, Any, Optional, Union, List, Tuple, Dict with keys of type str, Literal, an Enum, "
    "a dataclass, a TypedDict or a NamedTuple, or what pydantic takes where it is installed; or pass a function that "
    "makes the value of the text"
)


class Builder(abc.ABC, Generic[T]):
    """Build one thing of each type, a reader or a schema; those of classes with fields may hold themselves."""

    def __init__(self) -> None:
        self._made: Dict[Any, Any] = {}
        self._aliases: List[Any] = []

    def of(self, kind: Any, where: str) -> T:
        """Return the thing of a type that is found at ``where``.

        Raises:
            TypeError: the type, or one inside it, has no JSON form; the message names the place.
        """
        kind = _unqualified(kind)
        if kind is Any:
            return self.anything()
        if isinstance(kind, type) and kind in PLAIN:
            return self.plain(kind)
        if is_pydantics(kind):
            return self.foreign(kind, where)
        origin = typing.get_origin(kind)
        return self._of_class(kind, where) if origin is None else self._of_generic(kind, origin, where)

    def _of_class(self, kind: Any, where: str) -> T:
        if kind in _LISTS or kind in _DICTS:
            return self._of_generic(kind, kind, where)
        if is_record(kind):
            return self._of_record(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self._of_choice([(member.value, member) for member in kind], kind, where)
        if hasattr(kind, "__value__") and kind not in self._aliases:  # type X = ..., which may hold itself
            self._aliases.append(kind)
            with contextlib.suppress(TypeError):  # it names itself by a text, which pydantic can look up
                return self.of(kind.__value__, where)
        return self.foreign(kind, where)

    def _of_record(self, cls: Any) -> T:
        if cls not in self._made:
            made = self._made[cls] = self.record(cls)
            for name, (kind, needed) in fields_of(cls).items():
                self.add_field(made, name, self.of(kind, f"{name_of(cls)}.{name}"), needed)
        return self.reference(cls, self._made[cls])

    def _of_generic(self, kind: Any, origin: Any, where: str) -> T:
        arguments = list(typing.get_args(kind))
        if hasattr(kind, "__metadata__"):  # Annotated
            return self.of(kind.__origin__, where)
        if origin in UNIONS:
            return self._of_union(kind, arguments, where)
        if origin is Literal:
            return self._of_choice([(getattr(value, "value", value), value) for value in arguments], kind, where)
        if origin in _DICTS and (not arguments or arguments[0] in (str, Any)):
            return self.dict_of(self.of(arguments[1], where) if arguments else self.anything())
        if origin is tuple and hasattr(kind, "__args__") and arguments[-1:] != [Ellipsis]:
            return self.row([self.of(argument, where) for argument in arguments if argument != ()])
        if origin in _LISTS:
            return self.list_of(self.of(arguments[0], where) if arguments else self.anything(), origin)
        if origin in (type, collections.abc.Callable):  # pydantic takes them, but never out of JSON
            raise unsupported(where, kind)
        return self.foreign(kind, where)

    def _of_choice(self, choices: Sequence[Tuple[Any, Any]], kind: Any, where: str) -> T:
        if not choices or not all(isinstance(value, PLAIN) for value, _ in choices):
            raise unsupported(where, kind)
        return self.choice(choices, kind)

    def _of_union(self, kind: Any, kinds: Sequence[Any], where: str) -> T:
        others = [other for other in kinds if other is not NULL]
        if len(others) > 1 and any(map(is_pydantics, others)):  # it knows which of its models fits best
            with contextlib.suppress(TypeError):  # but not every TypedDict
                return self.foreign(kind, where)
        # A float takes whole numbers too: where there is an int, they are its.
        others.sort(key=lambda other: other is float)
        return self.union(others, [self.of(other, where) for other in others], nullable=NULL in kinds)

    @abc.abstractmethod
    def anything(self) -> T:
        """Return the thing of Any."""

    @abc.abstractmethod
    def plain(self, kind: Any) -> T:
        """Return the thing of one of :data:`PLAIN`."""

    @abc.abstractmethod
    def choice(self, choices: Sequence[Tuple[Any, Any]], kind: Any) -> T:
        """Return the thing of certain values: pairs of the JSON and the value that it stands for."""

    @abc.abstractmethod
    def list_of(self, item: T, origin: Any) -> T:
        """Return the thing of a list, or of a tuple of any length."""

    @abc.abstractmethod
    def row(self, parts: Sequence[T]) -> T:
        """Return the thing of a tuple of fixed length."""

    @abc.abstractmethod
    def dict_of(self, item: T) -> T:
        """Return the thing of a dict with any keys."""

    @abc.abstractmethod
    def union(self, kinds: Sequence[Any], parts: Sequence[T], *, nullable: bool) -> T:
        """Return the thing of a union; None is not among its ``kinds``."""

    @abc.abstractmethod
    def record(self, cls: Any) -> Any:
        """Return the thing of a class with fields, still without them."""

    @abc.abstractmethod
    def add_field(self, made: Any, name: str, part: T, needed: bool) -> None:
        """Add a field to the thing of :meth:`record`."""

    @abc.abstractmethod
    def reference(self, cls: Any, made: Any) -> T:
        """Return what stands for a class with fields where it is used; its fields may still be missing."""

    @abc.abstractmethod
    def foreign(self, kind: Any, where: str) -> T:
        """Return the thing of a type of pydantic's."""


def name_of(kind: Any) -> str:
    """Return the name of a type in messages."""
    plain = isinstance(kind, type) and typing.get_origin(kind) is None
    return kind.__qualname__ if plain else str(kind).replace("typing.", "")


def unsupported(where: str, kind: Any, why: str = "") -> TypeError:
    """Return the error of a type that cannot be made of JSON."""
    return TypeError(f"a {name_of(kind)} ({where}) cannot be made of JSON{why and f' ({why})'}: {_SUPPORTED}")


def adapter_of(kind: Any, where: str) -> Any:
    """Return pydantic's TypeAdapter of a type.

    Raises:
        TypeError: there is none, or pydantic is not installed.
    """
    if isinstance(kind, (str, typing.ForwardRef)):
        raise unsupported(where, kind, "the name of a type that nothing is known of here")
    try:
        make = importlib.import_module("pydantic").TypeAdapter
    except (ImportError, AttributeError):  # version 1 has none
        raise unsupported(where, kind) from None
    try:
        adapter = make(kind)
    except Exception as error:
        raise unsupported(where, kind, _first_line(error)) from error
    complete(adapter, where)
    return adapter


def complete(kind: Any, where: str) -> None:
    """Have pydantic look up names in a model or an adapter that were not defined yet.

    Raises:
        TypeError: they are still not defined.
    """
    if getattr(kind, "__pydantic_complete__", getattr(kind, "pydantic_complete", True)):
        return
    try:
        getattr(kind, "model_rebuild" if isinstance(kind, type) else "rebuild")()
    except Exception as error:
        raise TypeError(f"{where} is not fully defined: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def is_pydantics(kind: Any) -> bool:
    """Return whether pydantic takes part in making values of a type; it is not imported for that."""
    if any(hasattr(kind, name) for name in _OF_PYDANTIC):
        return True
    if hasattr(kind, "__metadata__"):
        return any(map(_is_from_pydantic, kind.__metadata__))
    # A Field() of pydantic's in the place of the dataclass's own.
    return dataclasses.is_dataclass(kind) and any(
        type(field.default).__name__ == "FieldInfo" for field in dataclasses.fields(kind)
    )


def _is_from_pydantic(value: Any) -> bool:
    package = type(value).__module__.partition(".")[0]
    return package in _ITS_PACKAGES or hasattr(value, _OF_PYDANTIC[0])


def is_record(kind: Any) -> bool:
    """Return whether a type is a class with fields that the standard library describes."""
    if not isinstance(kind, type) or typing.get_origin(kind) is not None:
        return False
    return dataclasses.is_dataclass(kind) or _is_typed_dict(kind) or _is_named_tuple(kind)


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def fields_of(cls: Any) -> Dict[str, Tuple[Any, bool]]:
    """Return the fields of a class by name: the type, and whether the field is required.

    Args:
        cls: a dataclass, a TypedDict or a NamedTuple.

    Raises:
        TypeError: an annotation cannot be evaluated, or the class needs more than its fields.
    """
    try:
        hints = typing.get_type_hints(cls, localns=_names_for(cls), include_extras=True)
    except Exception as error:
        raise TypeError(f"the annotations of {name_of(cls)} cannot be evaluated: {error}") from error
    variables = _variables_of(cls)
    if variables:
        hints = {name: _with_variables(hint, variables) for name, hint in hints.items()}
    if _is_typed_dict(cls):
        return {name: (hint, _is_needed(hint, name in cls.__required_keys__)) for name, hint in hints.items()}
    if _is_named_tuple(cls):
        return {name: (hints.get(name, Any), name not in cls._field_defaults) for name in cls._fields}
    known = {field.name for field in dataclasses.fields(cls)}
    return {
        name: (
            hints[name].type if isinstance(hints[name], dataclasses.InitVar) else hints[name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for name, field in cls.__dataclass_fields__.items()  # fields() leaves out what only __post_init__ gets
        if field.init and (name in known or not _is_class_variable(hints[name]))
    }


def _is_class_variable(hint: Any) -> bool:
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar


class _Inner:
    """A stand-in for InitVar where that cannot be evaluated: its type is the one in its brackets."""

    def __class_getitem__(cls, kind: Any) -> Any:
        return kind


def _names_for(cls: Any) -> Any:
    """Return other meanings of names in a class's annotations than those in its module."""
    if sys.version_info < (3, 11):  # there typing takes no InitVar[...] that is written as a text
        if dataclasses.is_dataclass(cls) and len(cls.__dataclass_fields__) > len(dataclasses.fields(cls)):
            module = types.SimpleNamespace(**{**vars(dataclasses), "InitVar": _Inner})
            return {"InitVar": _Inner, "dataclasses": module}
    return None


def _variables_of(cls: Any) -> Dict[Any, Any]:
    """Return the types of a class's inherited type variables: int, in ``class Ages(Box[int])``."""
    variables: Dict[Any, Any] = {}
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        of_base = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(base)))
        inherited = _variables_of(base if origin is None else origin)
        variables.update({name: _with_variables(kind, of_base) for name, kind in inherited.items()})
        variables.update(of_base)
    return variables


def _with_variables(kind: Any, variables: Dict[Any, Any]) -> Any:
    """Return a type with the types of its type variables in their places."""
    if isinstance(kind, TypeVar):
        return variables.get(kind, kind)
    inner = () if typing.get_origin(kind) is None else getattr(kind, "__parameters__", ())
    if not any(variable in variables for variable in inner):
        return kind
    return kind[tuple(variables.get(variable, variable) for variable in inner)]


def _is_needed(hint: Any, otherwise: bool) -> bool:
    """Return what a TypedDict's own qualifier says; the class does not know it if annotations are texts."""
    while True:
        qualifier = _qualifier(hint)
        if not qualifier and not hasattr(hint, "__metadata__"):
            return otherwise
        if qualifier in ("Required", "NotRequired"):
            return qualifier == "Required"
        hint = hint.__origin__ if hasattr(hint, "__metadata__") else typing.get_args(hint)[0]


def _unqualified(kind: Any) -> Any:
    """Return a type without its qualifiers and new names; for a type variable its bound or constraints."""
    while _qualifier(kind):
        kind = typing.get_args(kind)[0]
    while hasattr(kind, "__supertype__"):  # of a NewType
        kind = kind.__supertype__
    if isinstance(kind, TypeVar):
        kind = kind.__bound__ or (Union[kind.__constraints__] if kind.__constraints__ else Any)
    return NULL if kind is None else kind


def _qualifier(kind: Any) -> str:
    name = getattr(typing.get_origin(kind), "_name", None)
    return name if name in _QUALIFIERS else ""
