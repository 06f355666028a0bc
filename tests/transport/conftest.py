"""Makes the fixtures of socket_fixtures.py known to the tests of this folder: they stand in tests/faults."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from socket_fixtures import *  # noqa: F403
