"""Shards of every format of input: what is merged is what one run would have written; and shards of Parquet."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import os
import sys

import pytest
from batch_rows import batch_line

import chatpool
from chatpool import ConfigurationError
from chatpool.batch import shards
from chatpool.batch.input_tables import parquet_batches
from chatpool.testing import Answer, chat_completion


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def run_all(pool):
    """``run_all(plan)`` runs every shard, the last one first."""
    return lambda plan: [shards.run(plan, each.index, pool=pool, progress=False) for each in reversed(plan.shards)]


@pytest.fixture
def parquet(tmp_path):
    """``parquet(rows, name="in.parquet", **options)`` writes a list or a table of rows; skips without pyarrow."""
    pyarrow = pytest.importorskip("pyarrow", reason="reads and writes Parquet")
    module = pytest.importorskip("pyarrow.parquet")

    def write(rows, name="in.parquet", **options):
        table = pyarrow.Table.from_pylist(rows) if isinstance(rows, list) else rows
        module.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return write


def same_answer_to(request):
    """An answer in which nothing says when it was given; row 3 is refused."""
    is_refused = request.prompt == "row 3"
    body = {"error": {"message": "no"}} if is_refused else chat_completion(f"to {request.prompt}")
    return Answer(body=body, status=400 if is_refused else 200, headers={"x-request-id": "req_0"})


# -- what one run would have written -------------------------------------------------------------------------------

ROWS = range(11)


def jsonl(path, _parquet):
    path.write_text("".join(batch_line(f"id {10 * row}", f"row {row}") for row in ROWS))


def jsonl_gz(path, _parquet):
    path.write_bytes(gzip.compress("".join(json.dumps({"prompt": f"row {row}"}) + "\n" for row in ROWS).encode()))


def csv(path, _parquet):
    path.write_text('name;prompt\n"";""\n' + "".join(f'"{row}\n";row {row}\n' for row in ROWS))


def text(path, _parquet):
    path.write_text("\n\n" + "\n \n".join(f"row {row}" for row in ROWS))


def parquet_table(path, parquet):
    parquet([{"prompt": f"row {row}", "n": row} for row in ROWS] + [{"prompt": None, "n": None}], path.name)


@pytest.mark.parametrize(
    ("name", "write", "options"),
    [
        ("in.jsonl", jsonl, {}),
        ("in.jsonl.gz", jsonl_gz, {}),
        ("in.csv", csv, {"column": "prompt"}),
        ("in.txt", text, {}),
        ("in.parquet", parquet_table, {"column": "prompt"}),
    ],
)
@pytest.mark.parametrize("rows", [4, 100])
def test_shards_have_the_answers_of_one_run(
    request, tmp_path, folder, pool, run_all, chatpool_server, name, write, options, rows
):
    chatpool_server.set_script(same_answer_to)
    source = tmp_path / name
    write(source, request.getfixturevalue("parquet") if name == "in.parquet" else None)
    chatpool.batch.run(source, tmp_path / "whole.jsonl", pool=pool, progress=False, **options)
    plan = shards.split(source, folder, rows=rows, **options)
    assert len(plan.shards) == -(-len(ROWS) // rows)
    run_all(plan)
    shards.merge(plan, tmp_path / "merged.jsonl")
    for kind, count in (("jsonl", len(ROWS) - 1), ("errors.jsonl", 1)):
        merged, whole = [sorted((tmp_path / f"{run}.{kind}").read_bytes().splitlines()) for run in ("merged", "whole")]
        assert len(merged) == count
        assert merged == whole


# -- Parquet -------------------------------------------------------------------------------------------------------


def read(path):
    return pytest.importorskip("pyarrow.parquet").read_table(path)


@pytest.mark.parametrize("group_rows", [pytest.param(3, marks=pytest.mark.slow), 5000])
def test_shards_of_parquet_have_all_columns_with_their_types(parquet, folder, group_rows):
    pyarrow = pytest.importorskip("pyarrow")
    count = 2500  # more than are read at a time
    table = pyarrow.table(
        {
            "prompt": [f"row {row}" for row in range(count)],
            "word": pyarrow.array(["a", None] * (count // 2)).dictionary_encode(),
            "at": pyarrow.array([datetime.datetime(2026, 1, 2)] * count, pyarrow.timestamp("ns", "UTC")),
            "price": [decimal.Decimal("1.10")] * count,
            "picture": pyarrow.array([b"\xff\x00"] * count, pyarrow.large_binary()),
            "talk": [[{"role": "user", "content": None}]] * count,
        }
    ).replace_schema_metadata({"mine": "kept"})
    source = parquet(table, row_group_size=group_rows)
    plan = shards.split(source, folder, rows=999, column="prompt")
    parts = [read(shard.path) for shard in plan.shards]
    assert [part.num_rows for part in parts] == [999, 999, 502]
    assert all(part.schema.equals(read(source).schema, check_metadata=True) for part in parts)
    assert pyarrow.concat_tables(parts).equals(read(source))


def test_rows_of_parquet_have_the_numbers_that_they_have_in_the_whole(parquet, folder, run_all, tmp_path, ids):
    rows = ["a", None, "b", "c", None, None, "d"]
    source = parquet([{"prompt": prompt} for prompt in rows])
    plan = shards.split(source, folder, rows=2)
    assert [(shard.rows, shard.rows_before) for shard in plan.shards] == [(2, 0), (2, 2)]
    run_all(plan)
    shards.merge(plan, tmp_path / "merged.jsonl")
    assert ids(tmp_path / "merged.jsonl") == ["row-1", "row-2", "row-3", "row-4"]


def test_bad_rows_of_parquet_are_named_by_their_place_in_the_whole(parquet, folder, run_all, tmp_path, ids):
    source = parquet([{"id": name, "prompt": "a"} for name in ("a", "b", None, "c", "d")])
    with pytest.raises(ConfigurationError, match=r"row 3 of .*in\.parquet cannot be used: there is nothing in the"):
        shards.split(source, folder, rows=1, id_field="id")
    plan = shards.split(source, folder, rows=1, id_field="id", skip_bad_lines=True)
    run_all(plan)
    shards.merge(plan, tmp_path / "merged.jsonl")
    assert ids(tmp_path / "merged.jsonl") == ["a", "b", "c", "d"]


def test_two_rows_of_one_name_in_parquet_are_refused_with_both_places(parquet, folder):
    rows = [{"custom_id": str(row % 2000), "prompt": "a"} for row in range(2001)]
    with pytest.raises(ConfigurationError, match=r"row 2001 of .*'0' was there before, in row 1;"):
        shards.split(parquet(rows), folder, rows=1000)
    assert not (folder / "shards").exists()


def test_a_shard_of_parquet_that_was_cut_short_is_refused(parquet, folder, pool, chatpool_server):
    plan = shards.split(parquet([{"prompt": "a"}]), folder)
    with open(plan.shards[0].path, "r+b") as file:
        file.truncate(plan.shards[0].size - 1)
    with pytest.raises(ConfigurationError, match="not the file that split has written"):
        shards.run(plan, 0, pool=pool)
    assert chatpool_server.requests == []


def test_parquet_without_rows_is_refused(parquet, folder):
    pyarrow = pytest.importorskip("pyarrow")
    source = parquet(pyarrow.table({"prompt": pyarrow.array([], pyarrow.string())}))
    with pytest.raises(ConfigurationError, match="has no rows"):
        shards.split(source, folder)


def test_parquet_that_breaks_off_is_refused_and_leaves_nothing(parquet, folder):
    source = parquet([{"prompt": f"row {row}" * 50} for row in range(3000)], use_dictionary=False)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    source.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"in\.parquet"):
        shards.split(source, folder, rows=1000)
    assert not (folder / "shards").exists()


def test_reading_parquet_needs_the_memory_of_some_rows_and_not_of_the_file(parquet):
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"prompt": os.urandom(500).hex()} for _ in range(8000)]
    source = parquet(rows, row_group_size=500, use_dictionary=False)
    before = pyarrow.total_allocated_bytes()
    most = max(pyarrow.total_allocated_bytes() - before for _ in parquet_batches(str(source)))
    assert most < source.stat().st_size / 3


def test_without_pyarrow_the_error_names_the_extra(parquet, folder, monkeypatch):
    source = parquet([{"prompt": "a"}])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'chatpool\[tables\]'"):
        shards.split(source, folder)
