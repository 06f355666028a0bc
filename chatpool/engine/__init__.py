"""Threads, futures and the order of calls: one lock decides, everything else happens outside it."""

from .barging import barging
from .call import Call, CallOptions, Sink
from .dispatch import Dispatcher
from .executor import Engine
from .future import CallFuture
from .handover import Handover
from .lines import Plan
from .review import Review, Reviewer
from .routes import Route, Routes
from .streams import Reading, collect

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
