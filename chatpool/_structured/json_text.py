"""JSON in the text of an answer, and errors about it in words that a model can use."""

from __future__ import annotations

import json
import re
from typing import Any, List, Optional

from .._wire.response import END_OF_THOUGHTS, opened_thoughts
from ..errors import ChatPoolError, Reask

__all__ = ["ABOUT_ANSWERS", "Mismatch", "can_be_mended", "json_in", "mismatch_of", "problems_of", "shown", "unfenced"]

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*(\w*)\s*$")
_MARKER = re.compile(r"(`{3,}|~{3,})[ \t]*([A-Za-z]\w*)?\s*")

_LETTER = re.compile(r"\S")

_MAX_SHOWN_CHARS = 60  # of a value

_decoder = json.JSONDecoder()

ABOUT_ANSWERS = (ValueError, TypeError, LookupError, AssertionError)
"""Classes of the errors that another answer may mend; :func:`can_be_mended` knows the exceptions."""

# Of PEP 249 and SQLAlchemy: some of their errors are ValueErrors or KeyErrors as well.
_OF_DATABASES = frozenset({"DatabaseError", "InterfaceError", "SQLAlchemyError"})


class Mismatch(ValueError):
    """A value is not what was asked for.

    Attributes:
        problems: one line for each thing that is wrong, each with its place.
    """

    def __init__(self, problems: List[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def unfenced(text: str) -> str:
    """Return the part of a text that is to be JSON: without thoughts before it, and out of the text's only fence.

    Fences are Markdown's (https://spec.commonmark.org/0.31.2/#fenced-code-blocks), with at most a word rest them;
    and what models make of them: all on one line, or closed right rest the JSON.
    """
    text = opened_thoughts(text.lstrip("\ufeff"))[1]
    fenced = _out_of_fence(text)
    if END_OF_THOUGHTS not in text or (END_OF_THOUGHTS in fenced and _is_json(fenced)):  # inside a string
        return fenced
    return _out_of_fence(text.partition(END_OF_THOUGHTS)[2])


def _out_of_fence(text: str) -> str:
    """Return the content of a text's only fence; the text if it has none."""
    if "```" not in text and "~~~" not in text:
        return text
    if _is_json(text):  # what looks like a fence is inside a string
        return text
    blocks: List[List[str]] = []
    opened = ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if fence and not opened:
            opened = fence[1]
            blocks.append([])
        elif fence and fence[1].startswith(opened) and not fence[2]:
            opened = ""
        elif opened:
            blocks[-1].append(line)
    if len(blocks) == 1 and not opened:
        return "\n".join(blocks[0])
    return _loosely_fenced(text)


def _loosely_fenced(text: str) -> str:
    """Return the JSON of a text whose only fence shares its lines with other text; the text if it has none."""
    end = _end_of_json(text, _start(text, 0))
    if end is not None:
        rest = text[end:].strip()
        return text[:end] if len(rest) >= 3 and rest in ("`" * len(rest), "~" * len(rest)) else text
    opening = _MARKER.search(text)
    if opening is None:
        return text
    # After the marker may stand a word, such as json, or a word that is the JSON, such as true.
    for start in (opening.end(), _start(text, opening.end(1))):
        end = _end_of_json(text, start)
        if end is not None:
            closing = re.compile(rf"\s*{opening[1]}{re.escape(opening[1][0])}*").match(text, end)
            if closing is not None and not _MARKER.search(text, closing.end()):
                return text[start:end]
    return text


def _start(text: str, position: int) -> int:
    """Return the place of the next character that is no white space."""
    match = _LETTER.search(text, position)
    return len(text) if match is None else match.start()


def _end_of_json(text: str, start: int) -> Optional[int]:
    """Return the place where the JSON value at ``start`` ends; None if there is none."""
    try:
        return _decoder.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def _is_json(text: str) -> bool:
    end = _end_of_json(text, _start(text, 0))
    return end is not None and not text[end:].strip()


def json_in(text: str) -> Any:
    """Return the JSON value of a text, or of its only fence.

    Raises:
        Mismatch: there is none.
    """
    try:
        return json.loads(unfenced(text), parse_constant=_refuse)
    except ValueError as error:
        raise Mismatch([f"not JSON: {error}"]) from None
    except RecursionError:
        raise Mismatch(["not JSON that can be read: nested too deeply"]) from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON value")


def shown(value: Any) -> str:
    """Return a JSON value in a few words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 3] + "..."


def problems_of(error: Exception, path: str = "") -> List[str]:
    """Return the problems of a validation error, one line for each place.

    pydantic's own text repeats the input and adds links.

    Args:
        error: any exception; one with pydantic's ``errors()`` is asked for its parts.
        path: the place of the value that was validated.
    """
    if isinstance(error, Mismatch):
        return error.problems
    listed = getattr(error, "errors", None)
    try:
        return [_line(problem, path) for problem in listed()] if callable(listed) else []
    except (AttributeError, KeyError, TypeError):  # an errors() of another library
        return []


def can_be_mended(error: BaseException) -> bool:
    """Return whether another answer may be better: the error is about this one, and not about the program."""
    if isinstance(error, Reask):
        return True
    # Some errors of requests, for instance, are ValueErrors as well: they are about a connection or a file.
    is_of_others = isinstance(error, (ChatPoolError, OSError)) or any(
        kind.__name__ in _OF_DATABASES for kind in type(error).__mro__
    )
    return isinstance(error, ABOUT_ANSWERS) and not is_of_others


def mismatch_of(error: Exception, path: str) -> Mismatch:
    """Return the error of a check in the caller's class, with the place of the value that it checked."""
    text, kind = str(error), type(error).__name__
    if not text:
        text = kind
    elif not isinstance(error, (ValueError, AssertionError)):  # the text of a KeyError is only a name
        text = f"{kind}: {text}"
    return Mismatch(problems_of(error, path) or [f"{path}: {text}" if path else text])


def _line(problem: Any, path: str) -> str:
    place = path
    for step in problem["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    place = place.lstrip(".")
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
