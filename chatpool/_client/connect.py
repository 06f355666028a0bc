"""From a pool's arguments and the environment to its endpoints, with everything filled in.

First the settings of one transport (OpenAI, Azure, a plain server), then the endpoints of a pool: its only one, or
those of ``endpoints=``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

import requests

from .._engine import EndpointSpec
from .._redaction import secret
from .._transport import Auth, Key, KeyAuth, TransportSettings, check_headers, normalise_base_url, request_auth
from ..config import Budget, Limits, positive_int
from ..errors import ConfigurationError
from .endpoint import Endpoint, is_credential

__all__ = [
    "KEY_VARIABLES",
    "PUBLIC_URL",
    "azure_settings",
    "check_pacing",
    "endpoint_spec",
    "endpoint_specs",
    "openai_settings",
    "standby_specs",
]


PUBLIC_URL = "https://api.openai.com/v1"

KEY_VARIABLES = {"": ("OPENAI_API_KEY",), "azure": ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")}
"""Environment variables that a key may come from, by the method that makes a pool."""


def openai_settings(
    api_key: Key,
    base_url: Optional[str],
    organization: Optional[str],
    project: Optional[str],
    headers: Optional[Mapping[str, str]],
    auth: Auth,
    **connection: Any,
) -> TransportSettings:
    """Return settings for OpenAI or a compatible server; OpenAI's environment variables stand in for None.

    Raises:
        ConfigurationError: there is no key, and the server is OpenAI's own.
    """
    base_url = base_url or os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL
    further_headers = environment_headers()
    signs_in = _given_auth(api_key, auth)
    if signs_in is None:
        signs_in = KeyAuth(os.environ.get("OPENAI_API_KEY") or None)
        if str(signs_in.header).lower() in map(str.lower, further_headers):
            signs_in = KeyAuth(None)  # the header goes before the key, as in OpenAI's client
        is_signed_in = signs_in.header is not None or any(map(is_credential, further_headers))
        if not is_signed_in and urlsplit(base_url).hostname == urlsplit(PUBLIC_URL).hostname:
            raise ConfigurationError(
                "api_key is missing: pass api_key=, set the environment variable OPENAI_API_KEY, "
                "or name another server with base_url="
            )
    own_headers: Dict[str, Optional[str]] = {}
    for name, value, variable in (("organization", organization, "ORG_ID"), ("project", project, "PROJECT_ID")):
        header = {f"OpenAI-{name.title()}": value or os.environ.get(f"OPENAI_{variable}")}
        check_headers(name if value else f"OPENAI_{variable}", header)
        own_headers.update(header)
    all_headers = _merged(_without_empty(own_headers), further_headers, _headers(headers))
    return _transport_settings(base_url, signs_in, all_headers, **connection)


def _given_auth(api_key: Key, auth: Auth) -> Optional[KeyAuth]:
    """Return what signs in by the arguments alone, None without any.

    Raises:
        ConfigurationError: there are both.
    """
    if auth is None:
        return None if api_key is None else KeyAuth(api_key)
    if api_key is not None:
        raise ConfigurationError("api_key and auth are two ways to sign in: pass one of them, or the key in headers=")
    return request_auth(auth)


def environment_headers() -> Dict[str, str]:
    """Return the headers in OPENAI_CUSTOM_HEADERS, read as OpenAI's client does: ``Name: value``, one a line.

    Raises:
        ConfigurationError: one cannot be sent; the message names the variable and does not show the value.
    """
    variable = "OPENAI_CUSTOM_HEADERS"
    lines = os.environ.get(variable, "").split("\n")
    pairs = [line.partition(":") for line in lines if ":" in line]
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    check_headers(variable, headers)
    return secret(headers)


def _merged(*all_headers: Mapping[str, Any]) -> Dict[str, Any]:
    """Return headers as one dict; of those of one name, in whatever case, the last one."""
    merged: Any = requests.structures.CaseInsensitiveDict()
    for headers in all_headers:
        merged.update(headers)
    return dict(merged)


def _plain_settings(
    base_url: str, api_key: Key, headers: Optional[Mapping[str, str]], auth: Auth, **connection: Any
) -> TransportSettings:
    """Return settings for a server that no environment variable is for."""
    signs_in = _given_auth(api_key, auth) or KeyAuth(None)
    return _transport_settings(base_url, signs_in, _headers(headers), **connection)


def azure_settings(
    endpoint: Optional[str],
    deployment: Optional[str],
    api_key: Key,
    azure_ad_token_provider: Optional[Callable[[], str]],
    api_version: Optional[str],
    query: Optional[Mapping[str, str]],
    *,
    uses_environment: bool = True,
    **connection: Any,
) -> TransportSettings:
    """Return settings for an Azure OpenAI resource; Azure's environment variables stand in for None.

    Without a deployment the resource's ``/openai/v1/`` API is used.  There the model of a request names the deployment,
    and a dated version is not taken: so the environment's is not used.

    Raises:
        ConfigurationError: the endpoint or the key is missing, or a deployment comes without a version.
        TypeError: ``azure_ad_token_provider`` is no function.
    """
    endpoint = endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT")
    if not endpoint:
        raise ConfigurationError("endpoint is missing: pass it, or set AZURE_OPENAI_ENDPOINT")
    auth = _azure_auth(api_key, azure_ad_token_provider, connection.pop("auth", None))
    base, version = endpoint.rstrip("/"), api_version
    if deployment is None:
        base_url = base if base.endswith("/openai/v1") else f"{base}/openai/v1"
    else:
        version = version or os.environ.get("OPENAI_API_VERSION")
        if not version:
            raise ConfigurationError("api_version is missing: a deployment needs one, for instance '2024-10-21'")
        base_url = f"{base}/openai/deployments/{deployment}"
    query = {**_without_empty({"api-version": version}), **_mapping("query", query)}
    further_headers = environment_headers() if uses_environment else {}
    headers = _merged(further_headers, _headers(connection.pop("headers", None)))
    return _transport_settings(base_url, auth, headers, query=query, **connection)


def _azure_auth(api_key: Key, token_provider: Optional[Callable[[], str]], auth: Auth) -> KeyAuth:
    """Return the auth: a key goes into Azure's ``api-key`` header, a token of Entra ID where OpenAI's keys go."""
    if token_provider is not None:
        if not callable(token_provider):
            raise TypeError(
                f"azure_ad_token_provider must be a function that returns a token, got {type(token_provider).__name__}"
            )
        for name, other in (("api_key", api_key), ("auth", auth)):
            if other is not None:
                raise ConfigurationError(
                    f"{name} and azure_ad_token_provider are two ways to sign in: pass one of them"
                )
        return KeyAuth(token_provider)
    given = _given_auth(api_key, auth)
    if auth is not None and given is not None:
        return given
    token = os.environ.get("AZURE_OPENAI_AD_TOKEN") or None
    if api_key is None and token is not None:  # as in OpenAI's client, it goes before a key in the environment
        return KeyAuth(token)
    key = api_key if api_key is not None else os.environ.get("AZURE_OPENAI_API_KEY") or None
    if key is None:
        raise ConfigurationError(
            "api_key is missing: pass api_key= or azure_ad_token_provider=, or set AZURE_OPENAI_API_KEY"
        )
    return KeyAuth(key, header="api-key", prefix="")


def check_pacing(limits: Any, budget: Any, model: Optional[str]) -> None:
    """Check a pool's limits and budget.

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


def _transport_settings(
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


def _without_empty(headers: Mapping[str, Optional[str]]) -> Dict[str, str]:
    return {name: value for name, value in headers.items() if value}


def endpoint_spec(settings: TransportSettings, limits: Optional[Limits]) -> EndpointSpec:
    """Return the only endpoint of a pool."""
    return _with_sharing(EndpointSpec(normalise_base_url(settings.base_url), limits, settings=settings))


def endpoint_specs(endpoints: Any, limits: Optional[Limits], connection: Mapping[str, Any]) -> List[EndpointSpec]:
    """Return the endpoints of a pool that was given several.

    Args:
        endpoints: the argument of the pool.
        limits: the pool's limits, for endpoints without limits.
        connection: the other arguments of the pool that concern its connections.

    Raises:
        TypeError: an item is no Endpoint.
        ConfigurationError: there is none, a name appears twice, a key is missing, or an argument of the pool would
            send a key to all of them.
    """
    checked = _checked_endpoints(endpoints)
    _check_connection(connection)
    common = {name: value for name, value in connection.items() if name not in ("api_key", "base_url", "auth")}
    specs: List[EndpointSpec] = []
    for endpoint, settings in [(endpoint, _endpoint_settings(endpoint, common)) for endpoint in checked]:
        name = _name(endpoint, settings, [spec.name for spec in specs])
        own = limits if endpoint.limits is None else endpoint.limits
        specs.append(_with_sharing(EndpointSpec(name, own, None, endpoint.weight, settings, endpoint.model)))
    return specs


def standby_specs(
    endpoints: Sequence[Endpoint], limits: Optional[Limits], connection: Mapping[str, Any], taken: Sequence[str]
) -> List[EndpointSpec]:
    """Return the endpoints that get fallbacks only.

    Args:
        endpoints: at least one.
        limits, connection: as for :func:`endpoint_specs`.
        taken: the names of the others.

    Raises:
        ConfigurationError: as for :func:`endpoint_specs`.
    """
    common = {name: value for name, value in connection.items() if name not in ("api_key", "base_url", "auth")}
    _refuse_common_key(common)
    specs: List[EndpointSpec] = []
    for endpoint in endpoints:
        settings = _endpoint_settings(endpoint, common)
        name = _name(endpoint, settings, [*taken, *(spec.name for spec in specs)])
        own = limits if endpoint.limits is None else endpoint.limits
        spec = EndpointSpec(name, own, None, endpoint.weight, settings, endpoint.model, is_standby=True)
        specs.append(_with_sharing(spec))
    return specs


def _with_sharing(spec: EndpointSpec) -> EndpointSpec:
    """Return the specification, completed with the sharing of its limits."""
    limits = spec.limits
    if limits is None or limits.scope is None:
        return spec
    from .._quota import Sharing  # most pools share nothing, and importing it takes time

    return spec._replace(sharing=Sharing.of(limits, limits.scope))


def _checked_endpoints(endpoints: Any) -> Sequence[Endpoint]:
    if isinstance(endpoints, (str, bytes, Endpoint)) or not isinstance(endpoints, Sequence):
        raise TypeError(f"endpoints must be a list of chatpool.Endpoint, got {type(endpoints).__name__}")
    for endpoint in endpoints:
        if not isinstance(endpoint, Endpoint):
            raise TypeError(f"endpoints must be a list of chatpool.Endpoint, got a {type(endpoint).__name__} in it")
    if not endpoints:
        raise ConfigurationError("endpoints must not be empty: leave it out, or list at least one Endpoint")
    return endpoints


def _check_connection(connection: Mapping[str, Any]) -> None:
    """Refuse arguments of a pool that would send a key to endpoints that it is not for."""
    for name in ("api_key", "base_url", "auth"):
        if connection.get(name) is not None:
            raise ConfigurationError(f"{name} and endpoints cannot be combined: pass {name} to an Endpoint")
    _refuse_common_key(connection)


def _refuse_common_key(connection: Mapping[str, Any]) -> None:
    session = connection.get("session")
    header_names = [*(connection.get("headers") or {}), *getattr(session, "headers", ())]
    if getattr(session, "auth", None) is not None or any(is_credential(name) for name in header_names):
        raise ConfigurationError(
            "a key in headers= or session= would go to all endpoints: pass each of them its api_key= or headers="
        )


def _name(endpoint: Endpoint, settings: TransportSettings, taken: Sequence[str]) -> str:
    if endpoint.name is not None:
        if endpoint.name in taken:
            raise ConfigurationError(f"two endpoints have the name {endpoint.name!r}: give each one of its own")
        return endpoint.name
    plain = name = normalise_base_url(settings.base_url)
    number = 1
    while name in taken:
        number += 1
        name = f"{plain}#{number}"
    return name


def _endpoint_settings(endpoint: Endpoint, common: Mapping[str, Any]) -> TransportSettings:
    uses_environment, key_variables = _environment_key(endpoint)
    has_key = uses_environment and any(map(os.environ.get, key_variables))
    _check_key(endpoint, uses_environment=uses_environment, has_key=has_key)
    rest: Dict[str, Any] = {**common, "query": {**(common.get("query") or {}), **endpoint.query}, "auth": endpoint.auth}
    headers = {**(rest.pop("headers", None) or {}), **endpoint.headers}
    organization, project = rest.pop("organization", None), rest.pop("project", None)
    options = endpoint._azure_options
    if options is not None:
        deployment, provider, version = options["deployment"], options["token_provider"], options["version"]
        key = endpoint.api_key
        rest.update(headers=headers, uses_environment=uses_environment)
        return azure_settings(endpoint.base_url, deployment, key, provider, version, **rest)
    if uses_environment:
        return openai_settings(endpoint.api_key, endpoint.base_url, organization, project, headers, **rest)
    return _plain_settings(str(endpoint.base_url), endpoint.api_key, headers, **rest)


def _check_key(endpoint: Endpoint, *, uses_environment: bool, has_key: bool) -> None:
    """Refuse an endpoint whose key did not come along, or that needs one and has none."""
    if endpoint._key_left_behind and not has_key:
        name = endpoint.name or endpoint.base_url or "without an address"
        raise ConfigurationError(
            f"the api_key of the endpoint {name} was passed as a str, and keys are not pickled: pass it as a function "
            "that fetches it"
        )
    azure = endpoint._azure_options
    has_provider = azure is not None and azure["token_provider"] is not None
    signs_in = endpoint.api_key is not None or endpoint.auth is not None or has_provider
    needs_key = azure is not None or _url_origin(endpoint.base_url or "") == _url_origin(PUBLIC_URL)
    if needs_key and not (uses_environment or signs_in):
        raise ConfigurationError(f"api_key of the endpoint {endpoint.base_url} is missing: pass it to the Endpoint")


def _environment_key(endpoint: Endpoint) -> Tuple[bool, Sequence[str]]:
    """Return whether the key in the environment is for this endpoint, and the variables that may hold it."""
    if endpoint._azure_options is not None:
        server, variables = os.environ.get("AZURE_OPENAI_ENDPOINT"), KEY_VARIABLES["azure"]
    else:
        server, variables = os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL, KEY_VARIABLES[""]
    is_for_server = server is not None and _url_origin(server) == _url_origin(endpoint.base_url or "")
    return endpoint.base_url is None or is_for_server, variables


def _url_origin(url: str) -> Tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
