"""``make demo``, but for the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_killed_run_of_the_demo_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--no-model"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "2,000 of 2,000 rows answered right and in order" in ended.stdout
    assert "were sent again: 0." in ended.stdout
    assert len(list(tmp_path.glob("*/report.html"))) == 1
