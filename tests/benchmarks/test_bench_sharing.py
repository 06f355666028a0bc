"""Processes that share a limit."""

from __future__ import annotations

from benchmarks.children import run_child


def test_a_process_tells_what_each_of_its_threads_was_given(tmp_path):
    spec = {"scope": "benchmark", "env": {"XDG_CACHE_HOME": str(tmp_path)}, "limits": {"requests_per_minute": 6000}}
    found = run_child("pacing.sharer", {**spec, "threads": 4, "tokens": 0, "used": 0, "start": 0.0, "seconds": 1.0})
    assert found["shared"]
    assert len(found["threads"]) == 4
    assert all(slot["cost"] >= 0 for slots in found["threads"] for slot in slots)
    assert sum(map(len, found["threads"])) >= 50
