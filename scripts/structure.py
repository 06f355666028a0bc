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
from typing import Dict, List, Mapping, Set, Tuple

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
    """Return the file of each module by the module's dotted name."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def trees(package: Path) -> Dict[str, ast.Module]:
    """Return the syntax tree of each module by the module's dotted name."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in sources(package).items()}


def imports(package: Path, *, everywhere: bool = False) -> Dict[str, Set[str]]:
    """Return the modules of the package that each of its modules imports.

    Args:
        package: its folder.
        everywhere: whether imports inside functions and for type checkers count as well, which do not run with the
            module.
    """
    files, imported = sources(package), {}
    for name, tree in trees(package).items():
        parent = name.split(".") if files[name].name == "__init__.py" else name.split(".")[:-1]
        targets = set()
        for node in ast.walk(tree) if everywhere else tree.body:
            if not isinstance(node, ast.ImportFrom):
                continue
            above = parent[: len(parent) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            targets |= {full if (full := f"{module}.{alias.name}") in files else module for alias in node.names}
        imported[name] = {target for target in targets if target in files and target != name}
    return imported


def circles(package: Path, *, everywhere: bool = False) -> List[Set[str]]:
    """Return the groups of modules that import one another, directly or through others."""
    direct = imports(package, everywhere=everywhere)
    reached = {name: _reachable(name, direct) for name in direct}
    groups: List[Set[str]] = []
    for name in direct:
        group = {other for other in reached[name] if name in reached[other]}
        if group and group not in groups:
            groups.append(group)
    return groups


def _reachable(name: str, direct: Mapping[str, Set[str]]) -> Set[str]:
    seen: Set[str] = set()
    pending = list(direct[name])
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending += direct[module]
    return seen


def definitions(package: Path) -> Dict[str, List[str]]:
    """Return the modules in which each public class or function is defined; its overloads are one definition."""
    modules: Dict[str, List[str]] = collections.defaultdict(list)
    for name, tree in trees(package).items():
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                is_overload = "overload" in map(ast.unparse, node.decorator_list)
                modules[node.name] += [] if is_overload else [name]
    return modules


def file_names(package: Path) -> Dict[str, List[str]]:
    """Return the modules whose files have the same name, by that name; ``__init__`` and ``__main__`` aside."""
    modules: Dict[str, List[str]] = collections.defaultdict(list)
    for name, path in sources(package).items():
        if not path.stem.startswith("__"):
            modules[path.stem].append(name)
    return modules


def long_functions(package: Path) -> List[Tuple[str, int]]:
    """Return the functions whose body has more than LONG_LINES lines, with their lengths; docstrings do not count."""
    functions = []
    for name, tree in trees(package).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                length = (node.end_lineno or 0) - body[0].lineno + 1
                if length > LONG_LINES:
                    functions.append((f"{name}.{node.name}", length))
    return functions


def _printed(program: str, checkout: Path) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


def figures(checkout: Path) -> Dict[str, str]:
    """Return each figure as a text, by its name."""
    package = checkout / "chatpool"
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in sources(package).items()}
    largest = max(lengths, key=lambda name: lengths[name])
    files, calls = _printed(TRACE_CHAT, checkout).split()
    return {
        "files": str(len(lengths)),
        "lines": f"{sum(lengths.values()):,}",
        "median file, lines": f"{statistics.median(lengths.values()):.0f}",
        "largest file, lines": f"{lengths[largest]} (`{largest}`)",
        f"functions of more than {LONG_LINES} lines": str(len(long_functions(package))),
        "import circles at import time": str(len(circles(package))),
        "the same, lazy imports and those for types included": str(len(circles(package, everywhere=True))),
        "public names that are defined twice": str(sum(len(names) > 1 for names in definitions(package).values())),
        "file names in several folders": str(sum(len(names) > 1 for names in file_names(package).values())),
        "modules of `import chatpool`": _printed(COUNT_IMPORTED, checkout),
        "files that one `pool.chat` passes through": files,
        "function calls of one `pool.chat`": calls,
    }


def main() -> None:
    """Print a table."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, value in figures(checkout.resolve()).items():
        print(f"{name:54} {value}")


if __name__ == "__main__":
    main()
