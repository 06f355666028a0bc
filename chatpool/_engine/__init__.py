"""Threads, futures and the order of calls: one lock decides, everything else happens outside it."""

from .._locks import barging
from .call import Call, CallOptions, Review, Reviewer, Sink
from .completion import CallFuture
from .dispatcher import Dispatcher
from .endpoints import Route, Routes
from .engine import Engine
from .streaming import Handover, Reading, collect
from .upstreams import Plan

__all__ = [
    "Call",
    "CallFuture",
    "CallOptions",
    "Dispatcher",
    "Engine",
    "Handover",
    "Plan",
    "Reading",
    "Review",
    "Reviewer",
    "Route",
    "Routes",
    "Sink",
    "barging",
    "collect",
]
