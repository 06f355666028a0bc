"""System checks of ``CHATPOOL`` (tag ``chatpool``).  Nothing is opened, and no message has a key in it."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Iterator, List, Optional
from urllib.parse import urlsplit

from django.core import checks
from django.core.checks import CheckMessage, Error, register

from ... import ChatPool, Endpoint, Limits, Timeout
from .conf import (
    DEFAULT_ALIAS,
    InvalidPathError,
    InvalidPoolError,
    PoolSettings,
    UnknownKeyError,
    all_settings,
    pool_settings,
    valid_settings,
)

__all__ = ["check_deployment", "check_settings"]

_TAG = "chatpool"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@register(_TAG)
def check_settings(**_: Any) -> List[CheckMessage]:
    """E001 to E005: settings with which a pool could not be made, or not used."""
    try:
        aliases = list(all_settings())
    except InvalidPoolError as error:
        return [Error(str(error), id="chatpool.E001")]
    messages = [message for message in map(_problem, aliases) if message is not None]
    if aliases and DEFAULT_ALIAS not in aliases:
        hint = f"Name one of {', '.join(map(repr, aliases))} so, or add one: chatpool.contrib.django.pool is that pool."
        messages.append(Error(f"CHATPOOL has no alias {DEFAULT_ALIAS!r}.", hint=hint, id="chatpool.E005"))
    return messages


def _problem(alias: str) -> Optional[CheckMessage]:
    try:
        _try_out(pool_settings(alias))
    except UnknownKeyError as error:
        return Error(str(error), id="chatpool.E002")
    except InvalidPathError as error:
        return Error(str(error), id="chatpool.E004")
    except InvalidPoolError as error:
        return Error(str(error), id="chatpool.E003")
    except (TypeError, ValueError) as error:
        return Error(f"CHATPOOL[{alias!r}]: {error}", id="chatpool.E003")
    return None


def _try_out(settings: PoolSettings) -> None:
    """Make the pool with a key that is none, and end it: it has no thread and no socket before its first call.

    Raises:
        TypeError, ValueError: a value that a pool refuses.
    """
    make: Callable[..., ChatPool] = ChatPool.azure
    options = dict(settings.options)
    if settings.backend != ChatPool.azure:
        make, known = ChatPool, inspect.signature(ChatPool).parameters
        options = {name: value for name, value in options.items() if name in known}
    if "endpoints" not in options and "auth" not in options and not options.get("azure_ad_token_provider"):
        options["api_key"] = "checked"  # the real one may be missing where checks run
    make(**options).abort()


@register(_TAG, deploy=True)
def check_deployment(**_: Any) -> List[CheckMessage]:
    """W001, W002, W004: settings that work, and are seldom meant so in production."""
    messages: List[CheckMessage] = []
    for alias in valid_settings():
        try:
            options = pool_settings(alias).options
        except InvalidPoolError:  # check_settings says so
            continue
        messages += _deployment_problems(alias, options)
    return messages


def _deployment_problems(alias: str, options: Dict[str, Any]) -> Iterator[CheckMessage]:
    timeout, limits = options.get("timeout"), options.get("limits")
    default = Timeout().total
    if not isinstance(timeout, Timeout) or timeout.total >= default:
        text = f"CHATPOOL[{alias!r}] has no TIMEOUT with a total: a visitor may wait {default / 60:.0f} minutes."
        yield checks.Warning(text, hint="'TIMEOUT': {'total': 3}, for instance.", id="chatpool.W001")
    if isinstance(limits, Limits) and limits.scope is None:
        text = f"CHATPOOL[{alias!r}] has LIMITS without a scope: each process of the site may send that much."
        hint = "'scope': 'our-account' shares them on one host, 'redis://host/our-account' between hosts."
        yield checks.Warning(text, hint=hint, id="chatpool.W002")
    for url in _urls(options):
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and _has_key(options):
            text = f"CHATPOOL[{alias!r}] sends its key unencrypted, to http://{parts.hostname}."
            yield checks.Warning(text, hint="Use https.", id="chatpool.W004")


def _urls(options: Dict[str, Any]) -> Iterator[str]:
    for name in ("base_url", "endpoint"):
        if isinstance(options.get(name), str):
            yield options[name]
    for endpoint in (*(options.get("endpoints") or ()), *(options.get("fallbacks") or ())):
        if isinstance(endpoint, Endpoint) and isinstance(endpoint.base_url, str):
            yield endpoint.base_url


def _has_key(options: Dict[str, Any]) -> bool:
    return bool(options.get("api_key") or options.get("endpoints") or options.get("azure_ad_token_provider"))
