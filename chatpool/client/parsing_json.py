"""JSON in the text of an answer."""

from __future__ import annotations

import json
import re
from typing import Any, List

__all__ = ["Mismatch", "json_in", "problems_of", "shown", "unfenced"]

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*(\w*)\s*$")

_LONGEST_SHOWN = 60  # characters of a value


class Mismatch(ValueError):
    """A value is not what was asked for.

    Attributes:
        problems: one line for each thing that is wrong, each with its place.
    """

    def __init__(self, problems: List[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def unfenced(text: str) -> str:
    """What stands in a text's only fence (a line of three backticks before and after); the text without one.

    Fences are Markdown's (https://spec.commonmark.org/0.31.2/#fenced-code-blocks), with at most a word behind them.
    """
    blocks: List[List[str]] = []
    opened = ""
    for line in text.split("\n") if "```" in text or "~~~" in text else ():
        fence = _FENCE.match(line)
        if fence and not opened:
            opened = fence[1]
            blocks.append([])
        elif fence and fence[1].startswith(opened) and not fence[2]:
            opened = ""
        elif opened:
            blocks[-1].append(line)
    return "\n".join(blocks[0]) if len(blocks) == 1 and not opened else text


def json_in(text: str) -> Any:
    """The JSON value that a text is, or that stands in its only fence.

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
    """A JSON value in a few words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def problems_of(error: Exception, path: str = "") -> List[str]:
    """What a validation error says, one line for each place; pydantic's own text repeats the input and adds links.

    Args:
        error: any exception; one with pydantic's ``errors()`` is asked for its parts.
        path: the place of the value that was validated.
    """
    if isinstance(error, Mismatch):
        return error.problems
    listed = getattr(error, "errors", None)
    try:
        return [_line(each, path) for each in listed()] if callable(listed) else []
    except (AttributeError, KeyError, TypeError):  # somebody else's errors()
        return []


def _line(problem: Any, path: str) -> str:
    place = path
    for step in problem["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    place = place.lstrip(".")
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
