"""``--fallback``, repeatable, and in a file of options."""

from __future__ import annotations

import json

import pytest

from chatpool.testing import Error

GONE = Error(404, message="The model `m` does not exist.", code="model_not_found")


@pytest.fixture
def command(run, chatpool_server, tmp_path):
    """``command(*arguments)`` runs two prompts against a server that has no model ``m``."""
    chatpool_server.set_script(lambda request: GONE if request.body["model"] == "m" else None)
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n")

    def go(*arguments):
        target = tmp_path / "out.csv"
        return run("run", source, "-o", target, "--model", "m", "--base-url", chatpool_server.base_url, *arguments)

    return go


def test_another_model_answers(command, chatpool_server, tmp_path):
    ended = command("--fallback", '{"model": "m", "top_p": 1}', "--fallback", "other", "--fields", "answer,fallback")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out.csv").read_text().split() == ["answer,fallback", "one,2", "two,2"]
    assert {request.body["model"] for request in chatpool_server.requests} == {"m", "other"}
    assert command("--fields", "answer,fallback").code == 0  # both are done
    assert [request.body["model"] for request in chatpool_server.requests].count("other") == 2


def test_for_single_prompts(run, chatpool_server):
    chatpool_server.set_script([GONE])
    ended = run("ask", "--model", "m", "--base-url", chatpool_server.base_url, "--fallback", "other", "ping")
    assert ended.out == "ping\n"


def test_a_file_of_options_has_a_list(command, chatpool_server, tmp_path):
    pytest.importorskip("tomllib")
    path = tmp_path / "options.toml"
    path.write_text('fallback = [{top_p = 1}, "other"]\n')
    assert command("--config", path).code == 0
    assert chatpool_server.requests[-1].body["model"] == "other"
    path.write_text('fallback = ["m2", "m3"]\n')
    chatpool_server.set_script(lambda request: None if request.body["model"] == "c" else GONE)
    (tmp_path / "in.txt").write_text("three\n")
    assert command("--config", path, "--fallback", "c").code == 0
    assert "m2" not in json.dumps([request.body for request in chatpool_server.requests])  # not those of the file


@pytest.mark.parametrize(
    ("written", "said"),
    [("fallback = 'other'", "must be a list of MODEL"), ("[fallback]\ntop_p = 1", "must be a list of MODEL")],
)
def test_a_file_with_something_else_is_refused(command, tmp_path, written, said):
    pytest.importorskip("tomllib")
    path = tmp_path / "options.toml"
    path.write_text(written)
    ended = command("--config", path)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize("value", ["{", "{}", '{"top_p": NaN}', '{"stream": true}', " "])
def test_bad_values_are_refused_before_anything_is_sent(command, chatpool_server, value):
    ended = command("--fallback", value)
    assert ended.code == 2
    assert "fallback" in ended.err
    assert not chatpool_server.requests
