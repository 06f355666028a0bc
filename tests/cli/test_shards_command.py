"""``chatpool shards``: a file in parts, from splitting to merging, and its exit codes."""

from __future__ import annotations

import json
import sys
import threading

import pytest

from chatpool import ChatPool, JournalBusyError
from chatpool.batch import BatchResult, shards
from chatpool.cli import shards as command
from chatpool.testing import Error, FakeClock

VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX")


@pytest.fixture(autouse=True)
def no_array(monkeypatch):
    """Nothing of the array that whoever runs the tests may be in."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def work(tmp_path):
    """The folder of three shards: rows 0 and 1, rows 2 and 3, row 4."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"custom_id": f"{row}", "prompt": f"row {row}"}) + "\n" for row in range(5)))
    shards.split(source, tmp_path / "work", rows=2)
    return tmp_path / "work"


@pytest.fixture
def run_shards(run, work, chatpool_server, instant_waits):
    """``run_shards(*arguments)`` runs ``chatpool shards run`` on that folder, against the test's server."""

    def command(*arguments):
        return run("shards", "run", work, "--model", "m", "--base-url", chatpool_server.base_url, *arguments)

    return command


def sent(server):
    return [request.prompt for request in server.requests]


# -- split ---------------------------------------------------------------------------------------------------------


def test_split_prints_how_many_shards_there_are_and_says_how_to_run_them(run, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{row}\n" for row in range(25)))
    folder = tmp_path / "work"
    ended = run("shards", "split", source, folder, "--rows", 10)
    assert (ended.code, ended.out) == (0, "3\n")
    assert f"25 rows in 3 shards, 0 to 2; to run them: chatpool shards run {folder} --all" in ended.err
    assert run("shards", "split", source, folder, "--rows", 10, "--quiet") == (0, "3\n", "")
    ended = run("shards", "split", source, folder)
    assert (ended.code, "was split with rows=10, not 5000" in ended.err) == (2, True)


def test_split_takes_the_options_of_an_input_and_run_goes_by_them(run, tmp_path, chatpool_server):
    source = tmp_path / "in.csv"
    source.write_text("name;word\na;cheese\n;\nb;too;many\nc;bread\n")
    options = ["--template", "Say {word}", "--id-field", "name", "--delimiter", ";", "--skip-bad-lines"]
    assert run("shards", "split", source, tmp_path / "work", *options).out == "1\n"
    ended = run(
        "shards", "run", tmp_path / "work", "--index", 0, "--model", "m", "--base-url", chatpool_server.base_url
    )
    assert (ended.code, "line 4 was left out" in ended.err) == (0, True)
    assert sorted(sent(chatpool_server)) == ["Say bread", "Say cheese"]


# -- which shard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIABLES)
def test_the_number_of_a_task_is_that_of_its_shard(run_shards, monkeypatch, chatpool_server, name):
    monkeypatch.setenv(name, "1")
    assert run_shards().code == 0
    assert sorted(sent(chatpool_server)) == ["row 2", "row 3"]


def test_an_option_goes_before_the_variables(run_shards, monkeypatch, chatpool_server):
    monkeypatch.setenv(VARIABLES[0], "no number")
    assert run_shards("--index", 2).code == 0
    assert sent(chatpool_server) == ["row 4"]


def test_variables_that_agree_are_one(run_shards, monkeypatch, chatpool_server):
    for name, text in zip(VARIABLES, ("2", "", "02")):
        monkeypatch.setenv(name, text)
    assert run_shards().code == 0
    assert sent(chatpool_server) == ["row 4"]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, "no shard was named: pass --index N, or --all; a scheduler's array of tasks sets one of SLURM_ARRAY_"),
        ({"JOB_COMPLETION_INDEX": "1.0"}, "JOB_COMPLETION_INDEX must be the number of a shard, got '1.0'"),
        ({"SLURM_ARRAY_TASK_ID": "-1"}, "SLURM_ARRAY_TASK_ID must be the number of a shard, got '-1'"),
        (
            {"SLURM_ARRAY_TASK_ID": "1", "AWS_BATCH_JOB_ARRAY_INDEX": "0"},
            "SLURM_ARRAY_TASK_ID is 1 and AWS_BATCH_JOB_ARRAY_INDEX is 0: pass --index N",
        ),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "numbered from 0 to 2: number the tasks so, sbatch --array=0-2"),
        ({"JOB_COMPLETION_INDEX": "3"}, "number the tasks so, completions: 3"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "9"}, "number the tasks so, --array-properties size=3"),
    ],
)
def test_a_number_that_names_no_shard_is_exit_code_2(run_shards, monkeypatch, chatpool_server, numbers, words):
    for name, text in numbers.items():
        monkeypatch.setenv(name, text)
    ended = run_shards()
    assert ended.code == 2
    assert words in ended.err
    assert chatpool_server.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--index", "3"], "--index is 3, and the shards of"),
        (["--index", "-1"], "must be a whole number of shards, 0 or more"),
        (["--index", "1", "--all"], "not allowed with"),
        (["--indx", "1"], "no option --indx; did you mean --index?"),
    ],
)
def test_wrong_usage_is_exit_code_2(run_shards, arguments, words):
    ended = run_shards(*arguments)
    assert (ended.code, words in ended.err) == (2, True)


def test_a_command_that_is_not_known_names_the_nearest(run):
    ended = run("shards", "mrege", "work", "out.jsonl")
    assert (ended.code, "no command 'mrege'; did you mean merge?" in ended.err) == (2, True)


# -- run -----------------------------------------------------------------------------------------------------------


def test_a_fatal_error_is_exit_code_3_and_the_command_that_goes_on_names_the_shard(
    run_shards, monkeypatch, chatpool_server
):
    monkeypatch.setenv(VARIABLES[1], "1")
    chatpool_server.set_script(Error(401))
    ended = run_shards()
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    assert last.startswith("chatpool: to go on: chatpool shards run ")
    assert last.endswith(" --index 1")


def test_failures_are_exit_code_1_and_may_be_run_again(run_shards, chatpool_server):
    chatpool_server.set_script({"row 3": Error(400)})
    ended = run_shards("--index", 1, "--json")
    assert ended.code == 1
    facts = json.loads(ended.out)
    assert (facts["shard"], facts["rows"], facts["succeeded"], facts["failed"]) == (1, 2, 1, 1)
    chatpool_server.set_script(None)
    assert run_shards("--index", 1, "--retry-failed").code == 0
    assert len(chatpool_server.requests) == 3


def test_all_runs_what_is_left_with_one_pool(run_shards, chatpool_server):
    assert run_shards("--index", 1).code == 0
    ended = run_shards("--all", "--json", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert [json.loads(line)["shard"] for line in ended.lines] == [0, 2]
    ended = run_shards("--all")
    assert (ended.code, ended.out) == (0, "")
    assert "no shard is left to run; to merge them: chatpool shards merge " in ended.err
    assert sorted(sent(chatpool_server)) == [f"row {row}" for row in range(5)]


def test_all_is_exit_code_1_while_rows_have_failed(run_shards, chatpool_server):
    chatpool_server.set_script({"row 0": Error(400)})
    assert run_shards("--all").code == 1
    assert run_shards("--all").code == 1
    chatpool_server.set_script(None)
    ended = run_shards("--all", "--retry-failed", "--json", "--quiet")
    assert (ended.code, [json.loads(line)["shard"] for line in ended.lines]) == (0, [0])
    assert len(chatpool_server.requests) == 6


def test_all_ends_at_a_fatal_error(run_shards, chatpool_server):
    chatpool_server.set_script({"row 2": Error(401), "row 3": Error(401)})
    ended = run_shards("--all", "--max-workers", 1)
    assert ended.code == 3
    assert "chatpool: shard 1 of 3" in ended.err
    assert "shard 2 of 3" not in ended.err
    assert "row 4" not in sent(chatpool_server)


def test_the_time_limit_is_that_of_all_shards_together(run_shards, monkeypatch):
    clock, limits = FakeClock(), []

    def run_rows(pool, arguments, job, *files):
        limits.append(job.run_timeout)
        clock.advance(40)
        return BatchResult(rows=2, succeeded=2)

    monkeypatch.setattr(command, "run_rows", run_rows)
    monkeypatch.setattr(command, "current_clock", lambda: clock)
    assert run_shards("--all", "--run-timeout", 60).code == 0
    assert limits == [60, 20, pytest.approx(0, abs=0.01)]
    assert limits[-1] > 0


def test_an_option_of_the_line_goes_before_all_of_a_file(run_shards, tmp_path, chatpool_server):
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    (tmp_path / "options.toml").write_text('all = true\nmax-workers = 1\nrows = 9\noutput = "of run"\n')
    assert run_shards("--config", tmp_path / "options.toml", "--index", 2).code == 0
    assert sent(chatpool_server) == ["row 4"]
    assert run_shards("--config", tmp_path / "options.toml").code == 0
    assert len(chatpool_server.requests) == 5


# -- shards that other processes run -------------------------------------------------------------------------------


@pytest.fixture
def busy(work, chatpool_server, gate):
    """Shard 1 is running, until the gate is open."""
    chatpool_server.set_script(lambda request: gate.wait() and None if request.prompt == "row 2" else None)
    with ChatPool("m", base_url=chatpool_server.base_url) as pool:
        thread = threading.Thread(target=shards.run, args=(work, 1), kwargs={"pool": pool, "progress": False})
        thread.start()
        chatpool_server.wait_for(2, timeout=60)
        yield
        gate.set()
        thread.join()


@pytest.mark.usefixtures("busy")
def test_a_shard_that_is_running_is_exit_code_75(run_shards, chatpool_server):
    ended = run_shards("--index", 1)
    assert ended.code == 75
    assert "is in use by process" in ended.err.splitlines()[-1]
    assert len(chatpool_server.requests) == 2


@pytest.mark.usefixtures("busy")
def test_all_runs_the_others_and_says_which_are_running(run, run_shards, work):
    ended = run_shards("--all", "--quiet")
    assert ended.code == 75
    assert ended.err == ("chatpool: other processes run the shards 1: the same command again runs what they leave\n")
    assert run("shards", "status", work).lines[1:] == ["  running: 1"]


def test_a_run_whose_output_is_in_use_is_exit_code_75(run, tmp_path, monkeypatch, chatpool_server):
    def run_job(*arguments, **options):
        raise JournalBusyError("out.jsonl is in use")

    monkeypatch.setattr("chatpool.cli.run.run_job", run_job)
    arguments = ["in.txt", "-o", tmp_path / "out.jsonl", "--model", "m", "--base-url", chatpool_server.base_url]
    assert run("run", *arguments) == (75, "", "chatpool: out.jsonl is in use\n")


# -- status and merge ----------------------------------------------------------------------------------------------


def test_the_status_names_shards_as_arrays_do(run, run_shards, work, chatpool_server):
    chatpool_server.set_script({"row 3": Error(400)})
    run_shards("--index", 1)
    ended = run("shards", "status", work)
    assert ended.code == 0
    assert ended.lines == [
        "1 of 3 shards are done; 1 of 5 rows answered, 1 failed, 3 pending",
        "  left to run: 0,2",
        "  with failed rows: 1",
    ]
    facts = json.loads(run("shards", "status", work, "--json").out)
    assert (facts["rows"], facts["done"], facts["failed"], facts["pending"]) == (5, 1, 1, 3)
    assert facts["shards"][1]["pending"] == 0


def test_numbers_in_a_row_are_a_range():
    assert command._ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_merge_is_exit_code_2_while_shards_are_not_done_and_0_afterwards(run, run_shards, work, tmp_path):
    run_shards("--index", 1)
    ended = run("shards", "merge", work, tmp_path / "out.jsonl")
    assert (ended.code, "2 of 3 shards of" in ended.err) == (2, True)
    ended = run("shards", "merge", work, tmp_path / "out.jsonl", "--allow-missing")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "chatpool: 2 of 5 rows answered; 3 pending; 8 tokens",
        "chatpool: the shards 0,2 are not done: their pending rows are left out",
    ]
    run_shards("--all")
    ended = run("shards", "merge", work, tmp_path / "out.jsonl", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["succeeded"] == 5
    ids = [json.loads(line)["custom_id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == ["0", "1", "2", "3", "4"]


def test_merged_failures_are_exit_code_1(run, run_shards, work, tmp_path, chatpool_server):
    chatpool_server.set_script({"row 3": Error(400)})
    run_shards("--all")
    ended = run("shards", "merge", work, tmp_path / "out.jsonl", "--quiet")
    assert (ended.code, "4 of 5 rows answered; 1 failed" in ended.err) == (1, True)


@pytest.mark.parametrize("action", ["run", "status", "merge"])
def test_a_folder_without_shards_is_exit_code_2(run, tmp_path, action):
    ended = run("shards", action, tmp_path, *(["out.jsonl"] if action == "merge" else []))
    assert (ended.code, "make it with split" in ended.err) == (2, True)
