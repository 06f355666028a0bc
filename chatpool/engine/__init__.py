"""Threads, futures and the order of calls: one lock decides, everything else happens outside it."""

from .call import Call, CallOptions, Sink
from .dispatch import Dispatcher
from .executor import Engine
from .future import CallFuture

__all__ = ["Call", "CallFuture", "CallOptions", "Dispatcher", "Engine", "Sink"]
