"""The list of public names, for each of which `make docs` wants an anchor, has them all and no others."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs" / "_ext"


@pytest.fixture(scope="module")
def listed():
    spec = importlib.util.spec_from_file_location("public_names", EXTENSIONS / "public_names.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names(listed):
    return frozenset(listed.public_names())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("chatpool.ChatPool.chat", id="a method"),
        pytest.param("chatpool.ChatPool.azure", id="a class method"),
        pytest.param("chatpool.Timeout.connect", id="a field of a dataclass"),
        pytest.param("chatpool.Event.kind", id="a field of a NamedTuple"),
        pytest.param("chatpool.Outcome.history", id="a slot"),
        pytest.param("chatpool.Results.outcomes", id="an attribute that __init__ sets"),
        pytest.param("chatpool.Results.texts", id="a property"),
        pytest.param("chatpool.RateLimitError", id="an error, as programs import it"),
        pytest.param("chatpool.errors.RateLimitError.status_code", id="an attribute that is inherited"),
        pytest.param("chatpool.errors.LengthError.text", id="an attribute of a private base"),
        pytest.param("chatpool.testing.Drip.then", id="a default"),
        pytest.param("chatpool.prices.Price.of", id="a method of another module"),
        pytest.param("chatpool.batch.run", id="a function"),
    ],
)
def test_it_has(names, name):
    assert name in names


def test_nothing_private_or_of_python_is_in_it(names):
    parts = [part for name in names for part in name.split(".")]
    assert [part for part in parts if part.startswith("_")] == []
    assert "chatpool.Results.append" not in names
    assert "chatpool.errors.ChatPoolError.with_traceback" not in names


def test_every_module_with_names_that_the_package_exports_is_in_it(listed):
    package = sys.modules["chatpool"]
    homes = {getattr(package, name).__module__.split(".")[1] for name in package.__all__}
    reexported = {"answers", "config", "events", "types"}
    public = {home for home in homes if not home.startswith("_")}
    assert {f"chatpool.{home}" for home in public - reexported} <= set(listed.MODULES)


def test_what_a_class_has_from_each_base(listed):
    from chatpool.errors import APIError, APIStatusError, ChatPoolError, RateLimitError

    found = listed.inherited(RateLimitError)
    assert list(found) == [APIStatusError, APIError, ChatPoolError]
    assert "retry_after" in found[APIError]
    assert "copied" in found[ChatPoolError]


def test_a_method_that_the_page_leaves_out_counts_as_inherited(listed):
    from chatpool.testing import Delay, Step

    assert listed.inherited(Delay) == {}
    assert listed.inherited(Delay, ["actions"]) == {Step: ["actions"]}


def test_a_generated_init_is_not_read(listed):
    @dataclass
    class Point:
        x: int

    assert listed.own_members(Point) == ["x"]
