"""The DAG and the flow of examples/ under the real Airflow and the real Prefect, each in an interpreter of its own.

Their waits are made shorter here, a second for each minute, and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatpool import batch
from chatpool.testing import Error, FakeServer

pytestmark = pytest.mark.orchestrators

ROOT = Path(__file__).parents[2]
KEY = "sk-of-the-orchestrators"
HUNG = 600  # seconds: both engines take long to start, and a busy machine makes that minutes
ROWS = 3
PROMPTS = [f"{name}{number}" for name in "ab" for number in range(ROWS)]

# The one error that ends a run whatever the server has answered before, and that no person has to do something about.
UNSUPPORTED = Error(501, type="not_supported_error")


class Airflow:
    """``dag.test()``, with a database in ``home``."""

    VARIABLE = "CHATPOOL_AIRFLOW_PYTHON"
    BUSY = "marking task as UP_FOR_RESCHEDULE"
    TRIES_OF_A_BUSY_TASK = (1,)

    def __init__(self, python, home):
        self.python = python
        self.environment = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        self._dag = home / "dags" / "airflow_dag.py"
        self._dag.parent.mkdir()
        text = (ROOT / "examples" / "airflow_dag.py").read_text(encoding="utf-8")
        assert "timedelta(minutes=" in text
        self._dag.write_text(text.replace("timedelta(minutes=", "timedelta(seconds="), encoding="utf-8")
        command = [python, "-m", "airflow", "db", "migrate"]
        environment = {**os.environ, **self.environment}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HUNG, check=False)
        assert made.returncode == 0, made.stdout + made.stderr

    def command(self, shared):
        return ["airflow_run.py", str(self._dag)]


class Prefect:
    """The flow as a program: it starts a server of its own, with a database in ``home``, and ends it."""

    VARIABLE = "CHATPOOL_PREFECT_PYTHON"
    BUSY = "JournalBusyError.*\n?.*Retry 1/3"
    TRIES_OF_A_BUSY_TASK = (2, 3, 4)

    def __init__(self, python, home):
        self.python = python
        self.environment = {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(HUNG),
            "DO_NOT_TRACK": "1",
        }

    def command(self, shared):
        sources = [str(shared / "questions" / f"{name}.jsonl") for name in "ab"]
        return ["prefect_run.py", str(ROOT / "examples" / "prefect_flow.py"), str(shared / "answers"), *sources]


@pytest.fixture(scope="module", params=[Airflow, Prefect], ids=["airflow", "prefect"])
def engine(request, tmp_path_factory):
    """An engine that has been set up."""
    python = os.environ.get(request.param.VARIABLE)
    if not python:
        pytest.skip(f"{request.param.VARIABLE} names no interpreter: `make test-orchestrators` makes one")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AIRFLOW", "PREFECT_"))]:
            patch.delenv(name)
        yield request.param(python, tmp_path_factory.mktemp("home"))


@pytest.fixture
def shared(tmp_path):
    """The folder that every worker can reach, with two files of questions."""
    (tmp_path / "questions").mkdir()
    for name in "ab":
        rows = [json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS if prompt.startswith(name)]
        (tmp_path / "questions" / f"{name}.jsonl").write_text("".join(rows))
    return tmp_path


@pytest.fixture
def steps():
    """Functions by prompt, which return the step of its request; other prompts are answered."""
    return {}


@pytest.fixture
def server(steps):
    with FakeServer(lambda request: steps[request.prompt](request) if request.prompt in steps else None) as server:
        yield server


@pytest.fixture
def begin(engine, start, server, shared):
    """A function that starts the run of both files."""
    environment = {
        "ANSWERS_FOLDER": str(shared),
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": server.base_url,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",  # an engine is thousands of files
    }
    return lambda: start(engine.python, *engine.command(shared), **engine.environment, **environment)


def end(program):
    """The tasks of the run and their results."""
    assert program.ended(HUNG) == 0, program.output
    assert KEY not in program.output
    line = next(line for line in reversed(program.output.splitlines()) if line.startswith('{"tasks"'))
    return json.loads(line)


def answered(shared, name):
    """The prompts of a file that have their answers."""
    path = shared / "answers" / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    bodies = [json.loads(line)["response"]["body"] for line in lines]
    return sorted(body["choices"][0]["message"]["content"] for body in bodies)


def sent(server):
    """How often each prompt was sent."""
    return Counter(request.prompt for request in server.requests)


def test_every_row_of_two_files_is_answered(begin, server, shared):
    said = end(begin())
    assert said["tasks"] == [[True, 1], [True, 1]]
    assert [result["succeeded"] for result in said["results"]] == [ROWS, ROWS]
    assert answered(shared, "a") + answered(shared, "b") == PROMPTS
    assert sent(server) == Counter(PROMPTS)


def test_a_task_that_fails_is_tried_again_and_sends_nothing_twice(begin, server, steps, shared):
    status = shared / "answers" / "b.journal.status"

    def refuse_once(request):
        del steps["b1"]
        deadline = time.monotonic() + HUNG
        while not status.exists() or json.loads(status.read_text())["succeeded"] < ROWS - 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # no event tells of what another process has written
        return UNSUPPORTED

    steps["b1"] = refuse_once
    said = end(begin())
    assert said["tasks"] == [[True, 1], [True, 2]]
    assert [result["done_before"] for result in said["results"]] == [0, ROWS - 1]
    assert answered(shared, "a") + answered(shared, "b") == PROMPTS
    assert sent(server) == Counter([*PROMPTS, "b1"])


def test_a_task_waits_for_the_process_that_has_its_file(engine, begin, server, steps, shared):
    may_end = threading.Event()
    steps["b1"] = lambda request: may_end.wait(HUNG) and None
    settings = {"model": "gpt-4o-mini", "base_url": server.base_url, "api_key": KEY, "progress": False}
    (shared / "answers").mkdir()
    files = [shared / folder / "b.jsonl" for folder in ("questions", "answers")]
    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(batch.run, *files, **settings)
        try:
            server.wait_until(lambda: sent(server)["b1"], HUNG)
            program = begin()
            program.wait_for(engine.BUSY, HUNG)
        finally:
            may_end.set()
        assert other.result(HUNG).succeeded == ROWS
    said = end(program)
    first, busy = said["tasks"]
    assert first == [True, 1]
    assert busy[0]
    assert busy[1] in engine.TRIES_OF_A_BUSY_TASK
    assert [result["done_before"] for result in said["results"]] == [0, ROWS]
    assert sent(server) == Counter(PROMPTS)


def test_a_refused_key_is_not_tried_again(begin, server, steps, shared):
    steps.update({prompt: lambda request: Error(401) for prompt in PROMPTS if prompt.startswith("b")})
    said = end(begin())
    assert said["tasks"] == [[False, 1], [True, 1]]
    assert answered(shared, "a") == PROMPTS[:ROWS]
    assert answered(shared, "b") == []
    assert max(sent(server).values()) == 1
