"""The package table of the architecture page is that of the source, and its three rules hold.

Import statements inside functions and for type checkers count like any other.
"""

from __future__ import annotations

import ast
import collections
import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Set, Tuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "chatpool"
PAGE = (ROOT / "docs" / "reference" / "architecture.md").read_text(encoding="utf-8")


def structure_script() -> Any:
    spec = importlib.util.spec_from_file_location("structure", ROOT / "scripts" / "structure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


structure = structure_script()


# -- the page ------------------------------------------------------------------------------------------------------


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def table_rows(title: str) -> List[List[str]]:
    """The cells of the only table of a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


class Package(NamedTuple):
    """A row of the package table; ``imports`` are names of packages on lower layers, those of layer 0 aside."""

    layer: int
    imports: FrozenSet[str]
    third_party: FrozenSet[str]


def package_table() -> Dict[str, Package]:
    """The rows by package name: that of a folder, or of a module without its suffix."""
    rows = {}
    for layer, name, _, imports, third_party in table_rows("Packages"):
        names = frozenset(re.findall(r"`(\w+)`", imports))
        rows[re.sub(r"\.py|[`/]", "", name)] = Package(int(layer), names, frozenset(third_party.split()))
    return rows


PACKAGES = package_table()
VALUES = {name for name, row in PACKAGES.items() if row.layer == 0}
ASYNCHRONOUS_NODES = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)


# -- the source ----------------------------------------------------------------------------------------------------


class Import(NamedTuple):
    """An imported dotted name, with the package that imports it and the line."""

    package: str
    place: str
    target: str


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].replace(".py", "")


class Source(NamedTuple):
    """What the tests ask about a file; its syntax tree, some ten thousand objects, is not kept."""

    imports: List[Import]
    strings: FrozenSet[str]  # literals, docstrings aside
    statuses: FrozenSet[int]
    defined: FrozenSet[str]  # at the top, and methods as ``Class.method``
    is_asynchronous: bool
    raised: List[Tuple[int, str]]  # (line, message) of each error


@functools.cache
def sources() -> Dict[str, Source]:
    """Each file of the package by its path below it."""
    return {path.relative_to(PACKAGE).as_posix(): read_source(path) for path in sorted(PACKAGE.rglob("*.py"))}


def read_source(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    file = path.relative_to(PACKAGE).as_posix()
    return Source(
        imports=list(imports_of(file, nodes)),
        strings=frozenset(strings_in(nodes)),
        statuses=frozenset(statuses_in(file, nodes, text.splitlines())),
        defined=frozenset(defined_in(tree)),
        is_asynchronous=any(isinstance(node, ASYNCHRONOUS_NODES) for node in nodes),
        raised=[(node.lineno, text_of(node.exc.args[0])) for node in nodes if is_raise_with_message(node)],
    )


def imports_of(file: str, nodes: List[ast.AST]) -> Iterator[Import]:
    """Every import statement in the file, wherever it stands, with relative ones resolved."""
    path = PACKAGE / file
    package = ("chatpool", *path.relative_to(PACKAGE).parent.parts)
    for node in nodes:
        place = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(package_of(path), place, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield Import(package_of(path), place, f"{module}.{alias.name}")


def strings_in(nodes: List[ast.AST]) -> Iterator[str]:
    docstrings = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def statuses_in(file: str, nodes: List[ast.AST], lines: List[str]) -> Iterator[int]:
    """Numbers that are statuses: 400 to 599 wherever they stand, 200 to 399 where something near says status."""
    for node in nodes:
        if isinstance(node, ast.Constant) and type(node.value) is int and 200 <= node.value <= 599:
            line = lines[node.lineno - 1]
            is_octal = line[node.col_offset :].startswith("0o")  # the mode of a file
            is_near = re.search(r"status|http|refused|see_other|followed", line.lower())
            is_ok = "ResultLine(" in line  # its third field is a status
            if not is_octal and (file, node.value) not in OTHER_NUMBERS and (node.value >= 400 or is_near or is_ok):
                yield node.value


def defined_in(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef))


def is_raise_with_message(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and bool(node.exc.args)


def text_of(node: ast.AST) -> str:
    """What a message says, with ``{}`` for its values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{}"
    return " ".join(map(text_of, ast.iter_child_nodes(node)))


def all_imports() -> List[Import]:
    return [imported for source in sources().values() for imported in source.imports]


def imported_package(target: str) -> str:
    """The package that ``chatpool.x.y`` is in; a public name of ``chatpool`` itself is in ``__init__``."""
    parts = target.split(".")
    name = parts[1] if len(parts) > 1 else ""
    is_package = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
    return name if name and is_package else "__init__"


def third_party(imports: List[Import]) -> Set[str]:
    return {imported.target.split(".")[0] for imported in imports} - {"chatpool", "__future__"} - standard_library()


@functools.cache
def standard_library() -> Set[str]:
    if sys.version_info >= (3, 10):
        return set(sys.stdlib_module_names)
    folder = Path(ast.__file__).parent
    names = {path.stem for path in folder.iterdir()} | {
        path.name.split(".")[0] for path in (folder / "lib-dynload").iterdir()
    }
    return names | set(sys.builtin_module_names) | {"fcntl", "msvcrt"}  # each is there on one platform only


# -- packages ------------------------------------------------------------------------------------------------------


def test_there_are_imports_to_look_at():
    imports = {(imported.package, imported.target) for imported in all_imports()}
    assert ("cli", "chatpool.ChatPool") in imports  # relative, of a public name
    assert ("types", "chatpool.errors.ChatPoolError") in imports
    assert ("local", "xllamacpp") in imports  # inside a function


def test_the_table_names_every_package_and_no_other():
    on_disk = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert {f"{name}/" for name in on_disk} | {path.name for path in PACKAGE.glob("*.py")} == {
        row[1].strip("`") for row in table_rows("Packages")
    }


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_imports_what_its_row_says(name):
    row = PACKAGES[name]
    places = collections.defaultdict(list)
    for imported in all_imports():
        if imported.package == name and imported.target.split(".")[0] == "chatpool":
            places[imported_package(imported.target)].append(f"{imported.place} imports {imported.target}")
    actual = set(places) - {name} - VALUES
    assert actual == row.imports, [places[other] for other in actual - row.imports]
    assert all(PACKAGES[other].layer < row.layer for other in row.imports)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_uses_the_third_party_packages_of_its_row(name):
    statements = third_party([imported for imported in all_imports() if imported.package == name])
    assert statements <= PACKAGES[name].third_party
    words = {
        word
        for file, source in sources().items()
        if package_of(PACKAGE / file) == name
        for text in source.strings
        for word in re.findall(r"\w+", text)
    }  # optional packages are imported by name, with importlib
    assert PACKAGES[name].third_party <= statements | words


def test_no_modules_import_one_another_in_a_circle():
    assert structure.circles(PACKAGE) == []


# Circles of which one import is inside a function or for type checkers only, so that importing works.
TOLERATED_CIRCLES: List[Tuple[Set[str], str]] = [
    (
        {"chatpool._client.pickling", "chatpool._client.pool"},
        "a pool pickles itself as its recipe, and the recipe makes a pool; the type only",
    ),
    (
        {"chatpool._reprs", "chatpool.types"},
        "outcomes, results and statistics show themselves by it; imported when asked for",
    ),
    (
        {"chatpool.batch.report", "chatpool.batch.report_html"},
        "the page is drawn of the report; imported when asked for",
    ),
]


def test_batch_runs_use_one_module_of_the_client():
    imported = {(one.place.partition(":")[0], one.target) for one in all_imports() if one.package == "batch"}
    strays = {
        found for found in imported if found[1].startswith("chatpool._client.") and ".batch_support." not in found[1]
    }
    assert strays == set()


def test_lazy_imports_and_those_for_types_make_no_other_circles():
    others = [circle for circle in structure.circles(PACKAGE, everywhere=True) if not is_tolerated(circle)]
    assert others == []


def is_tolerated(circle: Set[str]) -> bool:
    return any(circle <= names for names, _ in TOLERATED_CIRCLES)


# -- names ---------------------------------------------------------------------------------------------------------

# Public classes and functions that several modules define.
DOUBLE_NAMES = {
    "Command": "the name by which Django finds a command in its module",
    "collect": "_client/run.py: the outcomes of a run; chatpool.batch.collect is public: the answers of the Batch API",
    "main": "the entry point of a program: the command line, a worker process, the embedded model's process",
    "run": "chatpool.batch.run: a file; batch.shards.run: one of its parts; contrib.dask.run: all of them",
    "status": "chatpool.batch.status and batch.shards.status are public; _quota/: the state of a shared limit",
}

# File names that occur in several folders.
DOUBLE_FILES = {
    "model": "local/: the embedded model's file; testing/: the model behind the fake server. Both are public",
    "run": "_client/: a run; cli/: the command of that name",
    "shards": "batch/: shards; cli/: the command of that name",
    "server": "local/: the embedded server; testing/: the fake server. Both are public",
    "sse": "_wire/ reads server-sent events; testing/ writes them",
}


def test_no_public_name_is_defined_twice():
    double = {name: places for name, places in structure.definitions(PACKAGE).items() if len(places) > 1}
    assert set(double) <= set(DOUBLE_NAMES), double


def test_no_file_name_occurs_in_several_folders():
    double = {name: modules for name, modules in structure.file_names(PACKAGE).items() if len(modules) > 1}
    assert set(double) <= set(DOUBLE_FILES), double


# -- what only _wire/ knows ----------------------------------------------------------------------------------------

# The package itself; a fake server has to know the other side; the module that is only names.
KNOWING = ("_wire/", "testing/")

# Numbers that are HTTP statuses, by file, and why the file may name them.
STATUSES = {
    "errors.py": ({400, 401, 403, 404, 409, 422, 429, 500}, "the public error classes are named after statuses"),
    "_transport/body.py": ({300}, "HTTP: a body with another status is a text, whatever its content type"),
    "_transport/transport.py": (
        {200},
        "HTTP: keys are removed from other bodies than 200's",
    ),
    "_transport/urls.py": ({303, 307, 308}, "HTTP: redirects that are followed, RFC 9110"),
    "batch/jsonl.py": ({200, 300}, "the Batch API's files have a status_code for each row"),
    "batch/report.py": ({300}, "reads the same status_code from journals"),
    "contrib/prometheus.py": ({200}, "a label: an answer that came, and was of no use"),
}

# Numbers of three digits that are something else.
OTHER_NUMBERS = {
    ("_engine/upstreams.py", 500): "upstreams",
    ("_transport/http1.py", 512): "headers",
    ("_transport/urls.py", 443): "a port",
    ("batch/submission_service.py", 512): "characters",
    ("contrib/otel.py", 443): "a port",
}

# Header names, by file, and why the file may name them.  Those that frame a body are HTTP's, not the API's.
FRAMING = frozenset(
    {
        "accept-encoding",
        "content-encoding",
        "content-length",
        "content-type",
        "keep-alive",
        "location",
        "proxy-connection",
        "set-cookie",
        "transfer-encoding",
    }
)
HEADERS = {
    "_client/connect.py": ({"api-key", "openai-"}, "settings of OpenAI and Azure become headers of every request"),
    "_client/endpoint.py": (
        {"api-key", "authorization", "proxy-authorization", "x-api-key"},
        "headers of the user's that carry a key, so that it is neither shown nor pickled",
    ),
    "_client/pickling.py": ({"authorization"}, "as endpoint.py, for the auth= of a session"),
    "contrib/django/responses.py": (
        {"content-encoding", "retry-after", "x-accel-buffering"},
        "headers of the site's own responses, not of the API's",
    ),
    "_transport/auth.py": ({"authorization"}, "the key is put into this header unless the settings name another"),
}
HEADER_NAME = re.compile(
    r"x-(?!gzip|compress|chatpool)[a-z-]+|retry-after.*|ratelimit(-[a-z-]+)?|llm_provider-.*|openai-.*|(proxy-)?authorization"
    r"|api-key|" + "|".join(sorted(FRAMING))
)

# Field names of the API that occur nowhere else in ordinary English, by file, and why the file may name them.
FIELD_NAMES = frozenset(
    {
        "cached_tokens",
        "choices",
        "completion_tokens",
        "completion_tokens_details",
        "delta",
        "embedding",
        "finish_reason",
        "function_call",
        "include_usage",
        "input_tokens",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "output_tokens",
        "prompt_tokens",
        "prompt_tokens_details",
        "reasoning_content",
        "reasoning_tokens",
        "response_format",
        "stream_options",
        "system_fingerprint",
        "tool_calls",
        "total_tokens",
    }
)
FIELDS = {
    "_reprs.py": ({"messages"}, "the prompt of a request body, as a notebook shows it"),
    "answers.py": ({"finish_reason", "tool_calls"}, "the public attributes of that name, for repr() and to_dict()"),
    "types.py": ({"prompt_tokens", "completion_tokens"}, "the public columns of that name in Results.to_dicts()"),
    "_client/batch_support.py": ({"prompt_tokens"}, "a function of that name, in __all__"),
    "cli/shared_options.py": ({"messages"}, "a field that --param refuses, as the prompt comes from elsewhere"),
    "batch/jsonl.py": (
        {"embedding", "messages"},
        "the Batch API's files, whose fields are requests and answers",
    ),
    "batch/output_tables.py": (
        {"cached_tokens", "completion_tokens", "finish_reason", "prompt_tokens", "reasoning_tokens"},
        "columns of output tables, a format of chatpool's own",
    ),
    "batch/input_format.py": ({"messages"}, "columns of the user's input files"),
    "contrib/django/responses.py": ({"finish_reason"}, "a field of the events that browsers get"),
}


def others() -> Dict[str, Source]:
    """The files in which the API's names must not stand."""
    return {file: source for file, source in sources().items() if not file.startswith(KNOWING)}


def test_only_wire_knows_status_codes():
    stray = {file: source.statuses - STATUSES.get(file, (set(), ""))[0] for file, source in others().items()}
    assert {file: numbers for file, numbers in stray.items() if numbers} == {}
    assert {file for file, (numbers, _) in STATUSES.items() if not numbers <= others()[file].statuses} == set()


def headers_in(file: str, source: Source) -> Set[str]:
    names = {text.lower() for text in source.strings if HEADER_NAME.fullmatch(text.lower())}
    return names - FRAMING if file.startswith("_transport/") else names


def test_only_wire_knows_header_names():
    stray = {file: headers_in(file, source) - HEADERS.get(file, (set(), ""))[0] for file, source in others().items()}
    assert {file: names for file, names in stray.items() if names} == {}
    assert {file for file, (names, _) in HEADERS.items() if not names <= headers_in(file, others()[file])} == set()


def test_only_wire_knows_field_names_of_the_api():
    stray = {
        file: (FIELD_NAMES & source.strings) - FIELDS.get(file, (set(), ""))[0] for file, source in others().items()
    }
    assert {file: names for file, names in stray.items() if names} == {}
    assert {file for file, (names, _) in FIELDS.items() if not names <= others()[file].strings} == set()


def test_the_names_that_are_looked_for_are_those_that_wire_uses():
    wire = {file: source for file, source in sources().items() if file.startswith("_wire/")}
    assert {"retry-after", "x-should-retry"} <= {name for one in wire.items() for name in headers_in(*one)}
    assert {401, 404, 429, 500} <= {number for source in wire.values() for number in source.statuses}
    known = {"choices", "finish_reason", "messages", "tool_calls"}
    assert known <= {name for source in wire.values() for name in FIELD_NAMES & source.strings}


# -- the rest of the page ------------------------------------------------------------------------------------------


def test_every_path_on_the_page_exists():
    paths = {match.split(":")[0] for match in re.findall(r"`([\w/]+(?:\.py(?::[\w.]+)?|/))`", PAGE)}
    assert len(paths) > 50
    missing = {path for path in paths if not ((PACKAGE / path).exists() or (ROOT / path).exists())}
    assert missing == set()


def test_every_name_on_the_page_is_defined_where_it_says():
    names = re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)
    assert len(names) > 20
    assert [(file, name) for file, name in names if name not in sources()[file].defined] == []


def test_the_calls_of_the_diagram_are_methods_of_its_files():
    diagram = section("One call of `chat`").split("```")[1]
    head, calls = diagram.splitlines()[1:3], re.findall(r"(\w+)\(\)", diagram)
    folders, files = re.findall(r"_\w+/", head[0]), re.findall(r"\w+\.py", head[1])
    files.insert(folders.index("_wire/"), "classification.py")  # of _wire/ as a whole the one that has the call
    defined = {
        name.rpartition(".")[2] for folder, file in zip(folders, files) for name in sources()[f"{folder}{file}"].defined
    }
    assert len(folders) == len(files)
    assert len(set(calls)) >= 8
    assert set(calls) <= defined


def test_the_page_starts_with_ten_files_and_maps_the_usual_changes():
    assert PAGE.index("\n## Start here\n") == PAGE.index("\n## ")
    assert len(re.findall(r"^\d+\. `", section("Start here"), re.MULTILINE)) == 10
    assert len(table_rows("Where to change what")) >= 15


def test_no_other_page_has_a_table_of_packages():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "docs/reference/architecture.md" in text
    assert not re.search(r"^\|.*`_?(wire|policy|transport|engine)/?`", text, re.MULTILINE)


# -- other rules ---------------------------------------------------------------------------------------------------


# Files for event loops, and why they are.
ASYNCHRONOUS = {
    "contrib/asgi.py": "what ASGI servers iterate over",
    "contrib/django/middleware.py": "Django awaits it under ASGI",
}


def test_nothing_is_asynchronous():
    assert {file for file, source in sources().items() if source.is_asynchronous} == set(ASYNCHRONOUS)
    using_it = {one.place.partition(":")[0] for one in all_imports() if one.target.split(".")[0] == "asyncio"}
    assert using_it <= set(ASYNCHRONOUS)


# -- messages of errors: those of one kind read alike --------------------------------------------------------------

# About the form of a line in a file, which the message quotes elsewhere, or about what a file holds.
WITHOUT_GOT = ("a line that is a list", "a list must be", "it must be a JSON file", "it must be an object")


def messages() -> Iterator[Tuple[str, str]]:
    """(file and line, message) of each error that the package raises."""
    for file, source in sources().items():
        yield from ((f"{file}:{line}", message) for line, message in source.raised)


def test_there_are_messages_to_look_at():
    assert sum(" must be " in message for _, message in messages()) > 80


def test_what_must_be_something_else_says_what_it_is():
    """``X must be ..., got ...``: which parameter, what would be right, and what was passed."""
    stray = {
        place: message
        for place, message in messages()
        if " must be " in message and ", got " not in message and not any(words in message for words in WITHOUT_GOT)
    }
    assert stray == {}


def test_nothing_else_introduces_what_was_passed():
    other = re.compile(r"; got |\bbut got\b|, not \{\}$|\(got ")
    assert {place: message for place, message in messages() if other.search(message)} == {}


def test_an_unknown_keyword_is_told_in_pythons_words():
    other = re.compile(r"unknown keyword|has no keyword|no such keyword")
    assert {place: message for place, message in messages() if other.search(message)} == {}


def test_a_missing_package_is_told_with_what_installs_it():
    told = [message for _, message in messages() if "pip install" in message]
    assert len(told) >= 5
    assert [
        message for message in told if not re.search(r"needs [\w{}]+: pip install|to read it, pip install", message)
    ] == []
