"""A server, clocks and pytest fixtures with which programs that use chatpool are tested.

Nothing here needs a network or a key, and no test has to sleep.  A function of one's own that makes calls::

    from chatpool.testing import Error, FakeServer

    def test_a_busy_server_is_asked_again():
        with FakeServer(script=[Error(503)], reply=lambda body: "Paris") as server:
            answer = my_program.ask("What is the capital of France?", base_url=server.base_url)
            assert answer == "Paris"
            assert len(server.requests) == 2
"""

from __future__ import annotations

from .batch_rows import BatchLimits
from .clocks import FakeClock, InstantClock
from .files import StoredFile
from .forms import ReceivedFile
from .http_parts import HINTS
from .memory import MemoryPool
from .model import chat_completion, embedding_vector
from .rate_limits import Cap, Quota
from .received import Headers, ReceivedRequest
from .scenarios import BackgroundScenario, BatchScenario
from .script import EachCall, Faults, Script
from .server import FakeServer
from .steps import (
    Answer,
    Delay,
    Drip,
    Error,
    Garbage,
    Hangup,
    Html,
    LostAnswer,
    RateLimited,
    Redirect,
    Reset,
    Stall,
    Step,
    Stream,
    Truncate,
)

__all__ = [
    "HINTS",
    "Answer",
    "BackgroundScenario",
    "BatchLimits",
    "BatchScenario",
    "Cap",
    "Delay",
    "Drip",
    "EachCall",
    "Error",
    "FakeClock",
    "FakeServer",
    "Faults",
    "Garbage",
    "Hangup",
    "Headers",
    "Html",
    "InstantClock",
    "LostAnswer",
    "MemoryPool",
    "Quota",
    "RateLimited",
    "ReceivedFile",
    "ReceivedRequest",
    "Redirect",
    "Reset",
    "Script",
    "Stall",
    "Step",
    "StoredFile",
    "Stream",
    "Truncate",
    "chat_completion",
    "embedding_vector",
]
