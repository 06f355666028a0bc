"""Memory does not grow with the number of rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from batch_rows import ROOT, batch_line

HERE = Path(__file__).parent
ROWS = 100_000

PROGRAM = """
import json, sys
import chatpool

def rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

seen, at_10000, most = 0, 0, 0

def watch(event):
    global seen, at_10000, most
    seen += 1
    if seen == 10_000:
        at_10000 = rss()
    elif seen > 10_000 and seen % 5_000 == 0:
        most = max(most, rss())

watch.kinds = ("succeeded",)
source, target, url = sys.argv[1:]
options = {"base_url": url, "max_workers": 8, "listeners": [watch], "progress": False, "in_order": True}
result = chatpool.batch.run(source, target, **options)
print(json.dumps([result.succeeded, at_10000, max(most, rss())]))
"""


@pytest.fixture
def cheap_server():
    with subprocess.Popen(
        [sys.executable, HERE / "cheap_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.stdin.close()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_100_000_rows_need_no_more_memory_than_10_000(tmp_path, cheap_server):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with source.open("w") as file:
        file.writelines(batch_line(f"row {number}", f"prompt {number}") for number in range(ROWS))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, source, target, cheap_server],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    succeeded, before, most = json.loads(ended.stdout)
    assert succeeded == ROWS
    # An index of a million rows has 30 MB; nothing else grows.
    assert most - before < 5e6, f"{(most - before) / 1e6:.1f} MB more than at 10,000 rows"
    with target.open() as lines:
        assert all(f'"custom_id": "row {number}"' in line for number, line in enumerate(lines))
