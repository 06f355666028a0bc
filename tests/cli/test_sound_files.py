"""``chatpool run --endpoint``: sounds to texts, and texts to sounds."""

from __future__ import annotations

import pytest


@pytest.fixture
def talks(tmp_path):
    """A folder with two sounds."""
    folder = tmp_path / "talks"
    folder.mkdir()
    for name in ("a.mp3", "b.wav"):
        (folder / name).write_text(f"said in {name}")
    return folder


@pytest.fixture
def command(run, chatpool_server):
    """``command(*arguments)`` runs ``chatpool run`` against the test's server."""
    return lambda *arguments: run("run", *arguments, "--model", "m", "--base-url", chatpool_server.base_url)


def test_a_folder_of_sounds(command, chatpool_server, talks, tmp_path):
    ended = command(talks, "-o", tmp_path / "out.txt", "--endpoint", "transcriptions", "--param", "language=de")
    assert ended.code == 0, ended.err
    assert "folder of sounds" in ended.err
    assert (tmp_path / "out.txt").read_text() == "said in a.mp3\nsaid in b.wav\n"
    assert {request.form["language"] for request in chatpool_server.requests} == {"de"}


def test_a_prompt_is_a_parameter_where_it_is_about_the_sound(command, chatpool_server, talks, tmp_path):
    options = ("--param", "prompt=Zoe, Max")
    ended = command(talks, "-o", tmp_path / "out.txt", "--endpoint", "transcriptions", *options)
    assert ended.code == 0, ended.err
    assert {request.form["prompt"] for request in chatpool_server.requests} == {"Zoe, Max"}
    (tmp_path / "in.txt").write_text("ping\n")
    ended = command(tmp_path / "in.txt", "-o", tmp_path / "other.txt", *options)
    assert ended.code == 2
    assert "--param: prompt is no parameter here: the prompt comes from" in ended.err


def test_a_list_of_paths_and_the_command_that_goes_on(command, chatpool_server, talks, tmp_path):
    source, arguments = tmp_path / "in.csv", ["--endpoint", "translations", "--column", "path"]
    source.write_text("path,who\ntalks/a.mp3,A\ntalks/none.mp3,B\n")
    ended = command(source, "-o", tmp_path / "out.csv", *arguments)
    assert ended.code == 1
    assert (tmp_path / "out.csv").read_text().startswith("path,who,answer,error,tokens\ntalks/a.mp3,A,said in a.mp3,,")
    (talks / "none.mp3").write_text("there now")
    assert command(source, "-o", tmp_path / "out.csv", *arguments).code == 0
    assert len(chatpool_server.requests) == 2


@pytest.mark.parametrize("option", ["--endpoint", "--url"])
def test_the_option_has_two_names(command, chatpool_server, tmp_path, option):
    (tmp_path / "in.txt").write_text("a\n")
    assert command(tmp_path / "in.txt", "-o", tmp_path / "out.jsonl", option, "embeddings").code == 0
    assert chatpool_server.requests[0].path == "/v1/embeddings"


@pytest.mark.parametrize("name", ["endpoint", "url"])
def test_both_may_stand_in_a_file_of_options(command, chatpool_server, talks, tmp_path, name):
    (tmp_path / "c.toml").write_text(f'{name} = "transcriptions"\n')
    assert command(talks, "-o", tmp_path / "out.jsonl", "--config", tmp_path / "c.toml").code == 0
    assert len(chatpool_server.requests) == 2


def test_a_folder_without_the_endpoint_is_told_what_to_do(command, chatpool_server, talks, tmp_path):
    ended = command(talks, "-o", tmp_path / "out.jsonl")
    assert ended.code == 2
    assert "--endpoint transcriptions" in ended.err
    assert not chatpool_server.requests


def test_texts_to_sounds(command, chatpool_server, tmp_path):
    (tmp_path / "in.csv").write_text("custom_id,text\none,First.\ntwo,Second.\n")
    arguments = [tmp_path / "in.csv", "-o", tmp_path / "out.jsonl", "--endpoint", "speech", "--column", "text"]
    arguments += ["--save-to", tmp_path / "sounds", "--param", "voice=nova", "--param", "response_format=wav"]
    assert command(*arguments).code == 0
    assert sorted(path.name for path in (tmp_path / "sounds").iterdir()) == ["one.wav", "two.wav"]
    assert {request.body["voice"] for request in chatpool_server.requests} == {"nova"}
    assert command(*arguments).code == 0
    assert len(chatpool_server.requests) == 2


def test_shards_take_both(run, chatpool_server, talks, tmp_path):
    server = ["--model", "m", "--base-url", chatpool_server.base_url]
    (tmp_path / "paths.txt").write_text("talks/a.mp3\ntalks/b.wav\n")
    assert run("shards", "split", tmp_path / "paths.txt", tmp_path / "p", "--endpoint", "transcriptions").code == 0
    assert run("shards", "run", tmp_path / "p", "--all", *server).code == 0
    (tmp_path / "texts.txt").write_text("One.\nTwo.\nThree.\n")
    assert run("shards", "split", tmp_path / "texts.txt", tmp_path / "q", "--url", "speech", "--rows", 2).code == 0
    assert run("shards", "run", tmp_path / "q", "--all", "--save-to", tmp_path / "s", *server).code == 0
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["row-1.mp3", "row-2.mp3", "row-3.mp3"]
