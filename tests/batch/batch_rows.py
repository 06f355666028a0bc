"""Inputs, servers and readers for the tests of batch runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool

__all__ = ["ROOT", "batch_line", "ids", "pool", "read_lines", "start_run", "write_rows"]

ROOT = Path(chatpool.__file__).parents[1]


def batch_line(name, prompt, **body):
    """A line of the Batch API's input."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "m", "messages": messages, **body}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"


@pytest.fixture
def pool(chatpool_server):
    """A pool of the server of the test, which tries each row once."""
    with chatpool.ChatPool("m", base_url=chatpool_server.base_url, retry=0, max_workers=4) as pool:
        yield pool


@pytest.fixture
def write_rows(tmp_path):
    """``write_rows(count, name="in.jsonl")`` writes batch lines named and asking row 0, row 1, ..."""

    def write(count, name="in.jsonl", **body):
        path = tmp_path / name
        path.write_text("".join(batch_line(f"row {number}", f"row {number}", **body) for number in range(count)))
        return path

    return write


@pytest.fixture
def read_lines():
    """The JSON values of a file's lines; none of a file that is not there."""

    def read(path):
        path = Path(path)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


@pytest.fixture
def ids(read_lines):
    """The custom_ids in a file, in its order."""
    return lambda path: [line["custom_id"] for line in read_lines(path)]


@pytest.fixture
def start_run():
    """``start_run(server, input, output, *arguments)`` starts ``chatpool run`` as a process, gone after the test."""
    started = []

    def start(server, source, target, *arguments, **options):
        command = [sys.executable, "-m", "chatpool.cli", "run", str(source), "-o", str(target)]
        command += ["--base-url", server.base_url, "--model", "m", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if not stream.closed:
                stream.close()
