"""The public names: exactly the documented ones, each with a docstring, none that costs at import."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool
import chatpool.local
import chatpool.testing

ERRORS = {
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "CacheMissError",
    "CallCancelledError",
    "ChatPoolError",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterError",
    "DayLimitError",
    "DeadlineExceededError",
    "Endpoint",
    "InsufficientQuotaError",
    "InternalServerError",
    "JournalBusyError",
    "JournalLostError",
    "LengthError",
    "NotFoundError",
    "ParseError",
    "PermissionDeniedError",
    "PoolClosedError",
    "RateLimitError",
    "Reask",
    "TooManyFailuresError",
    "TruncatedStreamError",
    "UnprocessableEntityError",
}
VALUES = {
    "Attachment",
    "Attempt",
    "Budget",
    "Cache",
    "ChatChunk",
    "Choice",
    "ChatCompletion",
    "ChatRequest",
    "Event",
    "Limits",
    "LineStats",
    "Outcome",
    "PoolStats",
    "Results",
    "RetryPolicy",
    "Timeout",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
}
CALLS = {
    "ChatPool",
    "ChatStream",
    "StoredFiles",
    "attach",
    "deadline",
    "json_schema",
    "map",
    "speech",
    "transcription",
    "translation",
}

PUBLIC_MODULES = [chatpool, chatpool.local, chatpool.testing]
PUBLIC_THINGS = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in PUBLIC_MODULES
    for name in module.__all__
    if callable(getattr(module, name))
]

ON_IMPORT = """
import json, socket, sys
def forbidden(*arguments):
    raise AssertionError("importing chatpool touched the network")
socket.socket.connect = socket.getaddrinfo = forbidden
import chatpool
print(json.dumps(sorted(sys.modules)))
"""


def test_the_package_exports_the_documented_names():
    assert set(chatpool.__all__) == ERRORS | VALUES | CALLS


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_exports_exist_and_are_listed_once(module):
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert inspect.getdoc(module)


@pytest.mark.parametrize("thing", PUBLIC_THINGS)
def test_what_is_public_has_a_docstring(thing):
    assert thing.__doc__
    members = [(name, value) for name, value in vars(thing).items() if not name.startswith("_")]
    routines = [name for name, value in members if inspect.isroutine(value) or isinstance(value, property)]
    assert not [name for name in routines if not inspect.getdoc(getattr(thing, name))]


def test_public_modules_do_not_export_by_accident():
    """Each module of values says itself what is public."""
    for name in ("answers", "errors", "types", "config", "clock", "events"):
        assert importlib.import_module(f"chatpool.{name}").__all__


@pytest.fixture(scope="module")
def modules_after_import():
    ended = subprocess.run(
        [sys.executable, "-c", ON_IMPORT],
        cwd=Path(chatpool.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout))


def test_importing_the_package_imports_no_more_than_calls_need(modules_after_import):
    assert "chatpool._client" in modules_after_import
    unwanted = {"pytest", "xllamacpp", "chatpool.testing", "chatpool.local", "chatpool.cli"}
    unwanted |= {"chatpool.batch", "chatpool._journal", "chatpool._structured.parse"}
    assert not unwanted & modules_after_import


def test_what_is_imported_when_it_is_used_is_listed_too():
    assert {"batch", "json_schema", *chatpool.__all__} <= set(dir(chatpool))


def test_the_version_is_a_release_number():
    assert [part.isdigit() for part in chatpool.__version__.split(".")] == [True] * 3
