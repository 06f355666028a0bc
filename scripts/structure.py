#!/usr/bin/env python3
"""Print the figures of the package's structure; ``docs/reference/architecture.md`` shows them.

::

    python scripts/structure.py            # of the package beside this script
    python scripts/structure.py CHECKOUT   # of another checkout, with the packages of this interpreter

Needs what chatpool needs.  One call is made, to a FakeServer on loopback.
"""

from __future__ import annotations

import ast
import collections
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Set, Tuple

LONG_LINES = 40  # lines of a function's body, its docstring aside

# Run with the checkout as its working directory.
COUNT_IMPORTED = "import sys, chatpool; print(sum(name.split('.')[0] == 'chatpool' for name in sys.modules))"
TRACE_CHAT = """
import sys, threading
from chatpool import ChatPool
from chatpool.testing import FakeServer
files, calls = set(), [0]

def count(frame, event, argument):
    name = frame.f_code.co_filename.replace("\\\\", "/")
    if event == "call" and "/chatpool/" in name and "/chatpool/testing/" not in name:
        files.add(name)
        calls[0] += 1

with FakeServer() as server:
    with ChatPool(base_url=server.base_url, api_key="k", model="m", max_workers=1) as pool:
        pool.chat("first")  # imports, threads and connections are made
        threading.setprofile(count)
        pool2 = ChatPool(base_url=server.base_url, api_key="k", model="m", max_workers=1)
        with pool2:
            pool2.chat("second")
            files.clear()
            calls[0] = 0
            sys.setprofile(count)
            pool2.chat("third")
            sys.setprofile(None)
            print(len(files), calls[0])
"""


def sources(package: Path) -> Dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def trees(package: Path) -> Dict[str, ast.Module]:
    """Every module's syntax tree by its dotted name."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in sources(package).items()}


def _imported(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    """Import statements that run with the module: neither inside a function nor for types only."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield node


def imports(package: Path) -> Dict[str, Set[str]]:
    """The modules of the package that each of its modules needs to be imported first."""
    known, found = sources(package), {}
    for name, tree in trees(package).items():
        base = name.split(".") if known[name].name == "__init__.py" else name.split(".")[:-1]
        needed = set()
        for node in _imported(tree):
            above = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            needed |= {full if (full := f"{module}.{alias.name}") in known else module for alias in node.names}
        found[name] = {each for each in needed if each in known and each != name}
    return found


def circles(package: Path) -> List[Set[str]]:
    """Groups of modules that need one another, however indirectly."""
    direct = imports(package)
    reached = {name: _reachable(name, direct) for name in direct}
    groups: List[Set[str]] = []
    for name in direct:
        group = {other for other in reached[name] if name in reached[other]}
        if group and group not in groups:
            groups.append(group)
    return groups


def _reachable(name: str, direct: Mapping[str, Set[str]]) -> Set[str]:
    seen: Set[str] = set()
    left = list(direct[name])
    while left:
        each = left.pop()
        if each not in seen:
            seen.add(each)
            left += direct[each]
    return seen


def definitions(package: Path) -> Dict[str, List[str]]:
    """The modules in which each public class or function is defined."""
    found: Dict[str, List[str]] = collections.defaultdict(list)
    for name, tree in trees(package).items():
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                found[node.name].append(name)
    return found


def long_functions(package: Path) -> List[Tuple[str, int]]:
    """Functions whose body has more than LONG_LINES lines, its docstring aside."""
    found = []
    for name, tree in trees(package).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1
                if length > LONG_LINES:
                    found.append((f"{name}.{node.name}", length))
    return found


def _printed(program: str, checkout: Path) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


def figures(checkout: Path) -> Dict[str, str]:
    """Each figure by what it is."""
    package = checkout / "chatpool"
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in sources(package).items()}
    largest = max(lengths, key=lambda name: lengths[name])
    stems = collections.Counter(path.stem for path in sources(package).values() if not path.stem.startswith("__"))
    files, calls = _printed(TRACE_CHAT, checkout).split()
    return {
        "files": str(len(lengths)),
        "lines": f"{sum(lengths.values()):,}",
        "median file, lines": f"{statistics.median(lengths.values()):.0f}",
        "largest file, lines": f"{lengths[largest]} (`{largest}`)",
        f"functions of more than {LONG_LINES} lines": str(len(long_functions(package))),
        "import circles": str(len(circles(package))),
        "public names that are defined twice": str(sum(len(where) > 1 for where in definitions(package).values())),
        "file names in several folders": str(sum(count > 1 for count in stems.values())),
        "modules of `import chatpool`": _printed(COUNT_IMPORTED, checkout),
        "files that one `pool.chat` passes": files,
        "calls that it makes": calls,
    }


def main() -> None:
    """Print a table."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, value in figures(checkout.resolve()).items():
        print(f"{name:42} {value}")


if __name__ == "__main__":
    main()
