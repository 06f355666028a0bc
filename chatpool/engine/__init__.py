"""Threads, futures and the order of calls: one lock decides, everything else happens outside it."""

from .call import QUEUED, Call, CallOptions, Sink
from .dispatch import Dispatcher
from .executor import Engine
from .future import CallFuture
from .lifecycle import register

__all__ = ["QUEUED", "Call", "CallFuture", "CallOptions", "Dispatcher", "Engine", "Sink", "register"]
