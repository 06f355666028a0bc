"""Values of tables as JSON has them: what numpy, pandas, polars, pyarrow and the standard library put into a cell.

None of these packages is imported: a value is known by what it can do.
"""

from __future__ import annotations

import contextlib
import decimal
import enum
import pathlib
import uuid
from typing import Any, Mapping, Optional

__all__ = ["EMPTY_CELL", "is_missing", "plain", "table_advice", "whole"]

EMPTY_CELL = "the cell is empty"

_NO_NUMBERS = frozenset("mMcSV")  # kinds of numpy's that JSON has nothing for: times, complex numbers, bytes, records


def is_missing(value: Any) -> bool:
    """Whether ``value`` stands for an empty cell: None, NaN, an empty text, pandas' NA and NaT, a null of pyarrow's."""
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
    """What JSON has for ``value``.

    Decimals and numbers of numpy's are numbers, arrays lists; a UUID and a path are texts; a member of an enumeration
    is its value. Dates and times have no form that everybody takes: none is chosen for them.

    Raises:
        TypeError: nothing.
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
        return _of_array(value)
    raise TypeError


def whole(value: Any) -> Optional[int]:
    """A whole number, as JSON has ``value``; None for what is none."""
    if type(value) is not int:
        with contextlib.suppress(TypeError):
            value = plain(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _of_array(value: Any) -> Any:
    """Of an array, of a column, or of one of their numbers."""
    kind = getattr(value.dtype, "kind", "")
    if kind in _NO_NUMBERS or is_missing(value):
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
    """What to pass in place of a table, which gives its columns or their names when it is iterated over.

    None for what is no table.
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
