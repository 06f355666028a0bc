"""Makes the fixtures of batch_rows.py and batch_api_rows.py known to the tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from batch_api_rows import *  # noqa: F403
from batch_rows import *  # noqa: F403
