"""``--cache``, and ``chatpool cache stats``, ``clear`` and ``export``."""

from __future__ import annotations

import json
import sqlite3

import pytest

from chatpool import Cache, ChatPool


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


@pytest.fixture
def filled(path, chatpool_server):
    with ChatPool("m", base_url=chatpool_server.base_url, cache=path) as pool:
        pool.chat("a secret prompt", extra_body={"metadata": {"a": "b"}})
        pool.speak("sound", model="tts")
        pool.transcribe(("a.wav", b"words"), response_format="srt")
    return path


class TestOption:
    def test_ask_answers_from_it(self, ask, path, chatpool_server):
        first = ask("--cache", path, "--json", "ping")
        again = ask("--cache", path, "--json", "ping")
        assert [json.loads(each.out)["cached"] for each in (first, again)] == [False, True]
        assert json.loads(again.out)["text"] == "ping"
        assert len(chatpool_server.requests) == 1

    def test_the_file_of_options_may_name_it(self, ask, path, tmp_path, chatpool_server):
        (tmp_path / "options.toml").write_text(f"cache = '{path}'\n", encoding="utf-8")
        for _ in range(2):
            assert ask("--config", tmp_path / "options.toml", "ping").code == 0
        assert len(chatpool_server.requests) == 1

    def test_run_answers_from_it(self, run, path, tmp_path, chatpool_server):
        (tmp_path / "in.txt").write_text("a\nb\n", encoding="utf-8")
        for name in ("one", "two"):
            ended = run(
                *("run", tmp_path / "in.txt", "-o", tmp_path / f"{name}.jsonl", "--model", "m", "--cache", path),
                *("--base-url", chatpool_server.base_url),
            )
            assert ended.code == 0, ended.err
        assert len(chatpool_server.requests) == 2

    def test_a_folder_that_is_not_there_is_wrong_usage(self, ask, tmp_path):
        ended = ask("--cache", tmp_path / "nowhere" / "a.db", "ping")
        assert ended.code == 2
        assert "there is no folder" in ended.err


class TestStats:
    def test_for_a_person_and_as_json(self, run, filled):
        ended = run("cache", "stats", filled)
        assert ended.code == 0
        assert ended.out.startswith("3 answers, ")
        assert "kept from " in ended.out
        numbers = json.loads(run("cache", "stats", filled, "--json").out)
        assert numbers["answers"] == 3
        assert numbers["bytes"] > 0
        assert numbers["oldest"] <= numbers["newest"]

    def test_a_file_that_is_none_is_wrong_usage(self, run, tmp_path, path):
        assert run("cache", "stats", path).code == 2
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE people (name)")
        connection.close()
        ended = run("cache", "stats", path)
        assert ended.code == 2
        assert "another program" in ended.err

    def test_a_damaged_one_is_said_and_left(self, run, path):
        path.write_bytes(b"garbage" * 1000)
        ended = run("cache", "stats", path)
        assert ended.code == 3
        assert "cannot be used" in ended.err
        assert path.read_bytes() == b"garbage" * 1000


class TestClear:
    def test_all_of_them(self, run, filled):
        assert run("cache", "clear", filled).out == "3 answers removed\n"
        assert run("cache", "stats", filled).out.startswith("0 answers, ")

    def test_those_that_are_older(self, run, filled):
        with sqlite3.connect(filled) as connection:
            connection.execute("UPDATE answers SET made = made - 3 * 86400 WHERE id = 1")
        connection.close()
        assert run("cache", "clear", filled, "--older-than", 2).out == "1 answer removed\n"
        assert run("cache", "clear", filled, "--older-than", "much").code == 2

    def test_a_program_that_uses_it_goes_on(self, run, filled, chatpool_server):
        with ChatPool("m", base_url=chatpool_server.base_url, cache=Cache(filled)) as pool:
            pool.chat("ping")
            assert run("cache", "clear", filled).code == 0
            assert not pool.chat("ping").cached
            assert pool.chat("ping").cached


class TestExport:
    def test_lines_of_json(self, run, filled, chatpool_server):
        ended = run("cache", "export", filled)
        chat, speech, subtitles = map(json.loads, ended.out.splitlines())
        assert chat["answer"]["choices"][0]["message"]["content"] == "a secret prompt"  # the echo of the server
        assert chat["answer"]["usage"]["total_tokens"] > 0
        assert (chat["path"], chat["model"], chat["occurrence"]) == ("/chat/completions", "m", 0)
        assert chat["endpoint"] == chatpool_server.base_url
        assert (speech["path"], speech["form"]) == ("/audio/speech", "bytes")
        assert set(speech["answer"]) == {"base64"}
        assert isinstance(subtitles["answer"], str)

    def test_not_into_itself(self, run, filled):
        result = run("cache", "export", filled, "-o", filled)
        assert result.code == 2
        assert "is the cache itself" in result.err
        assert run("cache", "stats", filled).out.startswith("3 answers")

    def test_into_a_file(self, run, filled, tmp_path):
        ended = run("cache", "export", filled, "-o", tmp_path / "out.jsonl")
        assert ended.out == ""
        assert "3 answers" in ended.err
        assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 3
        assert run("cache", "export", filled, "-o", tmp_path / "nowhere" / "out.jsonl").code == 2
