"""What chatpool.testing promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import chatpool
from chatpool import testing

ROOT = Path(chatpool.__file__).resolve().parent.parent

PUBLIC = [
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


def test_the_export_list_is_this_one_and_sorted_as_it_is_read():
    assert testing.__all__ == PUBLIC
    assert all(hasattr(testing, name) for name in PUBLIC)


def test_everything_public_says_what_it_is():
    for name in PUBLIC:
        if name != "HINTS":
            thing = getattr(testing, name)
            assert thing.__doc__, name
            if isinstance(thing, type):
                own = [part for part in vars(thing) if not part.startswith("_") and callable(getattr(thing, part))]
                assert all(getattr(thing, part).__doc__ for part in own), name


def test_nothing_but_the_plugin_needs_pytest():
    code = "import sys; sys.modules['pytest'] = None; import chatpool.testing"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
