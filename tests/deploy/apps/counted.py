"""What a process of a server has open, as the applications of the tests tell it."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from typing import Any


def counts() -> dict[str, Any]:
    """The process, its threads by their names up to a number, and its sockets."""
    sockets = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            sockets += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except FileNotFoundError:  # the folder's own, or closed meanwhile
            continue
    threads = Counter(re.match(r"[^\d_]*", thread.name)[0] for thread in threading.enumerate())
    return {"process": os.getpid(), "threads": threads, "sockets": sockets}
