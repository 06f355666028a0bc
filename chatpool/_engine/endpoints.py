"""The endpoints of a pool: where exchanges go."""

from __future__ import annotations

from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union

from .._transport import BrokenTransport, Transport
from .._wire import renamed
from .call import Call, UpstreamKey
from .upstreams import EndpointSpec

__all__ = ["EndpointClient", "Endpoints"]


class EndpointClient(NamedTuple):
    """One endpoint.

    Attributes:
        plan: its name, and what may be sent to it.
        transport: how to get there.
        model: the name that it knows every model by, or the names of some; None for the pool's own names.
    """

    plan: EndpointSpec
    transport: Transport
    model: Union[str, Mapping[str, str], None] = None

    def payload(self, call: Call) -> bytes:
        """The body of the call, with the model's name at this endpoint."""
        if self.model is None or not call.payload:
            return call.payload
        asked = call.request.model
        name = self.name_of(asked)
        return call.payload if name is None or name == asked else renamed(call.payload, call.request, name)

    def name_of(self, model: Optional[str]) -> Optional[str]:
        """What the pool's ``model`` is called here."""
        if self.model is None:
            return model
        return self.model if isinstance(self.model, str) else self.model.get(model or "", model)


class Endpoints:
    """All endpoints of a pool, at least one.

    Attributes:
        first: the one that is asked about the pool as a whole.
        several: whether there is more than one.
    """

    def __init__(self, routes: Sequence[EndpointClient]) -> None:
        self._all: List[EndpointClient] = list(routes)
        self._by_name: Dict[str, EndpointClient] = {route.plan.name: route for route in self._all}
        self.first = self._all[0]
        self.several = len(self._all) > 1

    def __iter__(self) -> Iterator[EndpointClient]:
        return iter(self._all)

    def of(self, call: Call) -> EndpointClient:
        """The endpoint that a call is sent to."""
        return self._by_name[call.line[0]] if self.several else self.first

    def name_for(self, call: Call) -> Optional[str]:
        """The name of that endpoint for a person, None where there is only one."""
        return call.line[0] if self.several else None

    def others(self, key: UpstreamKey) -> List[UpstreamKey]:
        """The lines of the same model at the other endpoints."""
        return [(name, key[1]) for name in self._by_name if name != key[0]]

    @property
    def plans(self) -> List[EndpointSpec]:
        """What the scheduler has to know of each."""
        return [route.plan for route in self._all]

    @property
    def transports(self) -> List[Transport]:
        """The transport of each."""
        return [route.transport for route in self._all]

    def close(self) -> None:
        """Close the idle connections; exchanges under way finish, later ones are cancelled."""
        for route in self._all:
            route.transport.close()

    def abort(self) -> None:
        """End every exchange at once, then close."""
        for route in self._all:
            route.transport.abort()

    def broken(self, reason: Exception) -> Endpoints:
        """The same, all of which answer with the reason why they cannot be made again in a forked process."""
        return Endpoints([route._replace(transport=BrokenTransport(route.transport, reason)) for route in self._all])
