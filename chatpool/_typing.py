"""Type variables of the public types, with defaults: ``Results`` alone means ``Results[Any]`` to a type checker; and
what ``parse=`` takes.

At run time only Python 3.13 and newer know defaults, and nothing needs them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Protocol, Type, Union

__all__ = ["Parse", "ParsedT", "ParsedT_co", "SlotT", "ValueT"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # type checkers bring it along; it need not be installed

    ParsedT = TypeVar("ParsedT", default=Any)  # what ``parse=`` makes of a text
    ParsedT_co = TypeVar("ParsedT_co", covariant=True, default=Any)
    ValueT = TypeVar("ValueT", default=Any)  # what an item that succeeds becomes
    SlotT = TypeVar("SlotT", default=Optional[ValueT])  # what stands in a list of results, failed items included
else:
    from typing import TypeVar

    ParsedT = TypeVar("ParsedT")
    ParsedT_co = TypeVar("ParsedT_co", covariant=True)
    ValueT = TypeVar("ValueT")
    SlotT = TypeVar("SlotT")

if TYPE_CHECKING:
    import sys
    from typing import _SpecialForm as SpecialForm  # what mypy takes Union[...] and Literal[...] for

    if sys.version_info >= (3, 10):
        from types import UnionType  # what Pyright takes them for

        TypeForm = Union[SpecialForm, UnionType]
    else:
        TypeForm = SpecialForm
else:
    TypeForm = Type[Any]


class _ValidatesJSON(Protocol[ParsedT_co]):
    """The method by which pydantic's TypeAdapter is recognised."""

    def validate_json(self, data: str, /) -> ParsedT_co:
        """Return a value of the JSON."""


Parse = Union[Callable[[str], ParsedT], Type[ParsedT], TypeForm, Mapping[str, Any], _ValidatesJSON[ParsedT]]
"""A function of the text, a type (a dataclass, a pydantic model, ``List[...]``), a TypeAdapter, or a JSON schema."""
