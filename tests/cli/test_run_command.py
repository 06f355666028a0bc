"""``chatpool run``: what it prints and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from chatpool.testing import EachCall, Error


@pytest.fixture
def files(tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\nthree\n")
    return source, tmp_path / "out.jsonl"


@pytest.fixture
def batch(run, chatpool_server, files, instant_waits):
    """``batch(*arguments)`` runs three prompts."""

    def command(*arguments, stdin=""):
        source, target = files
        return run(
            "run", source, "-o", target, "--model", "m", "--base-url", chatpool_server.base_url, *arguments, stdin=stdin
        )

    return command


def test_it_says_what_it_reads_and_what_it_did(batch, files):
    ended = batch()
    assert ended.code == 0
    assert ended.out == ""
    *first, last = ended.err.splitlines()
    assert first == [f"chatpool: {files[0]}: text, one prompt a line", "chatpool: 3 rows"]
    assert last.startswith("chatpool: 3 of 3 rows answered; ")
    assert len(files[1].read_text().splitlines()) == 3


def test_a_second_time_says_that_all_is_done(batch):
    batch()
    ended = batch()
    assert ended.code == 0
    assert "chatpool: 3 rows; going on with " in ended.err
    assert "3 of 3 rows answered; 3 were done before" in ended.err


def test_failures_are_exit_code_1(batch, chatpool_server):
    chatpool_server.set_script({"two": Error(400)})
    ended = batch()
    assert ended.code == 1
    assert "2 of 3 rows answered; 1 failed (1 x BadRequestError), see " in ended.err
    assert batch("--retry-failed", "429").code == 0
    chatpool_server.set_script(None)
    ended = batch("--retry-failed")
    assert (ended.code, "1 of 1 rows answered" in ended.err) == (0, True)


def test_a_fatal_error_is_exit_code_3_and_says_how_to_go_on(batch, chatpool_server, files):
    chatpool_server.set_script(Error(401))
    ended = batch("--max-workers", "1")
    assert ended.code == 3
    assert "chatpool: AuthenticationError: HTTP 401" in ended.err
    assert ended.err.splitlines()[-1].startswith(
        f"chatpool: to go on: chatpool run {files[0]} -o {files[1]} --model m "
    )


def test_a_bad_line_is_exit_code_2(batch, files):
    files[0].write_bytes(b"one\n\xff\n")
    ended = batch()
    assert ended.code == 2
    assert "line 2 of" in ended.err
    ended = batch("--skip-bad-lines")
    assert ended.code == 0
    assert "chatpool: line 2 was left out: not UTF-8" in ended.err


def test_a_dry_run_says_what_it_would_cost(batch, chatpool_server):
    ended = batch("--dry-run", "--prices", "2,8")
    assert ended.code == 0
    last = ended.err.splitlines()[-1]
    assert last == "chatpool: 3 rows would be sent, about 15 tokens of prompts, less than $0.0001 to have them read"
    assert chatpool_server.requests == []


@pytest.mark.parametrize("prices", ["300", "300,1200,30"])
def test_one_price_or_three_will_do(batch, prices):
    ended = batch("--dry-run", "--prices", prices)
    assert ended.err.splitlines()[-1].endswith("about 15 tokens of prompts, $0.0045 to have them read")


def test_prices_come_from_a_file_of_litellm_s(batch, tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"m": {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}}))
    assert batch("--dry-run", "--prices", path).err.splitlines()[-1].endswith(", $0.01 to have them read")
    ended = batch("--prices", path)
    assert ended.code == 0
    assert ended.err.splitlines()[-1].endswith("; $0.0090")  # three answers of one token read and one written


def test_a_model_without_a_price_is_named_at_the_end(batch, tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"other": [1, 2]}))
    for more in (["--dry-run"], []):
        assert batch(*more, "--prices", path).err.splitlines()[-1].endswith("no price for m")


@pytest.mark.parametrize("prices", ["a,b", "1,2,3,4", "1,-2", "nan", "no-such-file.json"])
def test_prices_that_are_none_are_wrong_usage(batch, prices):
    ended = batch("--prices", prices)
    assert ended.code == 2
    assert "for instance 0.15,0.60" in ended.err


def test_json_says_what_was_done_on_stdout(batch, files):
    ended = batch("--json")
    done = json.loads(ended.out)
    assert (done["rows"], done["succeeded"], done["fatal"], done["output"]) == (3, 3, None, str(files[1]))


def test_a_template_and_the_other_readings_are_passed_on(batch, chatpool_server):
    assert batch("--template", "Say {text}", "--limit", "1", "--in-order", "--system", "s").code == 0
    (request,) = chatpool_server.requests
    assert [message["content"] for message in request.body["messages"]] == ["s", "Say one"]


class TestRefusedStarts:
    """What was refused before anything was sent leaves neither a journal nor a lock, nor a status."""

    @pytest.fixture
    def left(self, tmp_path):
        return lambda: sorted(
            path.name for path in tmp_path.iterdir() if path.suffix in (".journal", ".lock", ".status")
        )

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--limit", "0"],
            ["--limit", "1", "--sample", "1"],
            ["--schema", "none.json"],
            ["--encoding", "nonsense"],
            ["--template", "{nothing}"],
            ["--prices", "none.json"],
            ["--budget", "5"],
            ["--nonsense"],
        ],
    )
    def test_a_wrong_option(self, batch, left, arguments):
        assert batch(*arguments).code == 2
        assert left() == []

    def test_a_missing_file(self, run, left, tmp_path, chatpool_server):
        options = ("--model", "m", "--base-url", chatpool_server.base_url)
        assert run("run", tmp_path / "none.txt", "-o", tmp_path / "out.jsonl", *options).code == 2
        assert left() == []

    def test_a_line_that_cannot_be_used(self, run, left, tmp_path, chatpool_server):
        source = tmp_path / "in.jsonl"
        source.write_text('{"prompt": "one"}\n{"pro\n')
        options = ("--model", "m", "--base-url", chatpool_server.base_url)
        assert run("run", source, "-o", tmp_path / "out.jsonl", *options).code == 2
        assert (left(), chatpool_server.requests) == ([], [])

    def test_no_key_and_no_model(self, run, left, files):
        assert run("run", files[0], "-o", files[1], "--model", "m").code == 2
        assert left() == []

    @pytest.mark.parametrize("output", ["none/out.jsonl", "none/out.csv", "folder", "folder.csv"])
    def test_an_output_that_cannot_be_written(self, run, left, tmp_path, files, chatpool_server, output):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder.csv").mkdir()
        options = ("--model", "m", "--base-url", chatpool_server.base_url, "--journal", tmp_path / "named.journal")
        ended = run("run", files[0], "-o", tmp_path / output, *options)
        assert (ended.code, left(), chatpool_server.requests) == (2, [], [])
        assert ended.err.splitlines()[-1].startswith("chatpool: ")


class TestEmptyInput:
    @pytest.mark.parametrize("name", ["in.txt", "in.csv", "in.jsonl", "-"])
    def test_it_is_exit_code_2_unless_it_is_allowed(self, run, tmp_path, chatpool_server, name):
        source = name if name == "-" else tmp_path / name
        if name != "-":
            source.write_text("prompt\n" if name == "in.csv" else "\n")
        options = ("-o", tmp_path / "out.jsonl", "--model", "m", "--base-url", chatpool_server.base_url)
        ended = run("run", source, *options)
        assert (ended.code, "--allow-empty" in ended.err) == (2, True)
        assert list(tmp_path.glob("*.journal*")) == []
        assert run("run", source, *options, "--allow-empty").code == 0
        assert chatpool_server.requests == []

    def test_prompts_of_which_there_are_none(self, ask):
        assert ask("--lines", "--allow-empty") == (0, "", "")
        assert ask("--allow-empty", stdin=" \n") == (0, "", "")

    def test_rows_that_are_all_done_are_no_empty_input(self, batch):
        batch()
        assert batch("--retry-failed").code == 0
        assert batch().code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
@pytest.mark.parametrize(
    "system", ["two  spaces", "a\nline\t'quoted' \\ b", "no-break\xa0space, \u202eturned", "it's", ""]
)
def test_the_command_to_go_on_is_the_same_when_a_shell_reads_it(batch, chatpool_server, system):
    chatpool_server.set_script(EachCall(Error(401)))
    ended = batch("--system", system)
    (line,) = [line for line in ended.err.splitlines() if "to go on: " in line]
    words = line.partition("to go on: chatpool ")[2]
    shell = ["bash", "-c", f"printf '%s\\0' {words}"]
    read = subprocess.run(shell, capture_output=True, timeout=60, check=True)
    assert read.stdout.decode().split("\0")[-3:] == ["--system", system, ""]
