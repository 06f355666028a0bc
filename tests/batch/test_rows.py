"""What the lines of every kind of input ask for."""

from __future__ import annotations

import gzip
import io
import os
import sys

import pytest

import chatpool
from chatpool import ChatPool, ConfigurationError
from chatpool.batch.input_files import Source
from chatpool.batch.input_format import InputFormat

CHAT = "/v1/chat/completions"


@pytest.fixture
def ask(chatpool_server, tmp_path):
    """``ask(content, name, **options)`` runs an input; returns its kind and the requests it led to, by row."""

    def run(content, name="in.jsonl", **options):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=1) as pool:
            result = chatpool.batch.run(
                path, tmp_path / "out.jsonl", pool=pool, progress=False, in_order=True, **options
            )
        requests = chatpool_server.requests
        return result.kind, [(request.path, request.body) for request in requests]

    return run


def chat(prompt, **more):
    return (CHAT, {**more, "messages": [{"role": "user", "content": prompt}], "model": more.get("model", "m")})


@pytest.mark.parametrize(
    ("line", "kind", "request_"),
    [
        ('{"prompt": "hi", "country": "x", "temperature": 0}', "objects with prompt", chat("hi", temperature=0)),
        (
            '{"messages": [{"role": "user", "content": "hi"}], "user": "u"}',
            "objects with messages",
            chat("hi", user="u"),
        ),
        (
            '{"model": "n", "messages": [{"role": "user", "content": "hi"}], "metadata": {"row": 1}}',
            "request bodies, one a line",
            chat("hi", model="n"),
        ),
        (
            '[{"model": "n", "messages": [{"role": "user", "content": "hi"}]}, {"error": "x"}, {"row": 1}]',
            "pairs of request and answer",
            chat("hi", model="n"),
        ),
        (
            '{"model": "embed-small", "input": "hi"}',
            "request bodies, one a line",
            ("/v1/embeddings", {"model": "embed-small", "input": ["hi"]}),
        ),
        ('{"input": "hi"}', "objects with input", ("/v1/responses", {"model": "m", "input": "hi"})),
        (
            '{"custom_id": "a", "url": "/v1/completions", "body": {"model": "n", "prompt": "hi"}}',
            "OpenAI batch lines",
            ("/v1/completions", {"model": "n", "prompt": "hi"}),
        ),
        (
            '{"custom_id": "a", "url": "/v1/moderations", "body": {"input": "hi"}}',
            "OpenAI batch lines",
            ("/v1/moderations", {"input": "hi"}),
        ),
        (
            '{"custom_id": "a", "url": "/v1/embeddings", "body": {"model": "e", "input": ["hi", "ho"]}}',
            "OpenAI batch lines",
            ("/v1/embeddings", {"model": "e", "input": ["hi", "ho"]}),
        ),
        (
            '{"custom_id": "a", "url": "/v1/responses", "body": {"model": "n", "input": "hi"}}',
            "OpenAI batch lines",
            ("/v1/responses", {"model": "n", "input": "hi"}),
        ),
    ],
)
def test_lines_of_json(ask, line, kind, request_):
    recognised, requests = ask("\ufeff" + line + "\r\n")
    assert recognised.startswith(kind)
    assert requests == [request_]


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/completions", {"model": "m", "prompt": "hi"}),
        ("completions", {"model": "m", "prompt": "hi"}),
        ("/embeddings", {"model": "m", "input": ["hi"]}),
        ("/v1/responses", {"model": "m", "input": "hi"}),
        ("/v1/moderations", {"input": "hi"}),
    ],
)
def test_a_url_says_where_texts_go(ask, url, body):
    _, requests = ask("hi\n", "in.txt", url=url)
    assert requests == [("/v1/" + url.strip("/").removeprefix("v1/"), body)]


def test_lines_of_text_are_prompts_and_empty_ones_none(ask):
    kind, requests = ask("one\r\n\n  two \n \nthree", "in.txt")
    assert kind == "text, one prompt a line"
    assert requests == [chat("one"), chat("  two "), chat("three")]


def test_text_without_a_name_for_it_is_recognised(ask):
    assert ask("one\n", "prompts")[0] == "text, one prompt a line"


CSV = 'id,text,lang\n1,"Hello, ""you""",de\n2,"two\nlines",fr\n'


def test_a_column_of_csv(ask):
    kind, requests = ask(CSV, "in.csv", column="text")
    assert kind == "CSV, prompts in column 'text'"
    assert requests == [chat('Hello, "you"'), chat("two\nlines")]


def test_csv_without_a_name_for_it_is_recognised_by_the_column(ask):
    assert ask(CSV, "data", column="text")[0] == "CSV, prompts in column 'text'"


@pytest.mark.parametrize("content", ["Prompt,x\nhi,1\n", "anything\nhi\n"])
def test_the_column_can_be_clear(ask, content):
    assert ask(content, "in.csv")[1] == [chat("hi")]


@pytest.mark.parametrize("content", ["prompt;x\nhi, you;1\n", "prompt\tx\nhi, you\t1\n"])
def test_not_every_table_has_commas(ask, content):
    assert ask(content, "in.csv")[1] == [chat("hi, you")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prompt,prompt\nhi,ho\n", "two columns 'prompt'"),
        ('prompt\n"hi\nho\n', "line 2 .* cannot be used: not CSV: unexpected end"),
        ('"pro"mpt\nhi\n', "line 1 of .* is not CSV"),
    ],
)
def test_a_table_that_would_lose_rows_is_refused(ask, content, words):
    with pytest.raises(ConfigurationError, match=words):
        ask(content, "in.csv")


def test_a_list_of_requests_on_one_line_is_refused(ask):
    with pytest.raises(ConfigurationError, match="write each of them on a line of its own"):
        ask('[{"prompt": "a"}, {"prompt": "b"}]\n')


def test_embeddings_among_other_rows_come_whole(ask, tmp_path, read_lines):
    ask('{"prompt": "hi"}\n{"model": "embed", "input": "ho"}\n{"prompt": "hu"}\n')
    bodies = [line["response"]["body"] for line in read_lines(tmp_path / "out.jsonl")]
    assert [body["object"] for body in bodies] == ["chat.completion", "list", "chat.completion"]


def test_a_table_with_tabs(ask):
    assert ask("prompt\tx\nhi\t1\n", "in.tsv")[1] == [chat("hi")]


@pytest.mark.parametrize(
    ("options", "words"), [({}, "has the columns id, text, lang: name the one"), ({"column": "t"}, "has no column 't'")]
)
def test_a_column_that_is_not_clear_is_asked_for(ask, options, words):
    with pytest.raises(ConfigurationError, match=words):
        ask(CSV, "in.csv", **options)


@pytest.mark.parametrize(
    ("line", "reason"), [("1,2,3,4", "more fields"), ("1", "no field 'text'"), ("1,\xff,3", "not UTF-8")]
)
def test_bad_lines_of_csv(ask, line, reason):
    with pytest.raises(ConfigurationError, match=f"line 2 of .*{reason}"):
        ask(f"id,text,lang\n{line}\n".encode("latin-1"), "in.csv", column="text")


def test_a_template_fills_prompts_from_fields(ask):
    kind, requests = ask(CSV, "in.csv", template="To {lang}: {text} {{!}}", id_field="id")
    assert kind == "csv, prompts by template"
    assert requests == [chat('To de: Hello, "you" {!}'), chat("To fr: two\nlines {!}")]


def test_a_template_over_json_and_over_text(ask, tmp_path):
    _, requests = ask('{"a": "x", "n": [1]}\n', template="{a} {n}")
    assert requests == [chat("x [1]")]
    (tmp_path / "out.journal").unlink()
    (tmp_path / "out.jsonl").unlink()
    _, requests = ask("hi\n", "in.txt", template="Translate: {text}")
    assert requests[1:] == [chat("Translate: hi")]


def test_a_field_that_is_missing_is_a_bad_line(ask):
    with pytest.raises(ConfigurationError, match=r"line 2 of .* no field 'b' for the template \(there are: a\)"):
        ask('{"a": "x", "b": "y"}\n{"a": "x"}\n', template="{b}")


def test_rows_are_named_by_their_field(ask, ids, tmp_path):
    ask(CSV, "in.csv", column="text", id_field="id")
    assert ids(tmp_path / "out.jsonl") == ["1", "2"]


def test_metadata_comes_back_with_the_answer(ask, tmp_path, read_lines):
    ask('{"prompt": "hi", "metadata": {"row": 7}}\n')
    assert read_lines(tmp_path / "out.jsonl")[0]["metadata"] == {"row": 7}


def test_the_version_of_a_url_is_kept_where_the_base_url_has_none(chatpool_server, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"custom_id": "a", "url": "/v1/completions", "body": {"model": "n", "prompt": "hi"}}\n')
    with ChatPool("m", base_url=chatpool_server.origin) as pool:
        chatpool.batch.run(source, tmp_path / "out.jsonl", pool=pool, progress=False)
    assert chatpool_server.requests[0].path == "/v1/completions"


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.txt.gz", "in.csv.gz", "in.gz"])
def test_gzip_is_unpacked_whatever_its_name(ask, name):
    content = {"in.jsonl.gz": '{"prompt": "hi"}\n', "in.txt.gz": "hi\n", "in.csv.gz": "prompt\nhi\n", "in.gz": "hi\n"}
    assert ask(gzip.compress(content[name].encode()), name)[1] == [chat("hi")]


def test_gzip_that_breaks_off_is_said_before_anything_is_sent(ask, chatpool_server):
    packed = gzip.compress("".join(f"{os.urandom(100).hex()}\n" for _ in range(2_000)).encode())
    with pytest.raises(ConfigurationError, match=r"cannot read .*in.gz: Compressed file ended"):
        ask(packed[:-100], "in.gz")
    assert chatpool_server.requests == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hi\n".encode("utf-16"), "is UTF-16"),
        (b"good\n\xff bad\n", "line 2 of .*not UTF-8: invalid start byte at byte 0"),
    ],
)
def test_what_is_not_utf_8_is_said(ask, content, words):
    with pytest.raises(ConfigurationError, match=words):
        ask(content, "in.txt")


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read .*nothing.jsonl: No such file"):
        chatpool.batch.run(tmp_path / "nothing.jsonl", tmp_path / "out.jsonl", base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input_is_read_as_it_comes(monkeypatch, chatpool_server, tmp_path, ids, packed):
    data = b'{"prompt": "one"}\n{"prompt": "two"}\n'
    stdin = io.BufferedReader(io.BytesIO(gzip.compress(data) if packed else data))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
    result = chatpool.batch.run("-", tmp_path / "out.jsonl", base_url=chatpool_server.base_url, progress=False)
    assert (result.kind, result.succeeded, result.pending) == ("objects with prompt", 2, 0)
    assert sorted(ids(tmp_path / "out.jsonl")) == ["row-1", "row-2"]


def test_a_bad_line_of_standard_input_ends_it_when_those_before_are_done(monkeypatch, chatpool_server, tmp_path, ids):
    stdin = io.BufferedReader(io.BytesIO(b'{"prompt": "one"}\n{oops\n{"prompt": "three"}\n'))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
    with pytest.raises(ConfigurationError, match="line 2 of standard input cannot be used"):
        chatpool.batch.run("-", tmp_path / "out.jsonl", base_url=chatpool_server.base_url, progress=False)
    assert ids(tmp_path / "out.jsonl") == ["row-1"]


def test_a_name_that_comes_twice_on_standard_input_ends_it(monkeypatch, chatpool_server, tmp_path, ids):
    stdin = io.BufferedReader(io.BytesIO(b'{"prompt": "one", "custom_id": "a"}\n{"prompt": "two", "custom_id": "a"}\n'))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
    with pytest.raises(ConfigurationError, match="line 2 of standard input: the custom_id 'a' was there before"):
        chatpool.batch.run("-", tmp_path / "out.jsonl", base_url=chatpool_server.base_url, progress=False)
    assert ids(tmp_path / "out.jsonl") == ["a"]


def test_a_sample_of_standard_input_is_refused(monkeypatch, chatpool_server, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"one\n"))))
    with pytest.raises(ConfigurationError, match="sample cannot be drawn from standard input"):
        chatpool.batch.run("-", tmp_path / "out.jsonl", base_url=chatpool_server.base_url, sample=1)


def test_an_empty_input_is_no_error(ask):
    assert ask("")[1] == []


def test_long_fields_of_csv_are_taken(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("prompt\n" + "x" * 300_000 + "\n")
    source = Source(str(path))
    (line,) = list(source)
    reading = InputFormat(source)
    reading.detect_format(line)
    assert len(reading.row(line).request.body["messages"][0]["content"]) == 300_000
