"""Threads, futures and the order of calls: one lock decides, everything else happens outside it."""

from .call import Call, CallOptions, OutcomeSink, Review, Reviewer
from .completion import CallFuture
from .dispatcher import Dispatcher
from .endpoints import EndpointClient, Endpoints
from .engine import Engine
from .streaming import Reading, StreamHandoff, collect_chunks
from .upstreams import EndpointSpec

__all__ = [
    "Call",
    "CallFuture",
    "CallOptions",
    "Dispatcher",
    "EndpointClient",
    "EndpointSpec",
    "Endpoints",
    "Engine",
    "OutcomeSink",
    "Reading",
    "Review",
    "Reviewer",
    "StreamHandoff",
    "collect_chunks",
]
