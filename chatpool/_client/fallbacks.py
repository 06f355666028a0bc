"""``fallbacks=``: from what users pass to the engine's fallbacks, and the endpoints that are among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from .._engine import EndpointSpec, Fallback
from .._wire import encode
from ..config import Budget, Limits
from ..errors import ConfigurationError
from .connect import check_pacing, standby_specs
from .endpoint import Endpoint

__all__ = ["EndpointNames", "FallbacksLike", "change_endpoints", "check_prices", "limits_in"]

FallbacksLike = Sequence[Union[str, Mapping[str, Any], Endpoint]]
"""Models, changes to the body, and endpoints, in the order in which they are tried."""

_FORMS = 'the name of a model, a dict of body fields ({"max_completion_tokens": 8000}) or a chatpool.Endpoint'
_NOT_CHANGED = {
    "stream": "the method says whether it is a stream",
    "parse": "it is a keyword of the method, not a field of the body",
}


class EndpointNames:
    """The names of a pool's endpoints, and of those that get fallbacks only.

    Args:
        endpoints: those of ``endpoints=``, None without it.
        specs: what is configured for these, in the same order.
    """

    def __init__(self, endpoints: Optional[Sequence[Endpoint]], specs: Sequence[EndpointSpec]) -> None:
        self._names: List[Tuple[Endpoint, str]] = [
            (endpoint, spec.name) for endpoint, spec in zip(endpoints or (), specs)
        ]
        self._taken = [spec.name for spec in specs]

    def add_standbys(
        self, fallbacks: Any, limits: Optional[Limits], connection: Mapping[str, Any]
    ) -> List[EndpointSpec]:
        """Return what is configured for the endpoints that are in ``fallbacks=`` of the pool only.

        Args:
            fallbacks: the argument of the pool, as it was passed.
            limits: the pool's, for endpoints without limits.
            connection: the other arguments of the pool that concern its connections.

        Raises:
            TypeError, ConfigurationError: one of them cannot be used.
        """
        given = [] if fallbacks is None else [each for each in _checked(fallbacks) if isinstance(each, Endpoint)]
        standbys = [each for each in dict.fromkeys(given) if self._name_of(each) is None]
        specs = standby_specs(standbys, limits, connection, self._taken) if standbys else []
        self._names += [(endpoint, spec.name) for endpoint, spec in zip(standbys, specs)]
        return specs

    def _name_of(self, endpoint: Endpoint) -> Optional[str]:
        return next((name for known, name in self._names if known is endpoint), None)

    def entries(self, fallbacks: Any) -> Tuple[Fallback, ...]:
        """Return the fallbacks that an argument describes.

        Raises:
            TypeError: it is no list, or something in it is of another kind.
            ConfigurationError: an endpoint that the pool does not have, or a field that cannot be changed.
        """
        return tuple(self._entry(each, f"fallbacks[{index}]") for index, each in enumerate(_checked(fallbacks)))

    def _entry(self, fallback: Any, where: str) -> Fallback:
        if isinstance(fallback, str):
            return Fallback({"model": _checked_model(fallback, where)})
        if isinstance(fallback, Mapping):
            return Fallback(_checked_changes(fallback, where))
        if not isinstance(fallback, Endpoint):
            raise TypeError(f"{where} must be {_FORMS}, got a {type(fallback).__name__}")
        name = self._name_of(fallback)
        if name is None:
            raise ConfigurationError(
                f"{where} is an Endpoint that the pool does not have: pass it to the pool, in endpoints= or fallbacks="
            )
        return Fallback({}, name)


def check_prices(entries: Sequence[Fallback], limits: Optional[Limits], budget: Optional[Budget]) -> None:
    """Check that a budget can keep the cost of fallbacks; raises as :func:`check_pacing`."""
    for entry in entries:
        check_pacing(limits, budget, entry.changes.get("model"))


def _checked(fallbacks: Any) -> Sequence[Any]:
    if isinstance(fallbacks, (str, bytes, Mapping, Endpoint)) or not isinstance(fallbacks, Sequence):
        raise TypeError(f"fallbacks must be a list, each of it {_FORMS}, got {type(fallbacks).__name__}")
    return fallbacks


def _checked_model(model: Any, where: str) -> str:
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(f"{where} must name a model, got {model!r}")
    return model


def _checked_changes(changes: Mapping[str, Any], where: str) -> Dict[str, Any]:
    if not changes:
        raise ConfigurationError(f"{where} changes nothing: name a field, or leave it out")
    for name, value in changes.items():
        if not isinstance(name, str):
            raise TypeError(f"{where} must map the names of body fields to values, got the name {name!r}")
        if name in _NOT_CHANGED:
            raise ConfigurationError(f"{where} changes {name!r}: {_NOT_CHANGED[name]}")
        if name == "model":
            _checked_model(value, where)
    encode(changes)
    return dict(changes)


def limits_in(arguments: Mapping[str, Any]) -> List[Limits]:
    """Return the limits among the arguments of a pool: its own, and those of its endpoints."""
    given = [*(arguments.get("endpoints") or ()), *(arguments.get("fallbacks") or ())]
    endpoints = [each for each in given if isinstance(each, Endpoint)]
    found = [arguments.get("limits"), *(endpoint.limits for endpoint in endpoints)]
    return [limits for limits in found if limits is not None]


def change_endpoints(arguments: Mapping[str, Any], change: Callable[[Endpoint], Endpoint]) -> Dict[str, Any]:
    """Return the arguments of a pool with other endpoints, in ``endpoints=`` and ``fallbacks=``.

    Args:
        arguments: of the pool.
        change: makes another one of each endpoint; it is called once for one that stands in both.
    """
    changed: Dict[int, Endpoint] = {}

    def of(value: Any) -> Any:
        if isinstance(value, Endpoint):
            if id(value) not in changed:
                changed[id(value)] = change(value)
            return changed[id(value)]
        return value

    lists = {name: [of(each) for each in arguments[name]] for name in ("endpoints", "fallbacks") if arguments.get(name)}
    return {**arguments, **lists}
