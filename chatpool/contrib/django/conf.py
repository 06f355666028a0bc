"""The setting ``CHATPOOL``: from an alias to the backend that makes its pool, and that one's keywords."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, Callable, Dict, NamedTuple, Set

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ... import Budget, ChatPool, Endpoint, Limits, RetryPolicy, Timeout
from ..._redaction import secret

__all__ = [
    "DEFAULT_ALIAS",
    "InvalidPathError",
    "InvalidPoolError",
    "PoolSettings",
    "UnknownKeyError",
    "all_settings",
    "known_keys",
    "pool_settings",
    "valid_settings",
]

DEFAULT_ALIAS = "default"
_DEFAULT_BACKEND = "chatpool.contrib.django.backends.ChatPoolBackend"
_SETTING = "CHATPOOL"

# What a dict stands for.  Its own keys are those of the class, in small letters.
_CLASSES: Mapping[str, Callable[..., Any]] = {
    "timeout": Timeout,
    "retry": RetryPolicy,
    "limits": Limits,
    "budget": Budget,
}
_SECRETS = ("api_key", "headers", "query", "proxies")  # pages that show the variables of a frame show none of them
_HOOKS = ("after_call", "worker_idle", "worker_end")


class InvalidPoolError(ImproperlyConfigured):
    """``CHATPOOL`` has no such alias, or its settings cannot work; the message names alias and key."""


class UnknownKeyError(InvalidPoolError):
    """A key in ``CHATPOOL`` that no pool has."""


class InvalidPathError(InvalidPoolError):
    """A dotted path in ``CHATPOOL`` that cannot be imported."""


class PoolSettings(NamedTuple):
    """Settings of one alias.

    Attributes:
        alias: key in ``CHATPOOL``.
        backend: called with ``options`` makes the pool.
        options: keywords, dicts and dotted paths replaced by what they stand for.
    """

    alias: str
    backend: Callable[..., ChatPool]
    options: Dict[str, Any]


def all_settings() -> Mapping[str, Mapping[str, Any]]:
    """Return ``CHATPOOL``; without one there is a default pool, of what the environment says (OPENAI_API_KEY ...).

    Raises:
        InvalidPoolError: it is no dict of dicts.
    """
    found = getattr(settings, _SETTING, None)
    if found is None:
        return {DEFAULT_ALIAS: {}}
    if not isinstance(found, Mapping):
        raise InvalidPoolError(f"{_SETTING} must be a dict of aliases, got {type(found).__name__}")
    for alias, options in found.items():
        if not isinstance(alias, str) or not isinstance(options, Mapping):
            raise InvalidPoolError(
                f"{_SETTING}[{alias!r}] must be a dict of settings under an alias that is a str, "
                f"got {type(options).__name__}"
            )
    return found


def valid_settings() -> Mapping[str, Mapping[str, Any]]:
    """Return ``CHATPOOL``, empty if it is no dict of dicts: whoever uses a pool then hears of it."""
    try:
        return all_settings()
    except InvalidPoolError:
        return {}


def pool_settings(alias: str) -> PoolSettings:
    """Return the settings of ``alias``; nothing is made or opened.

    Raises:
        InvalidPoolError: there is no such alias, a key is not known, or a value cannot be what it stands for.
    """
    found = all_settings()
    if alias not in found:
        names = ", ".join(map(repr, found)) or "none"
        raise InvalidPoolError(f"{_SETTING} has no alias {alias!r}; it has {names}")
    options = dict(found[alias])
    backend = _imported(alias, "BACKEND", options.pop("BACKEND", _DEFAULT_BACKEND))
    _check_keys(f"{_SETTING}[{alias!r}]", options, known_keys(backend))
    return PoolSettings(alias, backend, {key.lower(): _value(alias, key, value) for key, value in options.items()})


def known_keys(backend: Callable[..., Any]) -> Set[str]:
    """Return the keys that an alias with this backend may have: the parameters of ChatPool, and the backend's own."""
    own = inspect.signature(backend).parameters.values()
    names = {parameter.name for parameter in own if parameter.kind is not parameter.VAR_KEYWORD}
    if len(names) < len(own):  # it passes on what it does not know
        names |= set(inspect.signature(ChatPool).parameters)
    return {"BACKEND", *(name.upper() for name in names)}


def _check_keys(place: str, options: Mapping[str, Any], known: Set[str]) -> None:
    for key in options:
        if key in known:
            continue
        spellings = str(key).upper(), str(key).lower()
        near = [name for spelling in spellings for name in difflib.get_close_matches(spelling, known, 1)]
        advice = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(sorted(known))}"
        raise UnknownKeyError(f"{place} has an unknown key {key!r}; {advice}")


def _value(alias: str, key: str, value: Any) -> Any:
    """Return what the value of a key stands for."""
    name = key.lower()
    if name in _CLASSES and isinstance(value, Mapping):
        return _made(alias, key, _CLASSES[name], value)
    if name == "endpoints" and isinstance(value, (list, tuple)):
        return [_made(alias, key, Endpoint, one) if isinstance(one, Mapping) else one for one in value]
    if name == "listeners" and isinstance(value, (list, tuple)):
        return [_imported(alias, key, one) for one in value]
    if name in _SECRETS:
        return secret(value)
    return _imported(alias, key, value) if name in _HOOKS else value


def _made(alias: str, key: str, cls: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    place = f"{_SETTING}[{alias!r}][{key!r}]"
    _check_keys(place, options, set(inspect.signature(cls).parameters))
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise InvalidPoolError(f"{place}: {error}") from error


def _imported(alias: str, key: str, value: Any) -> Any:
    """Return what a dotted path names; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise InvalidPathError(f"{_SETTING}[{alias!r}][{key!r}] cannot be imported: {error}") from error
