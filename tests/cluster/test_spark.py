"""The function of examples/ on the real Spark: prompts as a DataFrame, answers as another one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from chatpool.batch import shards
from chatpool.testing import Error
from tests.deploy.shard_files import Gate, process_of

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
KEY = "sk-of-the-cluster"
SLOW = 300  # seconds: Spark takes long to start, and a busy machine makes that minutes
ROWS, SHARD_ROWS, MAX_WORKERS = 120, 30, 4

SCHEMA = [
    ["custom_id", "string"],
    ["answer", "string"],
    ["model", "string"],
    ["finish_reason", "string"],
    ["prompt_tokens", "bigint"],
    ["completion_tokens", "bigint"],
    ["error", "string"],
    ["message", "string"],
]


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def begin(python, server, work):
    """A function that starts Spark, with four processors and three tries of a task, for so many rows."""
    environment = {
        "EXAMPLES": str(ROOT / "examples"),
        "MASTER": "local[4,3]",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": KEY,
        "PYTHONPATH": str(ROOT),
    }
    return lambda rows=ROWS: python("spark_run.py", str(work), str(rows), str(SHARD_ROWS), **environment)


def end(program):
    """What a program that went well has found."""
    assert program.ended(SLOW) == 0, program.output
    assert KEY not in program.output
    return json.loads(next(line for line in program.output.splitlines() if line.startswith('{"schema"')))


def test_each_prompt_has_a_row_of_answers_and_the_same_call_again_sends_nothing(begin, server):
    server.set_script({"row 7": Error(400, "too long", code="context_length_exceeded")})
    found = end(begin())
    assert found["schema"] == SCHEMA
    rows = {row[0]: row[1:] for row in found["rows"]}
    assert sorted(rows) == sorted(f"row {number}" for number in range(ROWS))
    answer, model, reason, asked, told, error, message = rows["row 0"]
    assert (answer, reason, error, message) == ("row 0", "stop", None, None)
    assert min(asked, told) > 0
    assert rows["row 7"] == [None, None, None, None, None, "context_length_exceeded", "too long"]
    assert end(begin()) == found
    assert len(server.requests) == ROWS


def test_other_prompts_need_another_folder(begin, server):
    end(begin())
    other = begin(ROWS + 1)
    assert other.ended(SLOW) == 1
    assert "it has changed since; choose another folder" in other.output
    assert len(server.requests) == ROWS


def test_a_task_that_is_killed_goes_on(begin, server, work):
    gate = Gate(SHARD_ROWS - MAX_WORKERS)
    server.set_script(gate)
    program = begin()
    gate.wait_until_waiting(3 * MAX_WORKERS)
    killed = next(state.index for state in shards.status(work) if state.is_running)
    os.kill(process_of(work, killed), signal.SIGKILL)
    gate.opened.set()
    names = sorted(f"row {number}" for number in range(ROWS))
    assert [row[:2] for row in end(program)["rows"]] == [[name, name] for name in names]
    assert ROWS < len(server.requests) <= ROWS + MAX_WORKERS
