"""Batch runs with a cache: rows that another run has answered are not sent, whatever their file is called."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from chatpool import Budget, Cache, ChatPool, Limits, batch
from chatpool.testing import Answer, Error, FakeServer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


def write_prompts(path, prompts):
    lines = [json.dumps({"custom_id": f"r{number}", "prompt": prompt}) for number, prompt in enumerate(prompts)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_texts(path, texts):
    lines = [
        json.dumps({"custom_id": f"r{number}", "url": "/v1/embeddings", "method": "POST", "body": {"input": text}})
        for number, text in enumerate(texts)
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def bodies(target):
    lines = map(json.loads, target.read_text(encoding="utf-8").splitlines())
    return {line["custom_id"]: line["response"]["body"] for line in lines}


def texts(target):
    return {name: body["choices"][0]["message"]["content"] for name, body in bodies(target).items()}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_of_an_earlier_run_are_not_sent(tmp_path, path, processes):
    source = write_prompts(tmp_path / "in.jsonl", ["a", "b", "c"])
    with FakeServer() as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False}
        first = batch.run(source, tmp_path / "one.jsonl", **options)
        again = batch.run(source, tmp_path / "two.jsonl", processes=processes, **options)
        assert len(server.requests) == 3
    assert (again.succeeded, again.failed) == (3, 0)
    assert first.usage.total_tokens > 0 == again.usage.total_tokens
    assert texts(tmp_path / "two.jsonl") == texts(tmp_path / "one.jsonl") == {"r0": "a", "r1": "b", "r2": "c"}
    assert batch.report(tmp_path / "two.jsonl").usage.total_tokens == 0


@pytest.mark.slow
def test_what_one_process_keeps_the_others_find(tmp_path, path):
    source = write_prompts(tmp_path / "in.jsonl", [str(number) for number in range(200)])
    with FakeServer() as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False}
        batch.run(source, tmp_path / "one.jsonl", processes=3, **options)
        batch.run(source, tmp_path / "two.jsonl", **options)
        assert len(server.requests) == 200
    assert texts(tmp_path / "two.jsonl") == texts(tmp_path / "one.jsonl")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_equal_rows_are_samples_also_where_a_run_goes_on(tmp_path, path, processes):
    numbers = iter(range(100))
    source = write_prompts(tmp_path / "in.jsonl", ["ping"] * 6)
    with FakeServer(lambda request: Answer(str(next(numbers)))) as server:
        options = {"model": "m", "base_url": server.base_url, "progress": False, "max_workers": 1}
        batch.run(source, tmp_path / "one.jsonl", limit=3, cache=path, **options)
        batch.run(source, tmp_path / "one.jsonl", cache=path, processes=processes, **options)
        assert len(set(texts(tmp_path / "one.jsonl").values())) == 6
        batch.run(source, tmp_path / "two.jsonl", cache=path, **options)
        assert texts(tmp_path / "two.jsonl") == texts(tmp_path / "one.jsonl")
        assert len(server.requests) == 6


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_texts_to_embed_are_known_by_themselves(tmp_path, path, processes):
    source = write_texts(tmp_path / "in.jsonl", [f"text {number}" for number in range(30)])
    half = write_texts(tmp_path / "half.jsonl", [f"text {number}" for number in range(15)])
    with FakeServer() as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False}
        batch.run(half, tmp_path / "one.jsonl", max_pack=4, **options)
        sent = len(server.requests)
        result = batch.run(source, tmp_path / "two.jsonl", processes=processes, **options)
        assert sorted(text for request in server.requests[sent:] for text in request.body["input"]) == sorted(
            f"text {number}" for number in range(15, 30)
        )
    assert result.succeeded == 30
    one, two = bodies(tmp_path / "one.jsonl"), bodies(tmp_path / "two.jsonl")
    assert {name: two[name] for name in one} == one
    assert len(two) == 30


def test_a_vector_of_a_single_call_is_no_whole_answer(tmp_path, path):
    source = write_texts(tmp_path / "in.jsonl", ["text"])
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, cache=path) as pool:
        vector = pool.embed("text")
        batch.run(source, tmp_path / "out.jsonl", pool=pool, progress=False)
        assert len(server.requests) == 2
        assert bodies(tmp_path / "out.jsonl")["r0"]["data"][0]["embedding"] == vector
        assert pool.embed("text") == vector


def test_sounds_come_from_the_cache_too(tmp_path, path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"custom_id": "r0", "input": "one"}\n{"custom_id": "r1", "input": "two"}\n', encoding="utf-8")
    with FakeServer() as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False, "url": "speech"}
        batch.run(source, tmp_path / "one.jsonl", save_to=tmp_path / "a", **options)
        batch.run(source, tmp_path / "two.jsonl", save_to=tmp_path / "b", **options)
        assert len(server.requests) == 2
    for name in ("r0.mp3", "r1.mp3"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() != b""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_that_are_missing_offline_stay_pending(tmp_path, path, processes):
    source = write_prompts(tmp_path / "in.jsonl", ["a", "b"])
    with FakeServer() as server:
        with ChatPool("m", base_url=server.base_url, cache=Cache(path, account="x")) as pool:
            pool.chat("a")
        offline = {"cache": Cache(path, account="x", offline=True), "processes": processes}
        options = {"model": "m", "base_url": server.base_url, "progress": False}
        result = batch.run(source, tmp_path / "out.jsonl", **options, **offline)
        assert (result.succeeded, result.failed, result.pending) == (1, 0, 1)
        assert len(server.requests) == 1
        assert batch.run(source, tmp_path / "out.jsonl", **options).succeeded == 2
        assert [request.prompt for request in server.requests] == ["a", "b"]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_budget_that_is_used_up_does_not_keep_rows_from_the_cache(tmp_path, path, processes):
    source = write_prompts(tmp_path / "in.jsonl", ["a", "b"])
    with FakeServer() as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False}
        batch.run(source, tmp_path / "one.jsonl", **options)
        result = batch.run(source, tmp_path / "two.jsonl", budget=Budget(tokens=0), processes=processes, **options)
    assert (result.succeeded, result.fatal) == (2, None)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_runs_that_share_a_cache_and_are_killed_pay_little_twice(
    start_run, chatpool_server, write_rows, tmp_path, path, ids
):
    rows, kills, workers = 300, 5, 4
    source = write_rows(rows)
    options = ("--max-workers", workers, "--cache", path)
    for number in range(kills):
        seen = len(chatpool_server.requests)
        processes = [start_run(chatpool_server, source, tmp_path / f"{number}-{each}.jsonl", *options) for each in "ab"]
        chatpool_server.wait_for(min(seen + 30, rows), timeout=60)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
        chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=60)
    seen = len(chatpool_server.requests)
    process = start_run(chatpool_server, source, tmp_path / "last.jsonl", *options)
    assert process.communicate(timeout=120)[0] is not None
    assert process.returncode == 0
    assert sorted(ids(tmp_path / "last.jsonl")) == sorted(f"row {number}" for number in range(rows))
    # Both runs of a turn may ask for a row at the same time; no turn asks for what an earlier one has kept.
    assert len(chatpool_server.requests) - seen < rows - 30
    asked = len(chatpool_server.requests)
    process = start_run(chatpool_server, source, tmp_path / "again.jsonl", *options)
    assert process.communicate(timeout=120)[0] is not None
    assert len(chatpool_server.requests) == asked
    assert not list(tmp_path.glob("*.damaged*"))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_samples_of_fallbacks_come_from_the_cache_without_budget_and_days(tmp_path, path, processes):
    gone = Error(404, message="The model `m` does not exist.", code="model_not_found")
    source = write_prompts(tmp_path / "in.jsonl", ["a", "b", "c"])
    texts_of = {}
    with FakeServer(lambda request: gone if request.body["model"] == "m" else None) as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False, "samples": 3}
        options.update(fallbacks=["second"], processes=processes, limits=Limits(requests_per_day=50))
        for name in ("one", "two"):
            target, sent = tmp_path / f"{name}.jsonl", len(server.requests)
            assert batch.run(source, target, **options).succeeded == 3
            new = [request.body["model"] for request in server.requests[sent:]]
            assert new.count("second") == (9 if name == "one" else 0)
            texts_of[name] = {
                row: [choice["message"]["content"] for choice in body["choices"]]
                for row, body in bodies(target).items()
            }
    assert texts_of["one"] == texts_of["two"]


@pytest.mark.parametrize("samples", [1, 2])
def test_the_column_of_the_fallback(tmp_path, path, samples):
    gone = Error(404, message="The model `m` does not exist.", code="model_not_found")
    source = write_prompts(tmp_path / "in.jsonl", ["a"])
    with FakeServer(lambda request: gone if request.body["model"] == "m" else None) as server:
        options = {"model": "m", "base_url": server.base_url, "progress": False, "fields": ["fallback", "attempts"]}
        options.update(fallbacks=["n", "second"], samples=samples)
        server.set_script(lambda request: None if request.body["model"] == "second" else gone)
        for offline in (False, True):
            target = tmp_path / f"{offline}.csv"
            assert batch.run(source, target, cache=Cache(path, offline=offline), **options).succeeded == 1
            heading, row = target.read_text().split()
            fallback, attempts = map(int, row.split(","))
            assert (heading, fallback) == ("fallback,attempts", 2)
            # A sample that begins after another was refused asks no model again that is gone.
            assert attempts == 0 if offline else 3 + samples - 1 <= attempts <= 3 * samples


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_samples_in_the_cache_need_no_budget(tmp_path, path, processes):
    source = write_prompts(tmp_path / "in.jsonl", ["a", "b"])
    with FakeServer() as server:
        options = {"model": "m", "base_url": server.base_url, "cache": path, "progress": False, "samples": 3}
        batch.run(source, tmp_path / "one.jsonl", **options)
        result = batch.run(source, tmp_path / "two.jsonl", budget=Budget(tokens=0), processes=processes, **options)
        assert (result.succeeded, result.fatal) == (2, None)
        assert len(server.requests) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.slow
def test_samples_of_a_run_that_was_killed_are_not_paid_again(
    start_run, chatpool_server, write_rows, tmp_path, path, ids
):
    rows = 60
    source = write_rows(rows)
    options = ("--max-workers", 4, "--cache", path, "--samples", 3, "--fallback", "second", "--rpd", 100_000)
    process = start_run(chatpool_server, source, tmp_path / "killed.jsonl", *options)
    chatpool_server.wait_for(40, timeout=60)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=60)
    seen = len(chatpool_server.requests)
    process = start_run(chatpool_server, source, tmp_path / "last.jsonl", *options)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(ids(tmp_path / "last.jsonl")) == rows
    # One sample is one request here, and at most those of the four workers were not kept.
    assert len(chatpool_server.requests) <= 3 * rows + 4
    assert len(chatpool_server.requests) - seen < 3 * rows
