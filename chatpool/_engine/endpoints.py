"""The endpoints of a pool: their specification, and the clients that send to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union

from .._transport import BrokenTransport, Transport, TransportSettings
from .._values import LazyBody
from .._wire import renamed
from ..config import Limits
from ..types import ChatRequest
from .call import Call, UpstreamKey

if TYPE_CHECKING:
    from .._quota import Sharing

__all__ = ["EndpointClient", "EndpointSpec", "Endpoints"]


class EndpointSpec(NamedTuple):
    """Everything that is configured for one endpoint.

    Attributes:
        name: unique in the pool; it contains no key.
        limits: requests and tokens per minute for each of its models, None without limits.
        sharing: makes the limits that are shared with other processes, None without any.
        weight: preference over the other endpoints, as a factor.
        settings: settings of its transport, None where nothing is sent.
        model: the name of every model at this endpoint, or a mapping from the pool's names; None for the pool's names.
        is_standby: whether it gets fallbacks only.
    """

    name: str
    limits: Optional[Limits] = None
    sharing: Optional[Sharing] = None
    weight: float = 1.0
    settings: Optional[TransportSettings] = None
    model: Union[str, Mapping[str, str], None] = None
    is_standby: bool = False

    def model_name(self, model: Optional[str]) -> Optional[str]:
        """Return the name of the pool's ``model`` at this endpoint."""
        if self.model is None:
            return model
        return self.model if isinstance(self.model, str) else self.model.get(model or "", model)


class EndpointClient(NamedTuple):
    """An endpoint and the transport that sends to it."""

    spec: EndpointSpec
    transport: Transport

    def payload(self, call: Call) -> Union[bytes, LazyBody]:
        """Return the body of a call, with the model's name at this endpoint."""
        return self.renamed(call.request, call.payload)

    def renamed(self, request: ChatRequest, payload: Union[bytes, LazyBody]) -> Union[bytes, LazyBody]:
        """Return the body of a request, with the model's name at this endpoint."""
        if self.spec.model is None or not payload:
            return payload
        requested = request.model
        name = self.spec.model_name(requested)
        if name is None or name == requested:
            return payload
        if isinstance(payload, bytes):
            return renamed(payload, request, name)
        return payload.renamed(name)


class Endpoints:
    """All endpoints of a pool, at least one.

    Attributes:
        first: the one that answers questions about the pool as a whole.
        several: whether there is more than one.
        fails_over: whether there is more than one that gets other calls than fallbacks.
    """

    def __init__(self, clients: Sequence[EndpointClient]) -> None:
        self._all: List[EndpointClient] = list(clients)
        self._by_name: Dict[str, EndpointClient] = {client.spec.name: client for client in self._all}
        self.first = self._all[0]
        self.several = len(self._all) > 1
        self.fails_over = sum(not client.spec.is_standby for client in self._all) > 1

    def __iter__(self) -> Iterator[EndpointClient]:
        return iter(self._all)

    def of(self, call: Call) -> EndpointClient:
        """Return the endpoint that a call is sent to."""
        return self._by_name[call.upstream_key[0]] if self.several else self.first

    def display_name(self, call: Call) -> Optional[str]:
        """Return the name of that endpoint for a person, None where there is only one."""
        return call.upstream_key[0] if self.several else None

    def others(self, key: UpstreamKey) -> List[UpstreamKey]:
        """Return the keys of the same model at the other endpoints that share its calls."""
        shared = [name for name in self._by_name if not self.is_standby(name)]
        return [] if self.is_standby(key[0]) else [(name, key[1]) for name in shared if name != key[0]]

    def has(self, name: str) -> bool:
        """Return whether there is an endpoint of this name."""
        return name in self._by_name

    def is_standby(self, name: str) -> bool:
        """Return whether the endpoint of this name gets fallbacks only."""
        return self._by_name[name].spec.is_standby

    @property
    def specs(self) -> List[EndpointSpec]:
        """The specification of each."""
        return [client.spec for client in self._all]

    @property
    def transports(self) -> List[Transport]:
        """The transport of each."""
        return [client.transport for client in self._all]

    def close(self) -> None:
        """Close the idle connections; exchanges under way finish, later ones are cancelled."""
        for client in self._all:
            client.transport.close()

    def abort(self) -> None:
        """End every exchange at once, then close."""
        for client in self._all:
            client.transport.abort()

    def broken(self, reason: Exception) -> Endpoints:
        """Return the same endpoints, all of which fail with ``reason``: a forked process could not connect again."""
        return Endpoints([client._replace(transport=BrokenTransport(client.transport, reason)) for client in self._all])
