"""The embedded model itself: ``make test-local`` fetches it once and runs these."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import chatpool
from chatpool import APIConnectionError, ChatPool
from chatpool.local import LocalServer, install

pytestmark = pytest.mark.local

ROOT = Path(chatpool.__file__).parents[1]
PROMPTS = ROOT / "examples" / "capitals.jsonl"


@pytest.fixture(scope="module")
def model_server():
    install()
    with LocalServer() as server:
        yield server


@pytest.fixture
def pool(model_server):
    with ChatPool(model_server.model, base_url=model_server.base_url, max_workers=8) as pool:
        yield pool


@pytest.mark.parametrize("item", ["Name a color.", {"prompt": "A color:"}, {"input": "Name a color."}])
def test_more_samples_than_the_server_has_slots(item):
    install()
    limit = "max_output_tokens" if "input" in item else "max_tokens"
    with LocalServer(parallel=2) as server, ChatPool(server.model, base_url=server.base_url, max_workers=2) as pool:
        (outcome,) = pool.map([item], samples=5, progress=False, **{limit: 8}).outcomes
        assert len(outcome.value.choices) == 5
        assert len({choice.text for choice in outcome.value.choices}) > 1
        assert outcome.attempts == (5 if "input" in item else 3)  # 2 + 2 + 1, once it is known


def test_it_knows_the_capital_of_france(pool):
    answer = pool.chat("What is the capital of France? Answer in one sentence.", temperature=0, max_tokens=32)
    assert "Paris" in answer.text
    assert answer.usage.completion_tokens > 0
    assert answer.model == "smollm2-135m-instruct"


def test_it_streams(pool):
    prompt, how = "What is the capital of France? Answer in one sentence.", {"temperature": 0, "max_tokens": 32}
    with pool.stream(prompt, **how) as stream:
        chunks = [chunk.text for chunk in stream]
    assert len(chunks) > 5
    assert "Paris" in stream.text == "".join(chunks) == stream.completion.text
    assert stream.completion.usage.completion_tokens > 0
    assert pool.chat(prompt, collect_stream=True, **how).text == stream.text


def test_a_stream_that_is_left_leaves_its_place_to_others(pool):
    for _ in range(10):  # more often than the server has places
        with pool.stream("Tell me a very long story.", max_tokens=400) as stream:
            next(stream)
    assert "Paris" in pool.chat("What is the capital of France? Answer in one sentence.", temperature=0).text


def test_an_answer_that_finds_no_end_ends_unless_the_request_says_how_long_it_may_be(pool):
    endless = {"extra_body": {"ignore_eos": True}, "temperature": 0}
    answer = pool.chat("Say hello.", **endless)
    assert (answer.usage.completion_tokens, answer.finish_reason) == (1024, "length")
    assert pool.chat("Say hello.", max_tokens=1100, **endless).usage.completion_tokens == 1100


def test_a_file_of_prompts_is_answered_in_order(pool):
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    results = pool.map(rows, prompt=lambda row: row["prompt"], temperature=0, max_tokens=32)
    assert len(results) == 48
    assert not results.failures
    known = {"France": "Paris", "Germany": "Berlin", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi"}
    answers = {row["country"]: str(answer) for row, answer in zip(rows, results)}
    assert all(capital in answers[country] for country, capital in known.items())


def test_the_demo_says_which_answers_are_right(capsys):
    install()
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    demo["few_questions"]()
    printed = capsys.readouterr().out
    assert "Paris" in printed
    assert re.search(r"[1-5] of 5 right", printed)


def test_the_command_line_asks_it():
    install()
    command = [sys.executable, "-m", "chatpool.cli", "ask", "--local", "Say", "hello."]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()


def test_closing_does_not_wait_for_a_long_answer():
    install()
    started = LocalServer().start()
    with ChatPool(started.model, base_url=started.base_url, retry=0) as pool:
        future = pool.submit("Tell me a very long story.", max_tokens=4000)
        pool.chat("Say hello.", max_tokens=4)  # by now the story is being told
        started.close()
        with pytest.raises(APIConnectionError):
            future.result(timeout=60)
