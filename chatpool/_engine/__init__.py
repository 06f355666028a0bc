"""Threads, futures and the order of calls: decisions under one lock, everything else outside it."""

from .call import TIMED_OUT, Call, CallOptions, OutcomeSink, Reading, Review, Reviewer
from .completion import CallFuture, no_worker_in_time
from .dispatcher import Dispatcher
from .endpoints import EndpointClient, Endpoints, EndpointSpec
from .engine import Engine
from .fallback_list import Alternative, Fallback, Fallbacks
from .streaming import StreamHandoff, collect_chunks
from .worker_threads import WorkerHooks

__all__ = [
    "TIMED_OUT",
    "Alternative",
    "Call",
    "CallFuture",
    "CallOptions",
    "Dispatcher",
    "EndpointClient",
    "EndpointSpec",
    "Endpoints",
    "Engine",
    "Fallback",
    "Fallbacks",
    "OutcomeSink",
    "Reading",
    "Review",
    "Reviewer",
    "StreamHandoff",
    "WorkerHooks",
    "collect_chunks",
    "no_worker_in_time",
]
