"""From a pool's arguments and the environment to its transport settings."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, Optional
from urllib.parse import urlsplit

import requests

from ..config import Budget, Limits, positive_int
from ..errors import ConfigurationError
from ..redaction import secret
from ..transport import Key, KeyAuth, TransportSettings, check_headers
from .credentials import is_credential

__all__ = ["azure_settings", "check_pacing", "openai_settings", "plain_settings"]

PUBLIC_URL = "https://api.openai.com/v1"


def openai_settings(
    api_key: Key,
    base_url: Optional[str],
    organization: Optional[str],
    project: Optional[str],
    headers: Optional[Mapping[str, str]],
    **connection: Any,
) -> TransportSettings:
    """Settings for OpenAI or a compatible server; what is None is taken from OpenAI's environment variables.

    Raises:
        ConfigurationError: there is no key, and the server is OpenAI's own.
    """
    base_url = base_url or os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL
    key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY") or None
    if key is None and urlsplit(base_url).hostname == urlsplit(PUBLIC_URL).hostname:
        raise ConfigurationError(
            "api_key is missing: pass api_key=, set the environment variable OPENAI_API_KEY, "
            "or name another server with base_url="
        )
    sent: Dict[str, Optional[str]] = {}
    for name, given, variable in (("organization", organization, "ORG_ID"), ("project", project, "PROJECT_ID")):
        header = {f"OpenAI-{name.title()}": given or os.environ.get(f"OPENAI_{variable}")}
        check_headers(name if given else f"OPENAI_{variable}", header)
        sent.update(header)
    return _settings(base_url, KeyAuth(key), {**_named(sent), **_headers(headers)}, **connection)


def plain_settings(
    base_url: str, api_key: Key, headers: Optional[Mapping[str, str]], **connection: Any
) -> TransportSettings:
    """Settings for a server that the environment says nothing about."""
    return _settings(base_url, KeyAuth(api_key), _headers(headers), **connection)


def azure_settings(
    endpoint: Optional[str],
    deployment: Optional[str],
    api_key: Key,
    azure_ad_token_provider: Optional[Callable[[], str]],
    api_version: Optional[str],
    query: Optional[Mapping[str, str]],
    **connection: Any,
) -> TransportSettings:
    """Settings for an Azure OpenAI resource; what is None is taken from Azure's environment variables.

    Without a deployment the resource's ``/openai/v1/`` API is used, in which the model of a request names the
    deployment, and which takes no version with a date: the one in the environment is not for it.

    Raises:
        ConfigurationError: the endpoint or the key is missing, or a deployment comes without a version.
        TypeError: ``azure_ad_token_provider`` is no function.
    """
    endpoint = endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT")
    if not endpoint:
        raise ConfigurationError("endpoint is missing: pass it, or set AZURE_OPENAI_ENDPOINT")
    auth = _azure_auth(api_key, azure_ad_token_provider)
    base, version = endpoint.rstrip("/"), api_version
    if deployment is None:
        base_url = base if base.endswith("/openai/v1") else f"{base}/openai/v1"
    else:
        version = version or os.environ.get("OPENAI_API_VERSION")
        if not version:
            raise ConfigurationError("api_version is missing: a deployment needs one, for instance '2024-10-21'")
        base_url = f"{base}/openai/deployments/{deployment}"
    query = {**_named({"api-version": version}), **_mapping("query", query)}
    headers = _headers(connection.pop("headers", None))
    return _settings(base_url, auth, headers, query=query, **connection)


def _azure_auth(api_key: Key, token_provider: Optional[Callable[[], str]]) -> KeyAuth:
    """A key goes into a header of Azure's own, a token of Entra ID where OpenAI's keys go."""
    if token_provider is not None:
        if not callable(token_provider):
            raise TypeError("azure_ad_token_provider must be a function that returns a token")
        if api_key is not None:
            raise ConfigurationError("api_key and azure_ad_token_provider are two ways to sign in: pass one of them")
        return KeyAuth(token_provider)
    key = api_key if api_key is not None else os.environ.get("AZURE_OPENAI_API_KEY") or None
    if key is None:
        raise ConfigurationError(
            "api_key is missing: pass api_key= or azure_ad_token_provider=, or set AZURE_OPENAI_API_KEY"
        )
    return KeyAuth(key, header="api-key", prefix="")


def check_pacing(limits: Any, budget: Any, model: Optional[str]) -> None:
    """Refuse what cannot be a pool's limits or budget.

    Raises:
        TypeError: a value of a wrong type.
        ConfigurationError: the budget limits the cost, and has no price for the pool's model.
    """
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits must be a chatpool.Limits, got {limits!r}")
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget must be a chatpool.Budget, got {budget!r}")
    if budget is None or budget.cost is None or model is None:
        return
    if budget.prices.of_model(model) is None:
        raise ConfigurationError(f"Budget(cost=) has no price for the pool's model {model!r}: add it to prices=")


def _settings(
    base_url: str, auth: KeyAuth, headers: Mapping[str, str], *, max_workers: Any, max_response_bytes: Any, **rest: Any
) -> TransportSettings:
    session = rest.get("session")
    if session is not None and not isinstance(session, requests.Session):
        raise TypeError(f"session must be a requests.Session, got {session!r}")
    if session is not None:
        check_headers("session.headers", session.headers)
    for name, value in [*headers.items(), *(session.headers.items() if session is not None else ())]:
        if value is not None and is_credential(name):
            auth.hide(value.decode("latin-1") if isinstance(value, bytes) else value)
    return TransportSettings(
        base_url,
        auth,
        max_workers=positive_int("max_workers", max_workers),
        headers=headers,
        max_response_bytes=positive_int("max_response_bytes", max_response_bytes),
        query=secret(_mapping("query", rest.pop("query", None))),
        proxies=secret(rest.pop("proxies", None)),
        **rest,
    )


def _headers(value: Any) -> Dict[str, str]:
    headers = _mapping("headers", value)
    check_headers("headers", headers)
    return secret(headers)


def _mapping(name: str, value: Any) -> Dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of str to str, got {type(value).__name__}")
    return dict(value)


def _named(headers: Mapping[str, Optional[str]]) -> Dict[str, str]:
    return {name: value for name, value in headers.items() if value}
