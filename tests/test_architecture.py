"""The house: a room imports itself and strictly lower levels, lazy imports and those for types included.

The levels are those of the design: values, pure functions, transport, engine, client, batch, tools around it, and
what users start from.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path
from typing import Iterator, List, NamedTuple, Set

import pytest

PACKAGE = Path(__file__).parents[1] / "chatpool"

VALUES = {
    "answers",
    "clock",
    "config",
    "errors",
    "events",
    "locks",
    "measures",
    "prices",
    "redaction",
    "reentrancy",
    "types",
}

# What each room may import besides itself: other rooms, and packages that are not the standard library's.
ROOMS = {
    "answers": (VALUES, set()),
    "errors": (VALUES, set()),
    "types": (VALUES, set()),
    "config": (VALUES, {"tenacity"}),  # its names, in annotations
    "clock": (VALUES, set()),
    "events": (VALUES, set()),
    "locks": (VALUES, set()),
    "measures": (VALUES, set()),
    "prices": (VALUES, set()),
    "redaction": (VALUES, set()),
    "reentrancy": (VALUES, set()),
    "wire": (VALUES, {"orjson", "requests", "urllib3"}),  # exceptions to be named, and a faster encoder
    "policy": (VALUES, {"tenacity"}),
    "transport": (VALUES | {"wire", "policy"}, {"requests", "urllib3"}),
    "quota": (VALUES, {"redis"}),
    "engine": (VALUES | {"wire", "policy", "transport", "quota"}, set()),
    "observe": (VALUES, {"tqdm"}),
    "journal": (VALUES, set()),
    # requests for a type: session=; pydantic for types that are its own
    "client": (
        VALUES | {"wire", "policy", "transport", "engine", "observe", "journal", "quota"},
        {"pydantic", "requests"},
    ),
    "__init__": (VALUES | {"client"}, set()),
    "batch": (VALUES | {"wire", "observe", "journal", "client"}, {"numpy", "openpyxl", "plotly", "pyarrow"}),
    "local": (VALUES, {"xllamacpp"}),
    "testing": (VALUES | {"client"}, {"pytest"}),
    "cli": (VALUES | {"__init__", "local", "batch", "client"}, set()),
}


class Import(NamedTuple):
    """One import: who, where, and the dotted name that is imported."""

    room: str
    place: str
    target: str


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].replace(".py", "")


def source_files() -> List[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import statement in the file, wherever it stands, with relative ones resolved."""
    package = ("chatpool", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(room_of(path), place, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield Import(room_of(path), place, f"{module}.{alias.name}")


@functools.cache
def all_imports() -> List[Import]:
    return [found for path in source_files() for found in imports_of(path)]


def imported_room(target: str) -> str:
    """The room that ``chatpool.x.y`` is in; a name of the package itself is its front door's."""
    parts = target.split(".")
    top = parts[1] if len(parts) > 1 else ""
    is_room = (PACKAGE / top).is_dir() or (PACKAGE / f"{top}.py").is_file()
    return top if top and is_room else "__init__"


def outside_packages(found: List[Import]) -> Set[str]:
    return {one.target.split(".")[0] for one in found} - {"chatpool", "__future__"}


def standard_library() -> Set[str]:
    if sys.version_info >= (3, 10):
        return set(sys.stdlib_module_names)
    known = Path(ast.__file__).parent
    names = {path.stem for path in known.iterdir()} | {
        path.name.split(".")[0] for path in (known / "lib-dynload").iterdir()
    }
    return names | set(sys.builtin_module_names) | {"fcntl", "msvcrt"}  # each is there on one platform only


def test_there_are_imports_to_look_at():
    found = {(one.room, one.target) for one in all_imports()}
    assert ("cli", "chatpool.ChatPool") in found  # relative, from the front door
    assert ("types", "chatpool.errors.ChatPoolError") in found
    assert ("local", "xllamacpp") in found  # lazy


def test_every_file_is_in_a_listed_room():
    assert {room_of(path) for path in source_files()} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_lower_ones(room):
    allowed = ROOMS[room][0] | {room}
    strays = [
        f"{one.place} imports {one.target}"
        for one in all_imports()
        if one.room == room and one.target.split(".")[0] == "chatpool" and imported_room(one.target) not in allowed
    ]
    assert not strays


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_packages_it_is_for(room):
    found = outside_packages([one for one in all_imports() if one.room == room])
    assert found - standard_library() <= ROOMS[room][1]


def test_the_order_of_the_rooms_has_no_circles():
    below = {room: (lower - VALUES if room not in VALUES else set()) - {room} for room, (lower, _) in ROOMS.items()}
    placed: Set[str] = set()
    while len(placed) < len(below):
        free = {room for room, lower in below.items() if room not in placed and lower <= placed | VALUES}
        assert free, f"a circle among {set(below) - placed}"
        placed |= free


def test_nothing_is_asynchronous():
    strays = [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await))
    ]
    assert not strays
    assert "asyncio" not in outside_packages(all_imports())
