"""``Endpoint``: one of several servers, or keys, of a pool; and headers and parameters that carry keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Dict, Optional, Union

from .._redaction import secret
from .._transport import Auth, Key, RequestAuth, check_headers, request_auth
from ..config import Limits
from ..errors import ConfigurationError

__all__ = ["Endpoint", "ModelNames", "is_credential", "refuse_credentials"]

_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


def is_credential(name: Any) -> bool:
    """Return whether a header or URL parameter of this name carries a key."""
    return str(name).lower() in _CREDENTIALS


def refuse_credentials(argument: str, values: Optional[Mapping[str, Any]]) -> None:
    """Refuse to pickle headers or parameters that carry a key.

    Args:
        argument: for the message.
        values: headers or parameters.

    Raises:
        ConfigurationError: one does.
    """
    credential = next((name for name in values or () if is_credential(name)), None)
    if credential is not None:
        raise ConfigurationError(
            f"{argument} has a key in it ({str(credential).lower()}), and keys are not pickled: pass api_key as a "
            "function that fetches it, or make the pool where it is used"
        )


ModelNames = Union[str, Mapping[str, str], None]


@dataclass(frozen=True, eq=False, init=False)
class Endpoint:
    """One server, or one key of a server, for ``ChatPool(endpoints=[...])``.

    Args:
        base_url: the API's root. Default: OPENAI_BASE_URL, else OpenAI's.
        api_key: the key, or a function that returns it. Default: OPENAI_API_KEY, but only for the server that
            OPENAI_BASE_URL names (or OpenAI's): no other gets to see it.
        name: what statistics, logs and errors call it. Default: ``base_url``, with ``#2`` behind the second one of the
            same.
        model: what the pool's model is called here: a str for all models, or a dict from the pool's names to those of
            this endpoint. Default: the same names.
        limits: what may be sent per minute to each model of this endpoint. Default: the pool's ``limits``.
        headers: extra HTTP headers of every request to it.
        query: extra URL parameters of every request to it.
        auth: what signs its requests, in the place of a key: as in :class:`ChatPool`.
        weight: how much it is preferred to the others, as a factor: 10 gets calls until an answer takes ten times as
            long as elsewhere. Default 1.

    A pickle of it has no key that was passed as a str.

    Raises:
        TypeError: a value of the wrong type.
        ConfigurationError: a value that cannot work.
    """

    base_url: Optional[str]
    api_key: Key = field(repr=False)
    name: Optional[str]
    model: ModelNames
    limits: Optional[Limits]
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    auth: Auth
    weight: float
    _azure_options: Optional[Mapping[str, Any]] = field(repr=False)
    _key_left_behind: bool = field(repr=False)
    _for_a_child: bool = field(repr=False)

    def __init__(
        self,
        base_url: Optional[str] = None,
        api_key: Key = None,
        *,
        name: Optional[str] = None,
        model: ModelNames = None,
        limits: Optional[Limits] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        auth: Auth = None,
        weight: float = 1.0,
    ) -> None:
        arguments = {"base_url": base_url, "api_key": secret(api_key), "name": name, "model": model, "limits": limits}
        _check(arguments)
        mappings = {"headers": _mapping("headers", headers), "query": _mapping("query", query)}
        self._fill({**_PRIVATE_DEFAULTS, **arguments, **mappings, "weight": _checked_weight(weight)})
        self._fill({"auth": request_auth(auth, "Endpoint: auth")})
        if auth is not None and api_key is not None:
            raise ConfigurationError("Endpoint: api_key and auth are two ways to sign in: pass one of them")

    @classmethod
    def azure(
        cls,
        endpoint: Optional[str] = None,
        deployment: Optional[str] = None,
        *,
        api_key: Key = None,
        azure_ad_token_provider: Optional[Callable[[], str]] = None,
        api_version: Optional[str] = None,
        **options: Any,
    ) -> Endpoint:
        """An Azure OpenAI resource.

        Args:
            endpoint: ``https://NAME.openai.azure.com``. Default: AZURE_OPENAI_ENDPOINT.
            deployment: the deployment that all calls go to. Without one, ``model`` (or the pool's model) names it.
            api_key: the resource's key, or a function. Default: AZURE_OPENAI_API_KEY, but only for the resource that
                AZURE_OPENAI_ENDPOINT names.
            azure_ad_token_provider, api_version: as in :meth:`ChatPool.azure`.
            options: ``name``, ``model``, ``limits``, ``headers``, ``query``, ``auth``, ``weight``, as for an Endpoint.
        """
        azure = {"deployment": deployment, "token_provider": azure_ad_token_provider, "version": api_version}
        return cls(endpoint, api_key, **options)._with(_azure_options=azure)

    def _fill(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _with(self, **changes: Any) -> Endpoint:
        other = Endpoint.__new__(Endpoint)
        other._fill({**self._values(), **changes})
        return other

    def _values(self) -> Dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _without_key(self) -> Endpoint:
        """Return the same without a key that is a plain str.

        Raises:
            ConfigurationError: there is a key in its headers or parameters.
        """
        refuse_credentials("headers= of an Endpoint", self.headers)
        refuse_credentials("query= of an Endpoint", self.query)
        return self._with(api_key=None, _key_left_behind=True) if isinstance(self.api_key, str) else self

    def _for_child(self, limits: Optional[Limits]) -> Endpoint:
        """Return the same for a child process of this one: pickled with its key, and with these limits."""
        auth = self.auth.for_child() if isinstance(self.auth, RequestAuth) else None
        return self._with(limits=limits, auth=auth, _for_a_child=True)

    def __reduce__(self) -> Any:
        pickled = self if self._for_a_child else self._without_key()
        return _restored, ({**pickled._values(), "_for_a_child": False},)


_PRIVATE_DEFAULTS = {"_azure_options": None, "_key_left_behind": False, "_for_a_child": False}


def _restored(values: Mapping[str, Any]) -> Endpoint:
    endpoint = Endpoint.__new__(Endpoint)
    endpoint._fill({"auth": None, **values})  # pickles of 0.1.0 lack it
    return endpoint


def _check(arguments: Mapping[str, Any]) -> None:
    for name in ("base_url", "name"):
        if arguments[name] is not None and not isinstance(arguments[name], str):
            raise TypeError(f"Endpoint: {name} must be a str, got {arguments[name]!r}")
    model, limits = arguments["model"], arguments["limits"]
    if model is not None and not isinstance(model, (str, Mapping)):
        raise TypeError(f"Endpoint: model must be a str, or a dict from the pool's names to its own, got {model!r}")
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"Endpoint: limits must be a chatpool.Limits, got {limits!r}")


def _mapping(name: str, value: Optional[Mapping[str, str]]) -> Mapping[str, str]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"Endpoint: {name} must be a dict of str to str, got {type(value).__name__}")
    if name == "headers":
        check_headers("Endpoint: headers", value or {})
    return secret(dict(value or {}))


def _checked_weight(weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(f"Endpoint: weight must be a number, got {weight!r}")
    if not 0 < weight < float("inf"):
        raise ConfigurationError(f"Endpoint: weight must be more than 0, got {weight!r}")
    return float(weight)
