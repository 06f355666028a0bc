"""Names of everything public: what the reference has to have an anchor for."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from typing import Any, Collection, Dict, FrozenSet, Iterator, List, Mapping

# Packages and modules that programs import; what has no underscore in others is for chatpool itself.
MODULES = (
    *("chatpool", "chatpool.errors", "chatpool.batch", "chatpool.testing", "chatpool.local", "chatpool.prices"),
    *("chatpool.batch.shards", "chatpool.clock", "chatpool.contrib.asgi", "chatpool.contrib.django"),
)

_SET = re.compile(r"^\s+(?:self\.[\w.]+ = |)self\.([a-z]\w*)(?:: [^=\n]+)? = ", re.MULTILINE)


def public_names() -> Iterator[str]:
    """Full names of all public objects, and of the attributes of public classes, inherited ones included."""
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            yield f"{module}.{name}"
            value = getattr(importlib.import_module(module), name)
            if inspect.isclass(value) and not (module == "chatpool" and value.__module__ == "chatpool.errors"):
                yield from (f"{module}.{name}.{member}" for member in members(value))


@functools.cache
def public_classes() -> FrozenSet[type]:
    """All classes that programs can import."""
    modules = [importlib.import_module(module) for module in MODULES]
    values = [getattr(module, name) for module in modules for name in module.__all__]
    return frozenset(value for value in values if inspect.isclass(value))


def members(cls: type) -> List[str]:
    """Public attributes of a class, those of chatpool's bases included."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("chatpool")]
    return list(dict.fromkeys(name for base in bases for name in own_members(base)))


def own_members(cls: type) -> List[str]:
    """Public attributes that a class itself defines: methods, annotated ones, and what ``__init__`` sets."""
    # Python 3.14 makes them when they are asked for; 3.9 has no function for it.
    annotated = getattr(inspect, "get_annotations", _annotations)(cls)
    is_written = inspect.isfunction(vars(cls).get("__init__")) and vars(cls)["__init__"].__code__.co_filename[:1] != "<"
    instance = _SET.findall(inspect.getsource(vars(cls)["__init__"])) if is_written else []
    return list(dict.fromkeys(name for name in (*annotated, *instance, *vars(cls)) if not name.startswith("_")))


def _annotations(cls: type) -> Mapping[str, Any]:
    return vars(cls).get("__annotations__", {})


def _is_hidden(cls: type) -> bool:
    """Return whether a class is one of chatpool's that programs cannot import."""
    return cls.__module__.startswith("chatpool") and (cls.__name__.startswith("_") or cls not in public_classes())


def inherited(cls: type, hidden: Collection[str] = ()) -> Dict[type, List[str]]:
    """Public attributes that a class has from each of its public bases.

    Args:
        cls: the class.
        hidden: attributes of its own that its page leaves out, as they do what those of the base do.
    """
    found: Dict[type, List[str]] = {}
    seen = {name for name in own_members(cls) if name not in hidden and not isinstance(vars(cls).get(name), str)}
    for base in cls.__mro__[1:]:
        hidden_bases = [other for other in base.__mro__[1:] if _is_hidden(other)]  # documented with this class
        members_here = [name for each in (base, *hidden_bases) for name in own_members(each)]
        names = [name for name in dict.fromkeys(members_here) if name not in seen]
        if _is_hidden(base):
            seen.update(names)  # documented with the public class below it
        elif base.__module__.startswith("chatpool") and names:
            seen.update(names)
            found[base] = names
    return found
