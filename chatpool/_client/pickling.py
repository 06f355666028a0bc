"""Pickles of a pool: the recipe it was made by, without its key."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Mapping
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .connect import KEY_VARIABLES
from .endpoint import Endpoint, refuse_credentials
from .fallbacks import change_endpoints, limits_in
from .options import CallDefaults

if TYPE_CHECKING:
    from .pool import ChatPool

__all__ = ["PoolRecipe", "restore"]


@dataclass(frozen=True)
class PoolRecipe:
    """Arguments that a pool was made of, to make it again.

    Args:
        method: ``"azure"``, or "" for the constructor.
        arguments: of that method.
        key_left_behind: whether there was a key among them that is not here any more.
    """

    method: str
    arguments: Mapping[str, Any]
    key_left_behind: bool = False

    def without_key(self) -> PoolRecipe:
        """Return the same without a key that is a plain str.

        Raises:
            ConfigurationError: there is a password or a key in another place, or an ssl.SSLContext.
        """
        if isinstance(self.arguments.get("verify"), ssl.SSLContext):
            raise ConfigurationError(
                "verify= is an ssl.SSLContext, which cannot be pickled: pass the path of a CA file, or make the pool "
                "where it is used"
            )
        for limits in limits_in(self.arguments):
            scope = getattr(limits, "scope", None)
            if scope is not None and "://" in scope and urlsplit(scope).password:
                raise ConfigurationError(
                    "the URL of Limits(scope=) has a password in it, and passwords are not pickled: make the pool "
                    "where it is used"
                )
        _refuse_secrets(self.arguments)
        arguments = change_endpoints(self.arguments, Endpoint._without_key)
        if not isinstance(arguments.get("api_key"), str):
            return replace(self, arguments=arguments)
        return replace(self, arguments={**arguments, "api_key": None}, key_left_behind=True)


def _refuse_secrets(arguments: Mapping[str, Any]) -> None:
    session, proxies = arguments.get("session"), arguments.get("proxies")
    refuse_credentials("headers=", arguments.get("headers"))
    refuse_credentials("query=", arguments.get("query"))
    if session is not None:
        refuse_credentials("session=", {**session.headers, **({"authorization": ""} if session.auth else {})})
    for proxy in [*(proxies or {}).values(), *(session.proxies.values() if session is not None else ())]:
        if isinstance(proxy, str) and "@" in proxy:
            raise ConfigurationError(
                "the URL of a proxy has a password in it, and passwords are not pickled: set HTTPS_PROXY where the "
                "pool is used, or make the pool there"
            )


def restore(recipe: PoolRecipe, defaults: CallDefaults) -> ChatPool:
    """Make a pool again.

    Args:
        recipe: of the pool.
        defaults: of its calls.

    Raises:
        ConfigurationError: its key was left behind, and the environment has none.
    """
    from .pool import ChatPool

    variables = KEY_VARIABLES[recipe.method]
    if recipe.key_left_behind and not any(map(os.environ.get, variables)):
        raise ConfigurationError(
            f"api_key was passed as a str, and keys are not pickled: set {variables[0]} where the pool is "
            "unpickled, or pass api_key as a function that fetches it"
        )
    make = ChatPool.azure if recipe.method == "azure" else ChatPool
    pool = make(**recipe.arguments)
    pool._defaults = defaults
    return pool
