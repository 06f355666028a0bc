"""Type variables of the public types, with defaults: ``Results`` alone means ``Results[Any]`` to a type checker.

At run time only Python 3.13 and newer know defaults, and nothing needs them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

__all__ = ["ParsedT", "ParsedT_co", "SlotT", "ValueT"]

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
