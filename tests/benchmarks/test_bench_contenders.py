"""What the contenders are told, and that those without further packages answer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import nginx
from benchmarks.answer import ANSWER, HEADERS, TEXT, prompts
from benchmarks.contenders import BASELINE, CONTENDERS, RIVALS, Target, installed
from chatpool.testing import Answer, Error, FakeServer


def test_the_answer_fits_into_nginx_configuration():
    assert not any("'" in value or "$" in value for _, value in HEADERS)
    assert TEXT in ANSWER


def test_there_are_26_response_headers():
    added_by_nginx = 5  # Server, Date, Content-Type, Content-Length, Connection
    assert len(HEADERS) + added_by_nginx == 26


def test_every_location_is_in_the_configuration():
    text = nginx.config(Path("folder"), 8080, 8443)
    for location in ("fast", "slow", "fifth", "random", "stream"):
        assert f"location /{location}/ {{" in text
    assert text.count("{") == text.count("}")
    assert "add_header x-request-id" in text


def test_prompts_differ_and_hold_their_number():
    assert len(set(prompts(50))) == 50
    assert "number 7 " in prompts(8)[7]


def test_the_target_has_its_query():
    assert Target("http://h/v1", 4, query="run=1").url == "http://h/v1/chat/completions?run=1"


@pytest.mark.parametrize("name", [BASELINE, "transport", "chatpool", "requests"])
def test_a_contender_answers_in_order(name):
    with FakeServer() as server, CONTENDERS[name].open(Target(server.base_url, 4)) as answer_all:
        assert answer_all(prompts(10)) == prompts(10)


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_sends_each_call_once_and_keeps_to_its_workers(name):
    if not installed([name]):
        pytest.skip("it is not installed")
    with FakeServer(latency=0.02) as server, CONTENDERS[name].open(Target(server.base_url, 4)) as answer_all:
        assert answer_all(prompts(20)) == prompts(20)
        assert len(server.requests) == 20
        assert server.max_in_flight == 4


@pytest.mark.parametrize("name", ["flexllm", "async-batch-llm"])
def test_a_call_that_a_rival_gives_up_is_lost(name):
    if not installed([name]):
        pytest.skip("it is not installed")
    script = [Error(503)] * 3 + [Answer("good")]
    with FakeServer(script) as server, CONTENDERS[name].open(Target(server.base_url, 1)) as answer_all:
        assert answer_all(prompts(2)) == [None, "good"]


def test_rivals_are_contenders():
    assert set(RIVALS) <= set(CONTENDERS)
    assert all(CONTENDERS[name].needs for name in RIVALS)


def test_what_cannot_be_imported_is_left_out_and_said(monkeypatch, capsys):
    missing = CONTENDERS["requests"]._replace(needs="no_such_module")
    monkeypatch.setitem(CONTENDERS, "requests", missing)
    assert installed(["chatpool", "requests"]) == ["chatpool"]
    assert capsys.readouterr().err == "not installed, left out: requests\n"


@pytest.mark.parametrize("name", list(CONTENDERS))
def test_every_contender_exists(name):
    module, function = CONTENDERS[name].where.split(":")
    tree = ast.parse((Path(nginx.__file__).parent / "contenders" / f"{module}.py").read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
