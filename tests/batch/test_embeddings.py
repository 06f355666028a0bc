"""Embeddings in batch runs: packed, row by row in the output, or as a matrix."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

import chatpool
from chatpool import ChatPool, ConfigurationError, batch
from chatpool.batch.output_files import write_npy
from chatpool.testing import Answer, Error, FakeServer, embedding_vector


@pytest.fixture
def texts(tmp_path):
    source = tmp_path / "in.jsonl"
    rows = [
        {"custom_id": f"row {number}", "method": "POST", "url": "/v1/embeddings", "body": {"input": f"text {number}"}}
        for number in range(40)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return source


@pytest.fixture
def run(chatpool_server, tmp_path):
    def start(source, name="out.jsonl", **options):
        with ChatPool("e", base_url=chatpool_server.base_url, max_workers=2, retry=0) as pool:
            return chatpool.batch.run(source, tmp_path / name, pool=pool, progress=False, dimensions=4, **options)

    return start


def test_rows_are_packed_and_each_has_a_line_of_its_own(run, texts, chatpool_server, tmp_path, read_lines):
    result = run(texts, in_order=True)
    assert len(chatpool_server.requests) == 1
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["custom_id"] for line in lines] == [f"row {number}" for number in range(40)]
    body = lines[7]["response"]["body"]
    assert list(body) == ["object", "model", "data", "usage"]
    assert body["data"] == [
        {"object": "embedding", "index": 0, "embedding": pytest.approx(embedding_vector("text 7", 4))}
    ]
    assert sum(line["response"]["body"]["usage"]["total_tokens"] for line in lines) == result.usage.total_tokens == 80


def test_a_bad_row_fails_alone_and_nothing_is_sent_twice(run, texts, chatpool_server, ids, tmp_path):
    chatpool_server.set_script(lambda request: Error(400) if "text 3" in request.body["input"] else None)
    result = run(texts)
    assert (result.succeeded, result.failed) == (39, 1)
    assert ids(tmp_path / "out.errors.jsonl") == ["row 3"]
    before = len(chatpool_server.requests)
    assert run(texts).done_before == 40
    assert len(chatpool_server.requests) == before


def test_rows_with_other_parameters_go_apart(run, tmp_path, chatpool_server):
    source = tmp_path / "in.jsonl"
    bodies = [{"input": "a"}, {"input": "b"}, {"input": "c", "user": "u"}, {"input": ["d", "e"]}, {"input": "f"}]
    rows = [{"custom_id": str(n), "url": "/v1/embeddings", "body": body} for n, body in enumerate(bodies)]
    rows.append({"custom_id": "chat", "url": "/v1/completions", "body": {"prompt": "p"}})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(source).succeeded == 6
    sent = sorted(json.dumps(request.body.get("input")) for request in chatpool_server.requests)
    assert sent == ['["a", "b"]', '["c"]', '["d", "e"]', '["f"]', "null"]


def test_a_matrix_needs_numpy(run, texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ConfigurationError, match="needs numpy"):
        run(texts, "out.npy")


class StandIn:
    """As much of numpy as a matrix needs."""

    lib = SimpleNamespace(
        format=SimpleNamespace(write_array_header_1_0=lambda file, header: file.write(repr(header).encode() + b"\n"))
    )

    @staticmethod
    def asarray(rows, dtype):
        return SimpleNamespace(tobytes=lambda: "".join(f"{row}\n" for row in rows).encode())


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr("chatpool.batch.output_files.check_numpy", StandIn)
    monkeypatch.setattr("chatpool.batch.output_files.check_numpy", StandIn)


def test_a_matrix_has_the_rows_of_the_input_in_its_order(run, texts, chatpool_server, tmp_path, stand_in):
    chatpool_server.set_script(lambda request: Error(400) if "text 3" in request.body["input"] else None)
    result = run(texts, "out.npy")
    header, *rows = (tmp_path / "out.npy").read_text().splitlines()
    assert header == "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 4)}"
    assert rows[3] == "[nan, nan, nan, nan]"
    assert json.loads(rows[7]) == pytest.approx(embedding_vector("text 7", 4))
    assert result.output == str(tmp_path / "out.npy")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 39
    assert not list(tmp_path.glob("*.new*"))


def test_vectors_of_different_lengths_are_no_matrix(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr("chatpool.batch.output_files.decode_record", lambda line: line)
    monkeypatch.setattr("chatpool.batch.output_files.vector_in", lambda line: line)
    with pytest.raises(ConfigurationError, match="row 1 has 3 numbers, those before have 2"):
        write_npy(str(tmp_path / "x.npy"), [[1, 2], [1, 2, 3]])
    with pytest.raises(ConfigurationError, match="no vector"):
        write_npy(str(tmp_path / "x.npy"), [None])
    assert not list(tmp_path.iterdir())


def test_one_text_without_a_vector_costs_one_row(tmp_path, instant_waits):
    (tmp_path / "in.txt").write_text("".join(f"text {number}\n" for number in range(40)))

    def script(request):
        texts = request.body["input"]
        if "text 7" in texts:
            return Error(500)
        data = [{"index": place, "embedding": [1.0]} for place in range(len(texts))]
        if "text 9" in texts:
            data[texts.index("text 9")]["embedding"] = [float("nan")]
        return Answer(body={"object": "list", "data": data})

    with FakeServer(script) as server:
        result = batch.run(
            tmp_path / "in.txt", tmp_path / "out.jsonl", url="/v1/embeddings", model="m", base_url=server.base_url
        )
    assert (result.succeeded, result.failed) == (38, 2)
    assert "NaN" not in (tmp_path / "out.jsonl").read_text()


@pytest.mark.slow
def test_max_pack_holds_in_every_process(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"text {number}\n" for number in range(40)))
    for processes in (1, 2):
        with FakeServer() as server:
            options = {"url": "/v1/embeddings", "model": "m", "base_url": server.base_url, "max_pack": 3}
            result = batch.run(tmp_path / "in.txt", tmp_path / f"out{processes}.jsonl", processes=processes, **options)
        assert result.succeeded == 40
        assert max(len(request.body["input"]) for request in server.requests) <= 3


def test_vectors_in_base64_reach_a_matrix(run, texts, tmp_path, stand_in):
    assert run(texts, "out.npy", encoding_format="base64").succeeded == 40
    assert isinstance(json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["response"], dict)
    _, *rows = (tmp_path / "out.npy").read_text().splitlines()
    assert json.loads(rows[7]) == pytest.approx(embedding_vector("text 7", 4), rel=1e-6)


def test_several_vectors_in_a_row_are_no_matrix(run, tmp_path, stand_in):
    source = tmp_path / "in.jsonl"
    source.write_text('{"custom_id": "pair", "url": "/v1/embeddings", "body": {"input": ["a", "b"]}}\n')
    with pytest.raises(ConfigurationError, match="pair has 2 vectors, and a matrix takes one for each row"):
        run(source, "out.npy")
