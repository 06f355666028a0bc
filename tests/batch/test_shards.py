"""Shards: an input in parts that are run in any order, by anybody, and merged into what one run would have written."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import itertools
import json
import os
import threading
import time
from pathlib import Path

import pytest
from batch_rows import batch_line

import chatpool
from chatpool import ConfigurationError, JournalBusyError, JournalLostError
from chatpool._journal import FolderLease, folder_lease
from chatpool.batch import shards
from chatpool.testing import Answer, Error


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def run_all(pool):
    """``run_all(plan)`` runs every shard, the last one first."""

    def run_all(plan, **options):
        order = reversed(range(len(plan.shards)))
        return [shards.run(plan, index, pool=pool, progress=False, **options) for index in order]

    return run_all


@pytest.fixture
def merged_ids(folder, tmp_path, run_all, ids):
    """``merged_ids(source, rows)`` splits, runs and merges; returns the custom_ids of the merged file."""

    def merged_ids(source, rows, **options):
        plan = shards.split(source, folder, rows=rows, **options)
        run_all(plan)
        shards.merge(plan, tmp_path / "merged.jsonl")
        return ids(tmp_path / "merged.jsonl")

    return merged_ids


def assert_no_plan(folder):
    """There is nothing but the lease of a split that has ended."""
    assert [each.name for each in folder.rglob("*")] == [".splitting", "1.journal.lock"]


def texts(path):
    return [
        line["response"]["body"]["choices"][0]["message"]["content"]
        for line in map(json.loads, path.read_text().splitlines())
    ]


# -- split ---------------------------------------------------------------------------------------------------------


def test_shards_have_the_lines_of_the_input_in_its_order(write_rows, folder):
    source = write_rows(7)
    plan = shards.split(source, folder, rows=3)
    assert [shard.rows for shard in plan.shards] == [3, 3, 1]
    assert [shard.rows_before for shard in plan.shards] == [0, 3, 6]
    assert "".join(Path(shard.path).read_text() for shard in plan.shards) == source.read_text()


def test_the_manifest_says_what_was_split(write_rows, folder):
    source = write_rows(3)
    plan = shards.split(source, folder, rows=2)
    facts = json.loads(Path(plan.manifest).read_text())
    assert facts["source"] == str(source)
    assert facts["size"] == source.stat().st_size
    assert len(facts["sha256"]) == 64
    assert (facts["version"], facts["rows_per_shard"], len(facts["shards"])) == (1, 2, 2)


def test_a_second_split_writes_nothing_and_returns_the_same_plan(write_rows, folder):
    source = write_rows(3)
    plan = shards.split(source, folder, rows=2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert shards.split(source, folder, rows=2) == plan == shards.load(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path != folder} == {
        path: at for path, at in before.items() if path != folder
    }


def test_a_copy_of_the_input_at_another_place_has_the_same_plan(write_rows, folder, tmp_path):
    plan = shards.split(write_rows(3), folder, rows=2)
    assert shards.split(write_rows(3, "copy.jsonl"), folder, rows=2) == plan


def test_a_changed_input_is_refused(write_rows, folder):
    shards.split(write_rows(3), folder)
    with pytest.raises(ConfigurationError, match="has changed since"):
        shards.split(write_rows(4), folder)


def test_the_shards_of_another_input_are_refused(write_rows, folder):
    shards.split(write_rows(3), folder)
    with pytest.raises(ConfigurationError, match=r"those are of .*in\.jsonl"):
        shards.split(write_rows(4, "other.jsonl"), folder)


def test_other_arguments_are_refused_with_both_values(write_rows, folder):
    shards.split(write_rows(3), folder, rows=2)
    with pytest.raises(ConfigurationError, match="rows=2, not 3"):
        shards.split(write_rows(3), folder, rows=3)
    with pytest.raises(ConfigurationError, match="id_field=None, not 'name'"):
        shards.split(write_rows(3), folder, rows=2, id_field="name")


@pytest.mark.parametrize(("rows", "error"), [(0, ConfigurationError), (-1, ConfigurationError), ("2", TypeError)])
def test_a_wrong_number_of_rows_is_refused(write_rows, folder, rows, error):
    with pytest.raises(error, match="rows must be"):
        shards.split(write_rows(3), folder, rows=rows)
    assert not folder.exists()


def test_two_rows_of_one_name_are_refused_with_both_lines(tmp_path, folder):
    source = tmp_path / "in.jsonl"
    source.write_text(batch_line("a", "1") + "\n" + batch_line("b", "2") + batch_line("a", "3"))
    with pytest.raises(ConfigurationError, match=r"line 4 of .*'a' was there before, in line 1"):
        shards.split(source, folder, rows=1)
    assert_no_plan(folder)


def test_a_line_that_cannot_be_used_is_found_before_anything_is_sent(tmp_path, folder):
    source = tmp_path / "in.jsonl"
    source.write_text(batch_line("a", "1") + "{broken\n")
    with pytest.raises(ConfigurationError, match=r"line 2 of .* cannot be used"):
        shards.split(source, folder, rows=1)
    assert_no_plan(folder)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_input_without_rows_is_refused(tmp_path, folder, content):
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    with pytest.raises(ConfigurationError, match="has no rows"):
        shards.split(source, folder)


def test_inputs_that_cannot_be_split_are_refused(tmp_path, folder):
    workbook = pytest.importorskip("openpyxl").Workbook()
    workbook.active.append(["prompt"])
    workbook.save(tmp_path / "in.xlsx")
    with pytest.raises(
        ConfigurationError, match=r"in\.xlsx is a file of Excel, which is not split: save its rows as CSV"
    ):
        shards.split(tmp_path / "in.xlsx", folder)
    with pytest.raises(ConfigurationError, match="standard input cannot be split"):
        shards.split("-", folder)
    with pytest.raises(ConfigurationError, match=r"cannot split .*absent"):
        shards.split(tmp_path / "absent.jsonl", folder)
    with pytest.raises(ConfigurationError, match=r"cannot split "):
        shards.split(tmp_path, folder)


def test_a_folder_of_other_things_named_shards_is_left_alone(write_rows, folder):
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / "mine").write_text("mine")
    with pytest.raises(ConfigurationError, match="is no folder of shards"):
        shards.split(write_rows(3), folder)
    assert (folder / "shards" / "mine").read_text() == "mine"


def test_a_split_that_fails_leaves_no_plan(write_rows, folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            shards.split(write_rows(3), folder)
    assert_no_plan(folder)


def test_two_processes_do_not_split_into_one_folder_at_once(write_rows, folder):
    with FolderLease(str(folder / ".splitting")), pytest.raises(JournalBusyError):
        shards.split(write_rows(3), folder)


def test_what_a_killed_split_has_left_is_removed(write_rows, folder):
    (folder / ".splitting" / "3.shards").mkdir(parents=True)
    (folder / ".splitting" / "3.shards" / "00000.jsonl").touch()
    plan = shards.split(write_rows(3), folder)
    assert [each.name for each in (folder / ".splitting").iterdir()] == ["1.journal.lock"]
    assert plan.rows == 3


# -- numbers, names and formats ------------------------------------------------------------------------------------


def test_rows_without_a_name_are_numbered_over_all_shards(tmp_path, merged_ids):
    source = tmp_path / "in.txt"
    source.write_text("\n".join(f"prompt {number}" for number in range(5)) + "\n\n\nlast")
    assert merged_ids(source, 2) == [f"row-{number}" for number in range(1, 7)]
    assert texts(tmp_path / "merged.jsonl") == [*(f"prompt {number}" for number in range(5)), "last"]


def test_every_shard_of_csv_has_the_heading_and_whole_records(tmp_path, merged_ids, folder):
    source = tmp_path / "in.csv"
    source.write_text('sep=;\nname;prompt\r\na;"one\nline; more"\n;;\nb;two\n\nc;"a ""quoted"" one"\nd;four')
    assert merged_ids(source, 2, column="prompt", id_field="name") == ["a", "b", "c", "d"]
    assert texts(tmp_path / "merged.jsonl") == ["one\nline; more", "two", 'a "quoted" one', "four"]
    assert (folder / "shards" / "00001.csv").read_text().splitlines()[:2] == ["sep=;", "name;prompt"]


def test_rows_of_csv_have_the_names_that_one_run_would_give_them(tmp_path, merged_ids, pool, ids):
    source = tmp_path / "in.csv"
    source.write_text("prompt\none\ntwo\n\nthree\nfour\nfive\n")
    chatpool.batch.run(source, tmp_path / "whole.jsonl", pool=pool, progress=False, in_order=True)
    assert merged_ids(source, 2) == ids(tmp_path / "whole.jsonl")


def test_the_delimiter_is_that_of_the_whole_input(tmp_path, merged_ids):
    source = tmp_path / "in.csv"
    source.write_text("prompt, short;id\na;1\nb;2\nc, d;3\n")  # with nothing but the last row it could be the comma
    assert merged_ids(source, 1, column="prompt, short", id_field="id") == ["1", "2", "3"]


def test_a_compressed_input_gives_compressed_shards(tmp_path, write_rows, merged_ids, folder):
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(write_rows(5).read_bytes()))
    assert merged_ids(source, 2) == [f"row {number}" for number in range(5)]
    assert sorted(os.listdir(folder / "shards")) == [
        "00000.jsonl.gz",
        "00001.jsonl.gz",
        "00002.jsonl.gz",
        "manifest.json",
    ]


def test_an_input_in_another_encoding_is_read_as_that(tmp_path, merged_ids):
    source = tmp_path / "in.txt"
    source.write_bytes("Zürich\nGenève\n".encode("utf-16"))
    merged_ids(source, 1, encoding="utf-16")
    assert texts(tmp_path / "merged.jsonl") == ["Zürich", "Genève"]


def test_a_line_that_looks_like_the_head_of_another_file_is_a_prompt(tmp_path, merged_ids):
    source = tmp_path / "in.txt"
    source.write_text("first\nORC and other fantasy\nBZhang is a name\n")
    merged_ids(source, 1)
    assert texts(tmp_path / "merged.jsonl") == ["first", "ORC and other fantasy", "BZhang is a name"]


def test_lines_to_be_skipped_are_skipped_in_their_shard(tmp_path, merged_ids):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "one"}\n{broken\n{"prompt": "three"}\n[]\n{"prompt": "five"}\n')
    assert merged_ids(source, 1, skip_bad_lines=True) == ["row-1", "row-3", "row-5"]


def test_a_template_holds_for_every_shard(tmp_path, merged_ids):
    source = tmp_path / "in.csv"
    source.write_text("word\ncheese\nbread\n")
    merged_ids(source, 1, template="Translate: {word}")
    assert texts(tmp_path / "merged.jsonl") == ["Translate: cheese", "Translate: bread"]


# -- run -----------------------------------------------------------------------------------------------------------


def test_a_result_is_json_and_names_its_shard(write_rows, folder, pool):
    plan = shards.split(write_rows(5), folder, rows=2)
    result = shards.run(str(folder), 2, pool=pool, progress=False)
    assert json.loads(json.dumps(result)) == result
    assert (result["shard"], result["rows"], result["succeeded"], result["fatal"]) == (2, 1, 1, None)
    assert os.path.dirname(result["output"]) == plan.shards[2].answers


def test_a_second_run_sends_nothing(write_rows, folder, run_all, chatpool_server):
    plan = shards.split(write_rows(5), folder, rows=2)
    run_all(plan)
    results = run_all(plan)
    assert len(chatpool_server.requests) == 5
    assert sum(result["succeeded"] for result in results) == 5


def test_another_process_in_the_same_shard_is_an_error_of_its_own(write_rows, folder, pool):
    plan = shards.split(write_rows(2), folder)
    with (
        FolderLease(plan.shards[0].answers),
        pytest.raises(JournalBusyError, match=f"in use by process {os.getpid()}"),
    ):
        shards.run(plan, 0, pool=pool, progress=False)


@pytest.mark.parametrize("told_by", ["its next record", "its beat"])
def test_a_shard_that_another_host_has_taken_over_ends_here_and_is_merged_once(
    write_rows, folder, pool, tmp_path, ids, chatpool_server, monkeypatch, gate, told_by
):
    numbers = itertools.count()
    monkeypatch.setattr(folder_lease, "_machine_of", lambda descriptor: f"machine {next(numbers)}")
    monkeypatch.setattr(folder_lease, "_WATCH_SECONDS", 0.1)
    if told_by == "its beat":
        monkeypatch.setattr(folder_lease, "_BEAT_SECONDS", 2)
    else:
        monkeypatch.setattr(folder_lease, "_OWN_SECONDS", 0)

    def hold_first(request):
        if request.prompt == "row 7" and not held:
            held.append(request)
            gate.wait(60)
            return Answer("late")
        return None

    held = []
    chatpool_server.set_script(hold_first)
    plan = shards.split(write_rows(8), folder)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        first = threads.submit(shards.run, plan, 0, pool=pool, progress=False)
        chatpool_server.wait_for(8)
        lease = os.path.join(plan.shards[0].answers, "1.journal.lock")
        while not first.done():  # until its beat comes after ours
            with contextlib.suppress(FileNotFoundError):
                os.utime(lease, (1, 1))
            with contextlib.suppress(JournalBusyError):
                shards.run(plan, 0, model="gpt-4o-mini", base_url=chatpool_server.base_url, progress=False)
                break
        if told_by == "its next record":
            gate.set()
        with pytest.raises(JournalLostError, match="taken over by process"):
            first.result(60)
    shards.merge(plan, tmp_path / "merged.jsonl")
    assert ids(tmp_path / "merged.jsonl") == [f"row {number}" for number in range(8)]
    assert texts(tmp_path / "merged.jsonl")[7] != "late"
    assert len(chatpool_server.requests) == 9


@pytest.mark.parametrize("name", ["template", "encoding", "output", "journal", "lock", "rows_before"])
def test_options_that_the_plan_has_are_refused(write_rows, folder, pool, name):
    plan = shards.split(write_rows(2), folder)
    with pytest.raises(TypeError, match=f"{name}= is no option of one shard"):
        shards.run(plan, 0, pool=pool, **{name: "x"})


@pytest.mark.parametrize(("index", "error"), [(-1, ConfigurationError), (1, ConfigurationError), ("0", TypeError)])
def test_a_wrong_number_of_a_shard_is_refused(write_rows, folder, pool, index, error):
    plan = shards.split(write_rows(2), folder)
    with pytest.raises(error, match="index must be"):
        shards.run(plan, index, pool=pool)


@pytest.mark.parametrize("change", [lambda data: data + data, lambda data: data[:-9], lambda data: data.swapcase()])
def test_a_shard_that_was_changed_is_refused(write_rows, folder, pool, chatpool_server, change):
    plan = shards.split(write_rows(2), folder)
    path = Path(plan.shards[0].path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ConfigurationError, match="not the file that split has written"):
        shards.run(plan, 0, pool=pool)
    assert chatpool_server.requests == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "shards": 3}', "\x00"])
def test_a_manifest_that_is_none_is_an_error(write_rows, folder, content):
    plan = shards.split(write_rows(2), folder)
    with open(plan.manifest, "w") as file:
        file.write(content)
    with pytest.raises(ConfigurationError, match=r"manifest\.json"):
        shards.load(folder)


def test_a_folder_without_a_plan_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="make it with split"):
        shards.run(tmp_path, 0)


# -- status and merge ----------------------------------------------------------------------------------------------


def test_the_status_counts_rows_without_sending_any(write_rows, folder, pool, chatpool_server):
    chatpool_server.set_script({"row 1": Error(400, "no")})
    plan = shards.split(write_rows(5), folder, rows=2)
    shards.run(plan, 0, pool=pool, progress=False)
    sent = len(chatpool_server.requests)
    states = shards.status(folder)
    assert [(each.rows, each.done, each.failed, each.pending) for each in states] == [
        (2, 1, 1, 0),
        (2, 0, 0, 2),
        (1, 0, 0, 1),
    ]
    assert not any(each.is_running for each in states)
    assert len(chatpool_server.requests) == sent


def test_the_status_says_which_shard_is_running(write_rows, folder):
    plan = shards.split(write_rows(4), folder, rows=2)
    os.makedirs(folder / "answers")
    with FolderLease(plan.shards[1].answers):
        assert [each.is_running for each in shards.status(plan)] == [False, True]


def test_a_merge_is_in_the_order_of_the_input_and_the_same_again(
    write_rows, folder, run_all, tmp_path, ids, chatpool_server
):
    source = write_rows(23)
    plan = shards.split(source, folder, rows=5)

    def end_last(request):
        shard, place = divmod(int(request.prompt.split()[1]), 5)
        while place == 0 and shards.status(plan)[shard].pending > 1:
            time.sleep(0.01)

    chatpool_server.set_script(end_last)  # the first row of each shard
    assert ids(run_all(plan)[-1]["output"])[-1] == "row 0"
    result = shards.merge(plan, tmp_path / "merged.jsonl")
    first = (tmp_path / "merged.jsonl").read_bytes()
    assert ids(tmp_path / "merged.jsonl") == [f"row {number}" for number in range(23)]
    assert (result.rows, result.succeeded, result.failed, result.pending, result.missing) == (23, 23, 0, 0, [])
    assert result.usage.total_tokens > 0
    shards.merge(plan, tmp_path / "merged.jsonl")
    assert (tmp_path / "merged.jsonl").read_bytes() == first


def test_failures_are_merged_into_a_file_of_their_own(write_rows, folder, run_all, tmp_path, ids, chatpool_server):
    chatpool_server.set_script({"row 1": Error(400, "no"), "row 4": Error(400, "no")})
    plan = shards.split(write_rows(5), folder, rows=2)
    run_all(plan)
    result = shards.merge(plan, tmp_path / "merged.jsonl")
    assert ids(tmp_path / "merged.jsonl") == ["row 0", "row 2", "row 3"]
    assert ids(tmp_path / "merged.errors.jsonl") == ["row 1", "row 4"]
    assert (result.succeeded, result.failed, result.causes) == (3, 2, {"BadRequestError": 2})


def test_a_row_that_was_run_again_is_merged_once(write_rows, folder, run_all, tmp_path, ids, chatpool_server):
    chatpool_server.set_script({"row 1": Error(400, "no")})
    plan = shards.split(write_rows(4), folder, rows=2)
    run_all(plan)
    chatpool_server.set_script(None)
    run_all(plan, retry_failed=True)
    shards.merge(plan, tmp_path / "merged.jsonl")
    assert ids(tmp_path / "merged.jsonl") == [f"row {number}" for number in range(4)]
    assert ids(tmp_path / "merged.errors.jsonl") == []


def test_shards_that_are_not_done_are_refused_by_their_numbers(write_rows, folder, pool, tmp_path):
    plan = shards.split(write_rows(6), folder, rows=2)
    shards.run(plan, 1, pool=pool, progress=False)
    with pytest.raises(ConfigurationError, match=r"2 of 3 shards .* not done: 0 \(2 of 2 rows pending\), 2 \(2 of 2"):
        shards.merge(plan, tmp_path / "merged.jsonl")
    assert not (tmp_path / "merged.jsonl").exists()


def test_a_shard_that_is_running_is_not_done(write_rows, folder, run_all, tmp_path):
    plan = shards.split(write_rows(2), folder)
    run_all(plan)
    with FolderLease(plan.shards[0].answers), pytest.raises(ConfigurationError, match="running"):
        shards.merge(plan, tmp_path / "merged.jsonl")


def test_what_is_missing_may_be_left_out_and_is_told(write_rows, folder, pool, tmp_path, ids):
    plan = shards.split(write_rows(6), folder, rows=2)
    shards.run(plan, 1, pool=pool, progress=False)
    result = shards.merge(plan, tmp_path / "merged.jsonl", allow_missing=True)
    assert ids(tmp_path / "merged.jsonl") == ["row 2", "row 3"]
    assert (result.missing, result.rows, result.pending) == ([0, 2], 6, 4)


@pytest.mark.parametrize("name", ["merged.csv", "merged.npy", "merged.jsonl.gz", "-", "work/answers/00000.jsonl"])
def test_an_output_that_cannot_be_is_refused(write_rows, folder, run_all, tmp_path, name):
    pytest.importorskip("numpy")
    plan = shards.split(write_rows(2), folder)
    run_all(plan)
    with pytest.raises(ConfigurationError):
        shards.merge(plan, name if name == "-" else tmp_path / name)


def test_an_output_beside_the_answers_of_a_shard_is_refused(write_rows, folder, run_all):
    plan = shards.split(write_rows(2), folder)
    run_all(plan)
    before = sorted(os.listdir(plan.shards[0].answers))
    with pytest.raises(ConfigurationError, match="is a file of the plan"):
        shards.merge(plan, os.path.join(plan.shards[0].answers, "9.jsonl"))
    assert sorted(os.listdir(plan.shards[0].answers)) == before


def test_the_input_is_never_the_output(write_rows, folder, run_all):
    source = write_rows(2)
    before = source.read_bytes()
    plan = shards.split(source, folder)
    run_all(plan)
    with pytest.raises(ConfigurationError, match="or its input"):
        shards.merge(plan, source)
    assert source.read_bytes() == before


# -- what shards stand on ------------------------------------------------------------------------------------------


def test_a_run_tells_a_function_of_its_progress(write_rows, pool, tmp_path):
    told = []
    chatpool.batch.run(write_rows(3), tmp_path / "out.jsonl", pool=pool, progress=lambda facts: told.append(facts))
    chatpool.batch.run(write_rows(3), tmp_path / "out.jsonl", pool=pool, progress=lambda facts: told.append(facts))
    assert json.loads(json.dumps(told)) == told
    assert [(facts["total"], facts["succeeded"], facts["failed"], facts["done_before"]) for facts in told] == [
        (3, 0, 0, 0),
        (3, 3, 0, 3),
    ]


def test_an_error_of_that_function_ends_the_run_and_keeps_what_is_done(write_rows, pool, tmp_path, chatpool_server):
    def refuse(facts):
        raise ZeroDivisionError(threading.current_thread().name)

    with pytest.raises(ZeroDivisionError, match=threading.current_thread().name):
        chatpool.batch.run(write_rows(3), tmp_path / "out.jsonl", pool=pool, progress=refuse)
    result = chatpool.batch.run(write_rows(3), tmp_path / "out.jsonl", pool=pool, progress=False)
    assert result.succeeded == 3


@pytest.mark.parametrize(("rows_before", "error"), [(-1, ConfigurationError), (True, TypeError), ("1", TypeError)])
def test_a_wrong_number_of_rows_before_is_refused(write_rows, pool, tmp_path, rows_before, error):
    with pytest.raises(error, match="rows_before must be"):
        chatpool.batch.run(write_rows(1), tmp_path / "out.jsonl", pool=pool, rows_before=rows_before)


def test_the_bill_of_a_shard_has_all_its_runs(write_rows, folder, chatpool_server, pool):
    chatpool_server.set_script({"row 1": Error(400)})
    plan = shards.split(write_rows(6), folder, rows=3)
    assert shards.bill(plan, 0).usage.total_tokens == 0
    usage = shards.run(plan, 0, pool=pool, limit=2)["usage"]["total_tokens"]
    usage += shards.run(plan, 0, pool=pool)["usage"]["total_tokens"]
    assert shards.bill(folder, 0).usage.total_tokens == usage > 0
    assert shards.bill(folder, 0).cost is None
    assert shards.bill(folder, 0, 1_000_000).cost == shards.bill(folder, 0).usage.prompt_tokens
    assert shards.bill(plan, 1).usage.total_tokens == 0
    with pytest.raises(ConfigurationError, match="index must be 0 to 1"):
        shards.bill(plan, 2)
