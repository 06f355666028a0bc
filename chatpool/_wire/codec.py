"""JSON to and from bytes, faster where orjson is installed.

Values of tables become JSON as well: whatever numpy, pandas, polars, pyarrow and the standard library put into a cell.
None of these packages is imported: a value is recognised by its attributes.
"""

from __future__ import annotations

import contextlib
import decimal
import enum
import importlib
import json
import math
import pathlib
import re
import uuid
from collections.abc import Mapping
from typing import Any, Callable, List, Optional, Tuple, Union

from .._attachments import Attachment
from ..errors import ConfigurationError

__all__ = [
    "EMPTY_CELL",
    "TooDeep",
    "decoded",
    "encode",
    "is_missing",
    "loads",
    "plain",
    "strict_loads",
    "table_advice",
    "whole",
]


EMPTY_CELL = "the cell is empty"

_NON_JSON_DTYPES = frozenset("mMcSV")  # numpy's kinds without a form in JSON: times, complex numbers, bytes, records


def is_missing(value: Any) -> bool:
    """Return whether ``value`` is an empty cell: None, NaN, an empty text, pandas' NA and NaT, a null of pyarrow's."""
    if value is None or isinstance(value, str):
        return not value
    if isinstance(value, (int, list, tuple, Mapping)):
        return False
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if hasattr(value, "as_py"):
        return value.as_py() is None
    if type(value).__name__ in ("MaskedConstant", "NAType", "NaTType"):
        return True
    is_number = isinstance(value, float) or (hasattr(value, "dtype") and getattr(value, "shape", None) == ())
    return is_number and bool(value != value)


def plain(value: Any) -> Any:
    """Return ``value`` in the form that JSON has for it.

    Decimals and numbers of numpy's are numbers, arrays lists; a UUID and a path are texts; a member of an enumeration
    is its value.  Dates and times have no common form: none is chosen for them.

    Raises:
        TypeError: JSON has no form for it.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value.as_tuple().exponent in range(19) else float(value)
    if isinstance(value, (uuid.UUID, pathlib.PurePath)):
        return str(value)
    if hasattr(value, "as_py") and not is_missing(value):
        return value.as_py()
    if hasattr(value, "dtype"):
        return _plain_array(value)
    raise TypeError


def whole(value: Any) -> Optional[int]:
    """Return ``value`` as the whole number that it is in JSON; None for anything else."""
    if type(value) is not int:
        with contextlib.suppress(TypeError):
            value = plain(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _plain_array(value: Any) -> Any:
    """Return the plain form of an array, of a column, or of one of their numbers."""
    kind = getattr(value.dtype, "kind", "")
    if kind in _NON_JSON_DTYPES or is_missing(value):
        raise TypeError
    if kind == "f" and getattr(value, "shape", None) == ():  # by its digits: 0.1 of 32 bits is meant to be 0.1
        with contextlib.suppress(ValueError):
            return float(str(value))
        raise TypeError  # a masked one
    to_list = getattr(value, "tolist", None) or getattr(value, "to_list", None)
    if to_list is None:
        raise TypeError
    return to_list()


def table_advice(value: Any) -> Optional[str]:
    """Return what to pass in place of a table, which gives its columns or their names when it is iterated over.

    None for anything but a table.
    """
    kind = type(value)
    if not (hasattr(kind, "columns") and (hasattr(kind, "dtypes") or hasattr(kind, "to_pylist"))):
        return None
    is_lazy_of_polars = hasattr(kind, "collect") and hasattr(kind, "with_columns") and not hasattr(kind, "toPandas")
    if hasattr(kind, "to_dicts") or is_lazy_of_polars:
        column, rows = 'df["column"]', "df.to_dicts()"
    elif hasattr(kind, "to_pylist"):
        column, rows = 'table["column"].to_pylist()', "table.to_pylist()"
    else:
        column, rows = 'df["column"]', 'df.to_dict("records")'
    first = ""
    if hasattr(kind, "collect") or hasattr(kind, "compute"):
        first = "bring it into memory (collect(), toPandas(), compute()); then "
    return f"for a column of texts {first}pass {column}, for whole rows {rows} with prompt="


# No API nests its requests or its answers this far.  Deeper requests count as circular; deeper answers could be read,
# and then neither joined, pickled nor written with the stack that is left.
_MAX_DEPTH = 200

_PLAIN_TYPES = "use str, int, float, bool, None, list or dict"

_MAX_DIGITS = 4300  # of an integer that Python reads (sys.int_info.default_max_str_digits)


_stdlib = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)


_COPIED_BYTES = 4096  # at most


_plain = json.JSONDecoder()


def _stdlib_loads(content: Union[bytes, str]) -> Any:
    """Return what ``json.loads`` does, which looks at each answer for its encoding: nearly all are UTF-8."""
    if type(content) is bytes:
        try:
            return _plain.decode(content.decode("utf-8"))
        except ValueError:
            pass
    return json.loads(content)


def _find_orjson() -> Tuple[Optional[Callable[[Any], bytes]], Callable[[Any], Any]]:
    """Return the two functions of orjson where it is installed, otherwise None and the standard library's."""
    try:
        orjson: Any = importlib.import_module("orjson")
    except ImportError:
        return None, _stdlib_loads
    # orjson must refuse whatever the standard library refuses.
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

    def dumps(body: Any) -> bytes:
        encoded: bytes = orjson.dumps(body, plain, options)
        # What orjson returns takes 4 KiB at least, for as long as the call is queued.
        return bytes(memoryview(encoded)) if len(encoded) < _COPIED_BYTES else encoded

    return dumps, orjson.loads


_fast_dumps, _fast_loads = _find_orjson()


def encode(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as UTF-8 JSON without needless spaces; values of tables as :func:`plain` has them.

    Raises:
        TypeError: a value that JSON has no form for; the message names the field, never the value.
        ConfigurationError: NaN, an infinity, a lone surrogate or a circular reference; the message names the field.
    """
    if _fast_dumps is not None:
        try:
            encoded = _fast_dumps(body)
        except (TypeError, ValueError, RecursionError):
            encoded = b"null"
        # orjson writes NaN and infinities as null, so only an encoding without null is proof that there were none.
        if b"null" not in encoded:
            return encoded
    try:
        return _stdlib.encode(body).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        fault = _fault_in(body, "", 0)
    # Not raised from the original: that one quotes the text of the prompt.
    raise fault or TypeError("the request body cannot be written as JSON")


class TooDeep(ValueError):
    """JSON is nested too deeply; the message goes on after "is"."""

    def __init__(self) -> None:
        super().__init__(f"nested more than {_MAX_DEPTH} deep")


def loads(content: Union[bytes, str]) -> Any:
    """Return the value of :func:`decoded`; raises as it does."""
    return decoded(content)[0]


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def strict_loads(text: str) -> Any:
    """Return ``text`` decoded from JSON that every reader accepts, with the same value.

    Raises:
        ValueError: it is not JSON, or has NaN or an infinity in it, a number beyond those of a float or of more than
            4,300 digits, half of a surrogate pair, or more than 200 levels. The message says which.
    """
    try:
        value = _strict.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"not JSON that can be read: {TooDeep()}") from None
    except ValueError as error:
        message = str(error)
        if "integer string conversion" in message:
            message = f"not JSON that can be read: a whole number of more than {_MAX_DIGITS:,} digits"
        raise ValueError(message) from None
    if _is_deep(value, text):
        raise ValueError(f"not JSON that can be read: {TooDeep()}")
    if "\\u" in text and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(f"not JSON that can be read: {half} is half of a surrogate pair") from None
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"not JSON: {word} is no value of it (for a missing one write null)")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"not JSON that can be read: {digits[:20]} is beyond the numbers of a float")
    return value


_strict = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def decoded(content: Union[bytes, str]) -> Tuple[Any, bool]:
    """Return ``content`` decoded from JSON, and whether every other reader would get the same value.

    Integers of more than 4,300 digits, which Python refuses to read, become None: the rest is worth having.

    Raises:
        TooDeep: objects and arrays are nested more than 200 deep.
        ValueError: it is not JSON.
    """
    is_plain = True
    try:
        value = _fast_loads(content)
    except RecursionError:
        raise TooDeep from None
    except ValueError as error:
        if _fast_loads is _stdlib_loads and "integer string conversion" not in str(error):
            raise
        value, is_plain = _decoded_slowly(content)
    if _is_deep(value, content):
        raise TooDeep
    return value, is_plain


def _decoded_slowly(content: Union[bytes, str]) -> Tuple[Any, bool]:
    """Decode with the standard library, which accepts NaN, other encodings than UTF-8 and lone surrogates too."""
    too_long = False

    def integer(digits: str) -> Optional[int]:
        nonlocal too_long
        if len(digits) <= _MAX_DIGITS:
            return int(digits)
        too_long = True
        return None

    try:
        return json.loads(content, parse_int=integer), not too_long
    except RecursionError:
        raise TooDeep from None


_LONG_CHARACTERS, _FEW_BRACKETS = 100_000, 1000


def _bracket_count(content: Union[bytes, str]) -> int:
    """Return how many brackets are opened in ``content``, those within texts included."""
    data: Any = content
    brackets = ("{", "[") if isinstance(content, str) else (b"{", b"[")
    count = 0
    if len(content) > _LONG_CHARACTERS:
        # Vectors have few of them, and find() goes by many characters at a time where count() goes by one.
        for bracket in brackets:
            place = data.find(bracket)
            while place >= 0 and count <= _FEW_BRACKETS:
                count += 1
                place = data.find(bracket, place + 1)
        if count <= _FEW_BRACKETS:
            return count
    return sum(map(data.count, brackets))


def _is_deep(value: Any, content: Union[bytes, str]) -> bool:
    """Return whether there are more than 200 levels of objects and arrays in ``value``, decoded from ``content``.

    Level by level, as the stack is short, and only while there are brackets enough for the levels that are missing:
    so the numbers of vectors are not looked at.
    """
    if len(content) <= 2 * _MAX_DEPTH:  # as chunks
        return False
    brackets = _bracket_count(content)
    level: List[Any] = [value]
    for depth in range(_MAX_DEPTH):
        level = [part for part in level if type(part) is dict or type(part) is list]
        brackets -= len(level)
        if not level or brackets < _MAX_DEPTH - depth:
            return False
        level = [part for held in level for part in (held.values() if type(held) is dict else held)]
    return any(type(part) is dict or type(part) is list for part in level)


def _fault_in(value: Any, where: str, depth: int) -> Optional[Exception]:
    """Return the error to raise for the first part of ``value`` that JSON cannot hold; None without one."""
    name = where or "the request body"
    if depth > _MAX_DEPTH:
        return ConfigurationError(f"{where.split('.')[0].split('[')[0]} is circular or nested too deeply to be sent")
    if isinstance(value, Mapping):
        return _fault_in_mapping(value, where, depth)
    if isinstance(value, (list, tuple)):
        faults = (_fault_in(part, f"{where}[{index}]", depth + 1) for index, part in enumerate(value))
        return next((fault for fault in faults if fault is not None), None)
    if isinstance(value, float) and not math.isfinite(value):
        return ConfigurationError(f"{name} is {float(value)!r}, which JSON cannot hold: use a finite number")
    if isinstance(value, str):
        return _fault_in_text(value, name)
    if value is None or isinstance(value, (bool, int, float)):
        return None
    if isinstance(value, Attachment):
        return TypeError(f"{name} is an attachment, which has its place beside text in the content of a message")
    if isinstance(value, type):
        advice = "pass chatpool.json_schema of it" if where == "response_format" else _PLAIN_TYPES
        return TypeError(f"{name} is the class {value.__qualname__}, which JSON cannot hold: {advice}")
    kind = type(value)
    named = f"{name} is a {kind.__module__}.{kind.__qualname__}"
    try:
        return _fault_in(plain(value), where, depth + 1)
    except TypeError:
        if is_missing(value):
            return TypeError(f"{named}: {EMPTY_CELL}; leave the row or the field out, or fill it")
    advice = "write it as a text, say with isoformat()" if hasattr(value, "isoformat") else _PLAIN_TYPES
    return TypeError(f"{named}, which JSON cannot hold: {advice}")


def _fault_in_mapping(value: Mapping[Any, Any], where: str, depth: int) -> Optional[Exception]:
    for key, part in value.items():
        if not (key is None or isinstance(key, (str, int, float))):
            return TypeError(f"{where or 'the request body'} has a key of type {type(key).__name__}: keys must be str")
        fault = _fault_in(key, where, depth + 1) or _fault_in(part, f"{where}.{key}" if where else str(key), depth + 1)
        if fault is not None:
            return fault
    return None


def _fault_in_text(value: str, name: str) -> Optional[Exception]:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return ConfigurationError(
            f"{name} holds a lone surrogate at position {error.start}, which UTF-8 cannot hold: "
            "decode the text with the right encoding, or replace it with errors='replace'"
        )
    return None
