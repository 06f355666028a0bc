"""From a pool's endpoints to where its exchanges go."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..config import Limits
from ..engine import Plan
from ..errors import ConfigurationError
from ..transport import TransportSettings, normalise_base_url
from .connect import PUBLIC_URL, azure_settings, openai_settings, plain_settings
from .credentials import is_credential
from .endpoint import Endpoint, ModelNames

__all__ = ["Destination", "destination", "destinations"]


class Destination(NamedTuple):
    """One endpoint, with everything filled in.

    Attributes:
        plan: its name, limits and weight.
        settings: what its transport is made of.
        model: what the pool's model is called there.
    """

    plan: Plan
    settings: TransportSettings
    model: ModelNames = None


def destination(settings: TransportSettings, limits: Optional[Limits]) -> Destination:
    """The only endpoint of a pool."""
    return Destination(_plan(normalise_base_url(settings.base_url), limits), settings)


def destinations(endpoints: Any, limits: Optional[Limits], given: Mapping[str, Any]) -> List[Destination]:
    """The several endpoints of a pool.

    Args:
        endpoints: what was passed.
        limits: the pool's limits, for those that have none of their own.
        given: the other arguments of the pool that concern its connections.

    Raises:
        TypeError: there is something else than an Endpoint among them.
        ConfigurationError: there is none, a name appears twice, a key is missing, or an argument of the pool would
            send a key to all of them.
    """
    found = _checked(endpoints)
    _check_given(given)
    common = {name: value for name, value in given.items() if name not in ("api_key", "base_url")}
    made: List[Destination] = []
    for endpoint, settings in [(each, _settings(each, common)) for each in found]:
        name = _name(endpoint, settings, [one.plan.name for one in made])
        plan = _plan(name, limits if endpoint.limits is None else endpoint.limits, endpoint.weight)
        made.append(Destination(plan, settings, endpoint.model))
    return made


def _plan(name: str, limits: Optional[Limits], weight: float = 1.0) -> Plan:
    if limits is None or limits.scope is None:
        return Plan(name, limits, None, weight)
    from ..quota import Sharing  # most pools share nothing, and importing it takes time

    return Plan(name, limits, Sharing.of(limits, limits.scope), weight)


def _checked(endpoints: Any) -> Sequence[Endpoint]:
    if isinstance(endpoints, (str, bytes, Endpoint)) or not isinstance(endpoints, Sequence):
        raise TypeError(f"endpoints must be a list of chatpool.Endpoint, got {type(endpoints).__name__}")
    for endpoint in endpoints:
        if not isinstance(endpoint, Endpoint):
            raise TypeError(f"endpoints must be a list of chatpool.Endpoint, got a {type(endpoint).__name__} in it")
    if not endpoints:
        raise ConfigurationError("endpoints must not be empty: leave it out, or list at least one Endpoint")
    return endpoints


def _check_given(given: Mapping[str, Any]) -> None:
    """No key may go to an endpoint that it is not for."""
    for name in ("api_key", "base_url"):
        if given.get(name) is not None:
            raise ConfigurationError(f"{name} and endpoints cannot be combined: pass {name} to an Endpoint")
    session = given.get("session")
    sent = [*(given.get("headers") or {}), *getattr(session, "headers", ())]
    if getattr(session, "auth", None) is not None or any(is_credential(name) for name in sent):
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


def _settings(endpoint: Endpoint, common: Mapping[str, Any]) -> TransportSettings:
    is_home, key_variable = _home(endpoint)
    _check_key(endpoint, is_home=is_home, variable=key_variable)
    rest: Dict[str, Any] = {**common, "query": {**(common.get("query") or {}), **endpoint.query}}
    headers = {**(rest.pop("headers", None) or {}), **endpoint.headers}
    organization, project = rest.pop("organization", None), rest.pop("project", None)
    options = endpoint._azure_options
    if options is not None:
        deployment, provider, version = options["deployment"], options["token_provider"], options["version"]
        where = endpoint.base_url, deployment, endpoint.api_key, provider, version
        return azure_settings(*where, headers=headers, **rest)
    if is_home:
        return openai_settings(endpoint.api_key, endpoint.base_url, organization, project, headers, **rest)
    return plain_settings(str(endpoint.base_url), endpoint.api_key, headers, **rest)


def _check_key(endpoint: Endpoint, *, is_home: bool, variable: str) -> None:
    """Refuse an endpoint whose key did not come along, or that needs one and has none."""
    if endpoint._key_left_behind and not (is_home and os.environ.get(variable)):
        name = endpoint.name or endpoint.base_url or "without an address"
        raise ConfigurationError(
            f"the api_key of the endpoint {name} was passed as a str, and keys are not pickled: pass it as a function "
            "that fetches it"
        )
    azure = endpoint._azure_options
    signs_in = endpoint.api_key is not None or (azure is not None and azure["token_provider"] is not None)
    needs_key = azure is not None or _origin(endpoint.base_url or "") == _origin(PUBLIC_URL)
    if needs_key and not (is_home or signs_in):
        raise ConfigurationError(f"api_key of the endpoint {endpoint.base_url} is missing: pass it to the Endpoint")


def _home(endpoint: Endpoint) -> Tuple[bool, str]:
    """Whether the key in the environment is for this endpoint, and the variable that holds it."""
    if endpoint._azure_options is not None:
        home, variable = os.environ.get("AZURE_OPENAI_ENDPOINT"), "AZURE_OPENAI_API_KEY"
    else:
        home, variable = os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL, "OPENAI_API_KEY"
    return endpoint.base_url is None or (home is not None and _origin(home) == _origin(endpoint.base_url)), variable


def _origin(url: str) -> Tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
