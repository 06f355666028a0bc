"""``batch.run(attach=)``: files that the rows name go out beside their prompts."""

from __future__ import annotations

import base64
import io
import json
import os
import sys

import pytest

import chatpool
from chatpool import ConfigurationError
from chatpool.batch import run, shards

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path):
    """A folder ``data`` with pictures that differ, which is not the current one."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        (folder / "images" / f"{number}.png").write_bytes(PNG + bytes([number]))
    return folder


def table(folder, text, name="in.csv"):
    path = folder / name
    path.write_text(text)
    return path


def received(server):
    """Prompt and pictures of each request, sorted: rows are sent in any order."""
    return sorted((request.prompt, *_pictures(request.body)) for request in server.requests)


def _pictures(body):
    urls = [part.get("image_url") for part in (body.get("messages") or body["input"])[-1]["content"]]
    texts = [url if isinstance(url, str) else url["url"] for url in urls if url]
    return [base64.b64decode(text.partition(",")[2])[-1] if text.startswith("data:") else text for text in texts]


class TestRows:
    def test_a_column_of_paths_beside_a_column_of_prompts(self, pool, chatpool_server, folder, tmp_path):
        source = table(folder, "prompt,file\nwhat is it,images/0.png\nwho is it,images/1.png\n")
        result = run(source, tmp_path / "out.jsonl", pool=pool, attach="file")
        assert result.succeeded == 2
        assert received(chatpool_server) == [("what is it", 0), ("who is it", 1)]

    def test_one_text_for_all(self, pool, chatpool_server, folder, tmp_path):
        source = table(folder, "file\nimages/0.png\nimages/1.png\n")
        run(source, tmp_path / "out.jsonl", pool=pool, attach=["file"], template="Describe it.")
        assert received(chatpool_server) == [("Describe it.", 0), ("Describe it.", 1)]

    def test_a_text_of_paths(self, pool, chatpool_server, folder, tmp_path):
        source = table(folder, "images/0.png\nimages/1.png\n", "in.txt")
        run(source, tmp_path / "out.jsonl", pool=pool, attach="text", template="Describe it.")
        assert received(chatpool_server) == [("Describe it.", 0), ("Describe it.", 1)]
        with pytest.raises(ConfigurationError, match="say what to ask about each"):
            run(source, tmp_path / "two.jsonl", pool=pool, attach="text")

    def test_several_columns_lists_and_urls(self, pool, chatpool_server, folder, tmp_path):
        url = "https://example.invalid/a.png"
        rows = [
            {"prompt": "a", "one": "images/0.png", "more": ["images/1.png", url]},
            {"prompt": "b", "one": str(folder / "images" / "2.png"), "more": []},
        ]
        source = table(folder, "".join(json.dumps(row) + "\n" for row in rows), "in.jsonl")
        run(source, tmp_path / "out.jsonl", pool=pool, attach=["one", "more"])
        assert received(chatpool_server) == [("a", 0, 1, url), ("b", 2)]

    @pytest.mark.parametrize(
        "row",
        [
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            {"custom_id": "x", "body": {"messages": [{"role": "user", "content": "a"}]}},
            {"input": "a"},
            {"input": [{"role": "user", "content": "a"}]},
        ],
    )
    def test_they_go_into_the_last_user_message(self, pool, chatpool_server, folder, tmp_path, row):
        source = table(folder, json.dumps({**row, "file": "images/3.png"}) + "\n", "in.jsonl")
        assert run(source, tmp_path / "out.jsonl", pool=pool, attach="file").succeeded == 1
        assert received(chatpool_server) == [("a", 3)]
        assert "file" not in chatpool_server.requests[0].body

    def test_bytes_of_parquet(self, pool, chatpool_server, folder, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet")
        arrow = pytest.importorskip("pyarrow")
        table_of_bytes = arrow.table({"prompt": ["a"], "image": [PNG + b"\x05"]})
        parquet.write_table(table_of_bytes, folder / "in.parquet")
        assert run(folder / "in.parquet", tmp_path / "out.jsonl", pool=pool, attach="image").succeeded == 1
        assert received(chatpool_server) == [("a", 5)]

    def test_relative_paths_are_below_the_folder_that_is_said(self, pool, chatpool_server, folder, tmp_path):
        source = table(tmp_path, "prompt,file\na,0.png\n")
        run(source, tmp_path / "out.jsonl", pool=pool, attach="file", attach_folder=folder / "images")
        assert received(chatpool_server) == [("a", 0)]

    def test_those_of_standard_input_are_below_the_current_one(
        self, pool, chatpool_server, folder, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(folder)
        rows = b'{"prompt": "a", "file": "images/2.png"}\n'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows)))
        run("-", tmp_path / "out.csv", pool=pool, attach="file")
        assert received(chatpool_server) == [("a", 2)]
        assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("a,images/2.png,a")


class TestFaults:
    def test_a_missing_file_fails_its_row_only(self, pool, chatpool_server, folder, tmp_path, read_lines):
        source = table(folder, "prompt,file\na,images/0.png\nb,images/none.png\nc,\n")
        result = run(source, tmp_path / "out.jsonl", pool=pool, attach="file")
        assert (result.succeeded, result.failed, result.fatal) == (1, 2, None)
        messages = {line["custom_id"]: line["error"]["message"] for line in read_lines(tmp_path / "out.errors.jsonl")}
        assert f"{os.path.join(folder, 'images/none.png')} cannot be read: No such file" in messages["row-3"]
        assert "there is nothing in 'file'" in messages["row-4"]
        assert len(chatpool_server.requests) == 1

    @pytest.mark.parametrize(
        ("text", "name", "options", "message"),
        [
            ("prompt,file\na,b\n", "in.csv", {"attach": "files"}, "no column 'files'; it has prompt, file"),
            ('{"prompt": "a"}\n', "in.jsonl", {"attach": "file"}, "no field 'file' to attach"),
            ('{"prompt": "a", "file": 7}\n', "in.jsonl", {"attach": "file"}, "'file' must be a path, a URL or a list"),
            ('{"prompt": "a", "file": "b"}\n', "in.jsonl", {"attach": "file", "url": "/v1/completions"}, "no files"),
            ("file,other\na,b\n", "in.csv", {"attach": "file"}, None),
            ("prompt\na\n", "in.csv", {"attach": ["a", "a"]}, "attach must be the name of a column"),
            ("prompt\na\n", "in.csv", {"attach": [1]}, "attach must be the name of a column"),
            ("prompt\na\n", "in.csv", {"template": "no field"}, "has no place for a field"),
        ],
    )
    def test_a_mistake_is_named_before_anything_is_sent(
        self, pool, chatpool_server, folder, tmp_path, text, name, options, message
    ):
        source = table(folder, text, name)
        if message is None:  # of two columns the one that is left is the prompt
            assert run(source, tmp_path / "out.jsonl", pool=pool, dry_run=True, **options).pending == 1
        else:
            with pytest.raises(ConfigurationError, match=message):
                run(source, tmp_path / "out.jsonl", pool=pool, **options)
        assert not chatpool_server.requests


class TestGoingOn:
    def test_only_a_row_whose_file_has_changed_is_sent_again(self, pool, chatpool_server, folder, tmp_path):
        source = table(folder, "prompt,file\na,images/0.png\nb,images/1.png\n")
        run(source, tmp_path / "out.jsonl", pool=pool, attach="file")
        assert run(source, tmp_path / "out.jsonl", pool=pool, attach="file").done_before == 2
        (folder / "images" / "1.png").write_bytes(PNG + b"\x09")
        assert run(source, tmp_path / "out.jsonl", pool=pool, attach="file").changed == 1
        assert received(chatpool_server) == [("a", 0), ("b", 1), ("b", 9)]

    def test_no_content_is_in_what_is_written(self, pool, folder, tmp_path):
        (folder / "images" / "0.png").write_bytes(PNG + b"s3cret of a picture")
        source = table(folder, "prompt,file\na,images/0.png\nb,images/none.png\n")
        run(source, tmp_path / "out.jsonl", pool=pool, attach="file")
        run(source, tmp_path / "out.csv", pool=pool, attach="file")
        written = b"".join(path.read_bytes() for path in tmp_path.glob("out.*"))
        assert b"images/none.png" in written
        assert base64.b64encode(PNG)[:10] not in written
        assert b"s3cret" not in written

    def test_a_dry_run_counts_them_and_sends_nothing(self, pool, chatpool_server, folder, tmp_path):
        source = table(folder, "prompt,file\na,images/0.png\nb,images/1.png\n")
        assert 1600 <= run(source, tmp_path / "o.jsonl", pool=pool, attach="file", dry_run=True).estimated_tokens < 1700
        assert not chatpool_server.requests

    @pytest.mark.slow
    def test_several_processes_read_them(self, chatpool_server, folder, tmp_path):
        names = [number % 4 for number in range(12)]
        source = table(folder, "prompt,file\n" + "".join(f"p{i},images/{name}.png\n" for i, name in enumerate(names)))
        with chatpool.ChatPool("m", base_url=chatpool_server.base_url, max_workers=4) as pool:
            result = run(source, tmp_path / "out.jsonl", pool=pool, attach="file", processes=2)
        assert result.succeeded == 12
        assert received(chatpool_server) == sorted((f"p{i}", name) for i, name in enumerate(names))

    def test_shards_find_them_in_the_folder_of_the_whole_input(
        self, pool, chatpool_server, folder, tmp_path, monkeypatch
    ):
        source = table(folder, "prompt,file\na,images/0.png\nb,images/1.png\nc,images/2.png\n")
        monkeypatch.chdir(folder)
        plan = shards.split("in.csv", tmp_path / "plan", rows=2, attach="file")
        monkeypatch.chdir(tmp_path)
        assert shards.split(source, tmp_path / "plan", rows=2, attach=["file"]).options == plan.options
        for index in range(2):
            assert shards.run(plan, index, pool=pool)["failed"] == 0
        assert received(chatpool_server) == [("a", 0), ("b", 1), ("c", 2)]
