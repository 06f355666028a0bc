"""The rows of spreadsheets."""

from __future__ import annotations

import datetime
import io
import re
import warnings
import zipfile
from typing import Any, Iterable, Iterator, List, NoReturn, Optional, Sequence, Tuple

from ..errors import ConfigurationError
from .file_kinds import EXCEL
from .input_tables import BLANK, Heading, Line, by_name, checked_names, package_for, refuse_unreadable

__all__ = ["Uncomputed", "excel_lines"]

_FORMULA = re.compile(rb"<(\w+:)?f[ />]")
# ECMA-376, ST_Xstring: what XML cannot hold, often half of the end of a line.
_ESCAPED = re.compile("_x((?![Dd][89A-Fa-f])[0-9A-Fa-f]{4})_")


def excel_lines(path: str, name: str, heading: Heading) -> Iterator[Line]:
    """The rows of the first sheet of an Excel workbook that is not hidden, each a dict of texts.

    Args:
        path: the workbook.
        name: how it is called in messages.
        heading: takes the names of the columns, and which sheet it is where there are several.

    Raises:
        ConfigurationError: openpyxl is not installed, or cannot read it; or the rows are in another sheet.
    """
    package: Any = package_for("openpyxl", EXCEL, name)
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, and what else is no matter of ours
            data = file.read()
            sheet, others = _sheet_of(package, data, data_only=True)
            rows = sheet.iter_rows(values_only=True)
            if _has_formulas(data):
                rows = map(_computed, sheet.iter_rows(), _sheet_of(package, data)[0].iter_rows())
        heading.sheet = f"sheet {sheet.title!r} of {1 + len(others)}" if others else ""
        yield from _sheet_lines(rows, name, heading)
    except ConfigurationError:
        raise
    except Exception as error:  # of any kind: it parses what it is given
        refuse_unreadable(name, EXCEL, error)
    if others and not heading.columns:
        raise ConfigurationError(
            f"the sheet {sheet.title!r} of {name} is empty, and there are others ({', '.join(others)}): move the one "
            "with the rows to the front"
        )


def _sheet_of(package: Any, data: bytes, *, data_only: bool = False) -> Tuple[Any, List[str]]:
    """The sheet to read, and the names of the others that are not hidden."""
    sheets = package.load_workbook(io.BytesIO(data), read_only=True, data_only=data_only).worksheets
    shown = [sheet for sheet in sheets if sheet.sheet_state == "visible"] or sheets
    shown[0].reset_dimensions()  # which not every program writes as they are
    return shown[0], [repr(sheet.title) for sheet in shown[1:]]


def _has_formulas(data: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheets = [part for part in archive.namelist() if part.startswith("xl/worksheets/") and part.endswith(".xml")]
        return any(_FORMULA.search(archive.read(part)) for part in sheets)


class Uncomputed(str):  # noqa: SLOT000 - few have a place
    """A formula of which no program has computed the value: a text that goes nowhere but into a table.

    Attributes:
        place: its cell.
    """

    place = ""

    def refuse(self) -> NoReturn:
        """Refuse to send it, or to call a row so.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"no program has computed the formula in {self.place} ({self[:40]}): open the workbook in one and save it, "
            "or write values in the place of formulas"
        )


def _computed(values: Sequence[Any], formulas: Sequence[Any]) -> Sequence[Any]:
    """The values of a row's cells; an empty text that a formula gives has the type of one."""
    found = [cell.value for cell in values]
    for place, cell in enumerate(formulas):
        if cell.data_type == "f" and found[place] is None and values[place].data_type != "str":
            found[place] = Uncomputed(getattr(cell.value, "text", cell.value))
            found[place].place = cell.coordinate
    return found


def _sheet_lines(rows: Iterable[Sequence[Any]], name: str, heading: Heading) -> Iterator[Line]:
    names: Optional[List[str]] = None
    number = 0
    for place, cells in enumerate(rows, 1):
        fields = [_cell_text(cell) for cell in cells]
        if not any(field.strip() for field in fields):
            if names is not None and fields:
                yield Line(number, BLANK, place, place)
            continue
        number += 1
        if names is None:
            names = checked_names(fields, name, "utf-8")
            heading.columns.update(dict.fromkeys(filter(None, names)))
            continue
        fields += [""] * (len(names) - len(fields))
        yield Line(number, by_name(names, fields, "utf-8"), place, place)


def _cell_text(cell: Any) -> str:
    """A cell as a spreadsheet would write it into CSV."""
    if cell is None:
        return ""
    if isinstance(cell, Uncomputed):
        return cell
    if isinstance(cell, str):
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), cell)
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)
