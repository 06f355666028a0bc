"""``--attach`` of ``chatpool run`` and ``chatpool ask``."""

from __future__ import annotations

import base64
import json
import os

import pytest

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    return path


def parts(request):
    return [part["type"] for part in request.body["messages"][-1]["content"]]


class TestAsk:
    def command(self, run, server, *arguments, **options):
        return run("ask", "--model", "m", "--base-url", server.base_url, *arguments, **options)

    def test_a_file_goes_with_the_prompt(self, run, chatpool_server, picture):
        ended = self.command(run, chatpool_server, "--attach", picture, "What is it?")
        assert ended == (0, "What is it?\n", "")
        image = chatpool_server.requests[0].body["messages"][0]["content"][1]["image_url"]["url"]
        assert image == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"

    def test_several_go_with_every_line(self, run, chatpool_server, picture):
        url = "https://example.invalid/b.png"
        ended = self.command(run, chatpool_server, "--lines", "--attach", picture, "--attach", url, stdin="one\ntwo\n")
        assert ended.lines == ["one", "two"]
        assert [parts(request) for request in chatpool_server.requests] == [["text", "image_url", "image_url"]] * 2

    def test_streamed_and_as_json_the_prompt_is_its_text(self, run, chatpool_server, picture):
        assert self.command(run, chatpool_server, "--stream", "--attach", picture, "a").out == "a\n"
        ended = self.command(run, chatpool_server, "--json", "--attach", picture, "a")
        assert json.loads(ended.out)["prompt"] == "a"
        assert base64.b64encode(PNG).decode() not in ended.out

    @pytest.mark.parametrize("name", ["none.png", "", "fifo", "text.bin"])
    def test_what_cannot_be_attached_is_said(self, run, chatpool_server, tmp_path, name):
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "fifo")
        (tmp_path / "text.bin").write_bytes(b"\0")
        ended = self.command(run, chatpool_server, "--attach", tmp_path / name, "What is it?")
        assert ended.code != 0
        assert ended.out == ""
        assert f"{tmp_path / name}" in ended.err
        assert "Traceback" not in ended.err
        assert not chatpool_server.requests


class TestRun:
    def command(self, run, server, source, *arguments):
        target = source.with_name("out.jsonl")
        return run("run", source, "-o", target, "--model", "m", "--base-url", server.base_url, *arguments)

    def test_a_column_names_files_below_the_folder_of_the_input(self, run, chatpool_server, picture):
        source = picture.with_name("in.csv")
        source.write_text("question,file\nWhat is it?,a.png\n")
        ended = self.command(run, chatpool_server, source, "--column", "question", "--attach", "file")
        assert ended.code == 0
        assert [parts(request) for request in chatpool_server.requests] == [["text", "image_url"]]

    def test_a_template_may_be_one_text_for_all(self, run, chatpool_server, picture):
        source = picture.with_name("in.txt")
        source.write_text("a.png\n")
        ended = self.command(run, chatpool_server, source, "--template", "Describe it.", "--attach", "text")
        assert ended.code == 0
        assert chatpool_server.requests[0].prompt == "Describe it."

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
    def test_a_row_that_names_a_pipe_fails_and_the_run_goes_on(self, run, chatpool_server, picture):
        os.mkfifo(picture.with_name("fifo.png"))
        source = picture.with_name("in.csv")
        source.write_text("prompt,file\na,fifo.png\nb,a.png\n")
        ended = self.command(run, chatpool_server, source, "--attach", "file")
        assert ended.code == 1
        assert len(chatpool_server.requests) == 1
        errors = source.with_name("out.errors.jsonl").read_text()
        assert "no regular file" in errors

    def test_two_columns_and_another_folder(self, run, chatpool_server, picture, tmp_path_factory):
        source = tmp_path_factory.mktemp("elsewhere") / "in.jsonl"
        source.write_text('{"prompt": "a", "one": "a.png", "two": ["a.png"]}\n')
        ended = self.command(
            run, chatpool_server, source, "--attach", "one", "--attach", "two", "--attach-folder", picture.parent
        )
        assert ended.code == 0
        assert parts(chatpool_server.requests[0]) == ["text", "image_url", "image_url"]

    def test_a_file_of_options_may_name_columns(self, run, chatpool_server, picture):
        source, config = picture.with_name("in.csv"), picture.with_name("c.toml")
        source.write_text("prompt,file\na,a.png\n")
        config.write_text('attach = ["file"]\n')
        assert self.command(run, chatpool_server, source, "--config", config).code == 0
        assert parts(chatpool_server.requests[0]) == ["text", "image_url"]

    def test_shards_take_it(self, run, chatpool_server, picture, tmp_path):
        source = picture.with_name("in.csv")
        source.write_text("prompt,file\na,a.png\n")
        assert run("shards", "split", source, tmp_path / "plan", "--attach", "file").code == 0
        server = ["--model", "m", "--base-url", chatpool_server.base_url]
        assert run("shards", "run", tmp_path / "plan", "--all", *server).code == 0
        assert parts(chatpool_server.requests[0]) == ["text", "image_url"]
