"""``chatpool run``: outputs of other forms, standard output, and what is said on the way."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import sys

import pytest

from chatpool.testing import EachCall, Error

posix = pytest.mark.skipif(sys.platform == "win32", reason="locks are taken in another way")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,prompt\na,one\nb,=two\nc,three\n")
    return path


@pytest.fixture
def batch(run, chatpool_server, source, instant_waits):
    """``batch(output, *arguments)`` runs three prompts."""

    def command(output, *arguments):
        return run("run", source, "-o", output, "--model", "m", "--base-url", chatpool_server.base_url, *arguments)

    return command


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_by_its_ending(batch, tmp_path, chatpool_server):
    ended = batch(tmp_path / "out.csv", "--fields", "id,answer,status", "--raw")
    assert (ended.code, ended.out) == (0, "")
    assert (tmp_path / "out.csv").read_text() == "id,answer,status\na,one,200\nb,=two,200\nc,three,200\n"
    assert batch(tmp_path / "out.csv").code == 0
    assert rows_of((tmp_path / "out.csv").read_text())[1]["answer"] == "'=two"
    assert len(chatpool_server.requests) == 3


def test_an_unknown_ending_is_exit_code_2(batch, tmp_path, chatpool_server):
    ended = batch(tmp_path / "out.docx")
    assert ended.code == 2
    assert "the ending '.docx' says no format: choose .jsonl" in ended.err
    assert list(tmp_path.glob("out*")) == []
    assert chatpool_server.requests == []


def test_answers_to_standard_output_come_with_a_warning(batch, chatpool_server, tmp_path):
    ended = batch("-", "--in-order")
    assert ended.code == 0
    assert [json.loads(line)["custom_id"] for line in ended.lines] == ["row-2", "row-3", "row-4"]
    assert ended.err.count("nothing keeps them: what this run does not finish cannot go on") == 1
    assert "--journal FILE" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("form", ["batch", "jsonl", "csv", "text"])
def test_with_a_journal_the_same_command_goes_on_and_prints_everything(batch, chatpool_server, tmp_path, form):
    chatpool_server.set_script({"=two": Error(503), "three": Error(400)})
    arguments = ["-", "--format", form, "--journal", tmp_path / "run.journal", "--id-field", "id", "--in-order"]
    first = batch(*arguments)
    assert first.code == 1
    assert "nothing keeps them" not in first.err
    sent = len(chatpool_server.requests)
    chatpool_server.set_script(None)
    second = batch(*arguments)
    assert second.code == 1
    assert len(chatpool_server.requests) == sent + 1
    if form == "batch":
        found = [json.loads(line) for line in second.lines]
        assert [(line["custom_id"], line["response"]["status_code"]) for line in found] == [
            ("a", 200),
            ("b", 200),
            ("c", 400),
        ]
    elif form == "jsonl":
        assert [json.loads(line)["answer"] for line in second.lines] == ["one", "=two", None]
    elif form == "csv":
        assert [row["answer"] for row in rows_of(second.out)] == ["one", "'=two", ""]
    else:
        assert second.out == "one\n=two\n\n"


def test_no_row_is_printed_twice_where_one_is_sent_again(batch, chatpool_server, tmp_path):
    chatpool_server.set_script({"=two": Error(503)})
    batch("-", "--journal", tmp_path / "run.journal")
    chatpool_server.set_script(None)
    ended = batch("-", "--journal", tmp_path / "run.journal")
    assert sorted(json.loads(line)["custom_id"] for line in ended.lines) == ["row-2", "row-3", "row-4"]
    assert all(json.loads(line)["response"]["status_code"] == 200 for line in ended.lines)


def test_facts_and_answers_do_not_share_standard_output(batch, chatpool_server):
    ended = batch("-", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "share standard output" in ended.err
    assert chatpool_server.requests == []


def test_the_form_of_vectors_is_passed_on(batch, chatpool_server, tmp_path):
    ended = batch(tmp_path / "out.csv", "--url", "/v1/embeddings", "--encoding-format", "base64")
    assert ended.code == 0
    assert chatpool_server.requests[0].body["encoding_format"] == "base64"
    answers = [json.loads(row["answer"]) for row in rows_of((tmp_path / "out.csv").read_text())]
    assert all(type(number) is float for vector in answers for number in vector)


def test_a_matrix_of_answers_that_are_no_vectors_is_refused(batch, chatpool_server, tmp_path, monkeypatch):
    monkeypatch.setattr("chatpool.batch.output_files.check_numpy", object)
    ended = batch(tmp_path / "out.npy")
    assert ended.code == 2
    assert "the rows go to /chat/completions" in ended.err
    assert chatpool_server.requests == []


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, such as some that are mounted over a network."""
    import fcntl

    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@posix
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_without_a_lock_a_run_is_refused(batch, chatpool_server, tmp_path, no_locks, name):
    ended = batch(tmp_path / name)
    assert ended.code == 2
    assert "cannot be locked (No locks available)" in ended.err
    assert "--no-lock" in ended.err
    assert chatpool_server.requests == []
    assert list(tmp_path.glob("*.lock")) == []


@posix
def test_without_a_lock_a_run_can_be_had_and_says_so_once(batch, chatpool_server, tmp_path, no_locks):
    ended = batch(tmp_path / "out.jsonl", "--no-lock")
    assert ended.code == 0
    assert ended.err.count("cannot be locked") == 1
    assert len(chatpool_server.requests) == 3


@posix
def test_what_nobody_else_can_write_to_needs_no_lock(batch, no_locks):
    ended = batch("-")
    assert (ended.code, len(ended.lines)) == (0, 3)


def test_damaged_lines_of_a_journal_are_said_once(batch, chatpool_server, tmp_path):
    batch(tmp_path / "out.jsonl")
    journal = tmp_path / "out.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:-2], b"{damaged}\n", lines[-1]]))  # one of a row
    ended = batch(tmp_path / "out.jsonl")
    assert ended.code == 0
    assert ended.err.count("1 damaged lines were left out; their rows will run again") == 1
    assert len(chatpool_server.requests) == 4


def test_an_unfinished_record_says_that_its_row_runs_again(batch, chatpool_server, tmp_path):
    batch(tmp_path / "out.jsonl")
    journal = tmp_path / "out.journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    ended = batch(tmp_path / "out.jsonl")
    assert "was not finished when the process or the machine died; its row will run again" in ended.err
    assert len(chatpool_server.requests) == 4


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_a_row_that_is_paid_again_is_said(batch, chatpool_server, tmp_path, output):
    batch(tmp_path / output)
    ended = batch(tmp_path / output, "--system", "Be short.")
    assert ended.code == 0
    assert ended.err.count("has an answer to another request: its text, the model or a parameter has changed") == 1
    assert "3 had answers to other requests and were sent again" in ended.err
    again = batch(tmp_path / output, "--system", "Be short.")
    assert "another request" not in again.err
    assert "other requests" not in again.err


def test_a_cell_that_was_emptied_is_not_said_to_be_paid_again(batch, chatpool_server, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("id,prompt\n1,hi\n2,ho\n")
    batch(source, "-o", tmp_path / "out.csv")
    source.write_text("id,prompt\n1,\n2,ho\n")
    said = batch(source, "-o", tmp_path / "out.csv").err
    assert "paid again" not in said
    assert "sent again" not in said
    assert "1 failed" in said
    assert len(chatpool_server.requests) == 2


def test_rows_that_have_other_names_than_in_the_journal_are_said(batch, chatpool_server, tmp_path):
    batch(tmp_path / "out.jsonl")
    ended = batch(tmp_path / "out.jsonl", "--id-field", "id")
    assert ended.err.count("no row of ") == 1
    assert "another field that names the rows (id_field, --id-field)?" in ended.err
    assert "no row of " not in batch(tmp_path / "out.jsonl", "--id-field", "id").err
    assert len(chatpool_server.requests) == 6
    chatpool_server.set_script(Error(503))
    for _ in range(2):
        assert "no row of " not in batch(tmp_path / "failed.jsonl").err


def test_a_run_that_pays_nothing_again_says_nothing_of_it(batch, chatpool_server, tmp_path):
    chatpool_server.set_script({"one": Error(400), "three": Error(503)})
    batch(tmp_path / "out.jsonl")
    chatpool_server.set_script(None)
    ended = batch(tmp_path / "out.jsonl", "--system", "Be short.", "--limit", "1")
    assert "other requests" not in ended.err


def test_retries_are_shown_with_v_only(batch, chatpool_server, tmp_path):
    chatpool_server.set_script(EachCall(Error(503)))
    assert "attempt 1 failed" not in batch(tmp_path / "quiet.jsonl").err
    chatpool_server.set_script(EachCall(Error(503)))
    ended = batch(tmp_path / "out.jsonl", "-v")
    assert ended.code == 0
    assert ended.err.count("attempt 1 failed (503") == 3
    assert all(line.startswith("chatpool: ") for line in ended.err.splitlines())
    assert logging.getLogger("chatpool").handlers == []


@pytest.mark.slow
def test_retries_of_child_processes_are_shown_too(run, chatpool_server, source, tmp_path):
    chatpool_server.set_script(EachCall(Error(503)))
    ended = run(
        *("run", source, "-o", tmp_path / "out.jsonl", "--model", "m", "--base-url", chatpool_server.base_url),
        *("--processes", "2", "--verbose"),
    )
    assert ended.code == 0
    assert ended.err.count("attempt 1 failed (503") == 3


def test_what_the_library_warns_of_is_said_once(capsys):
    from chatpool.cli.terminal import log_lines

    logger = logging.getLogger("chatpool")
    with log_lines():
        for _ in range(3):
            logger.warning("the shared limit is lost")
        logger.info("not shown")
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("a listener raised")
    logger.warning("nobody hears this")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["chatpool: the shared limit is lost", "chatpool: a listener raised: ValueError: why"]


class TestMaxFailures:
    @pytest.fixture
    def refusing(self, chatpool_server, tmp_path):
        """A file of 200 rows, each of which is refused in words of its own."""
        chatpool_server.set_script(lambda request: Error(400, message=f"No {request.prompt}."))
        path = tmp_path / "in.txt"
        path.write_text("".join(f"{'ab'[number % 2] * (number + 1)}\n" for number in range(200)))
        return path

    @pytest.mark.parametrize(("said", "least", "most"), [("5", 5, 30), ("0.5", 20, 50), ("50%", 20, 50)])
    def test_the_run_ends_as_fatal_and_goes_on_later(self, run, refusing, tmp_path, chatpool_server, said, least, most):
        command = (
            "run",
            refusing,
            "-o",
            tmp_path / "out.jsonl",
            "--model",
            "m",
            "--base-url",
            chatpool_server.base_url,
        )
        ended = run(*command, "--max-failures", said)
        assert ended.code == 3
        assert "TooManyFailuresError: " in ended.err
        assert "to go on: chatpool run" in ended.err
        assert least <= len(chatpool_server.requests) <= most
        chatpool_server.set_script(None)
        ended = run(*command)
        assert ended.code == 1  # those that were refused stay so
        assert len(chatpool_server.requests) == 200

    def test_none_sends_them_all(self, run, refusing, tmp_path, chatpool_server):
        chatpool_server.set_script(lambda request: Error(400, message="Unknown parameter."))
        out = tmp_path / "out.jsonl"
        ended = run(
            *("run", refusing, "-o", out, "--model", "m", "--base-url", chatpool_server.base_url),
            *("--max-failures", "none"),
        )
        assert (ended.code, len(chatpool_server.requests)) == (1, 200)

    @pytest.mark.parametrize("said", ["0", "100%", "many", "1.5", "-1", "nan%"])
    def test_what_is_no_limit_is_exit_code_2(self, run, refusing, tmp_path, chatpool_server, said):
        ended = run("run", refusing, "-o", tmp_path / "out.jsonl", "--model", "m", f"--max-failures={said}")
        assert ended.code == 2
        assert "--max-failures" in ended.err
        assert chatpool_server.requests == []
