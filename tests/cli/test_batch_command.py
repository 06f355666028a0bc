"""``chatpool batch``: from submitting to collecting, and the exit codes."""

from __future__ import annotations

import json

import pytest

from chatpool.batch.submission_journal import Submission
from chatpool.testing import BatchScenario

EXPIRED = BatchScenario(polls=0, end="expired")


@pytest.fixture
def batch(run, tmp_path, chatpool_server_factory, instant_waits):
    """``batch(name, *arguments)`` runs ``chatpool batch``; ``batch.serve(...)`` makes another server first."""

    class Batch:
        output = tmp_path / "out.jsonl"

        def serve(self, **options):
            self.server = chatpool_server_factory(**{"batches": BatchScenario(polls=0), **options})

        def __call__(self, name, *arguments):
            return run("batch", name, *arguments, "--base-url", self.server.base_url)

        def submit(self, *arguments):
            return self("submit", source, "-o", self.output, "--model", "m", *arguments)

    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\nthree\nfour\n")
    batch = Batch()
    batch.serve()
    return batch


def test_a_file_goes_through_the_batch_api(batch):
    ended = batch.submit("--rows-per-batch", 2, "--system", "Be brief.", "--param", "seed=7")
    assert (ended.code, ended.out) == (0, "")
    assert "4 rows in 2 batches" in ended.err
    assert f"2 batches: 2 validating; to wait: chatpool batch wait {batch.output}" in ended.err
    ended = batch("wait", batch.output)
    assert (ended.code, ended.out) == (0, "")
    assert "4 of 4 rows answered, 0 failed; 2 batches: 2 completed; to go on: chatpool batch collect" in ended.err
    ended = batch("collect", batch.output, "--prices", "1000000,1000000")
    assert ended.code == 0
    assert "4 of 4 rows answered; 8 tokens; $4.00" in ended.err
    lines = map(json.loads, batch.output.read_text().splitlines())
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines] == [
        "one",
        "two",
        "three",
        "four",
    ]
    body = json.loads(batch.server.files[0].content.splitlines()[0])["body"]
    assert (body["seed"], body["messages"][0]["content"]) == (7, "Be brief.")


def test_the_status_is_a_line_for_each_batch(batch):
    batch.serve(batches=[BatchScenario(polls=0), BatchScenario(polls=None)])
    batch.submit("--rows-per-batch", 2)
    ended = batch("status", batch.output)
    assert ended.code == 0
    assert ended.lines == [
        "2 of 4 rows answered, 0 failed; 2 batches: 1 completed, 1 validating",
        "  1 batch_1 completed, 2 of 2 rows answered, 0 failed",
        "  2 batch_2 validating, 0 of 2 rows answered, 0 failed",
    ]


def test_counts_as_json(batch):
    for name, arguments in (("wait", ()), ("status", ()), ("cancel", ())):
        if name == "wait":
            facts = json.loads(batch.submit("--json").out)
            assert (facts["rows"], facts["is_over"]) == (4, False)
        facts = json.loads(batch(name, batch.output, "--json", *arguments).out)
        assert (facts["completed"], facts["is_over"], len(facts["batches"])) == (4, True, 1)
    assert json.loads(batch("collect", batch.output, "--json").out)["succeeded"] == 4


def test_quiet_says_nothing(batch):
    assert batch.submit("--quiet")[1:] == ("", "")
    assert batch("wait", batch.output, "--quiet")[1:] == ("", "")
    assert batch("collect", batch.output, "--quiet")[1:] == ("", "")


def test_a_wait_whose_time_is_over_has_a_code_of_its_own(batch):
    batch.serve(batches=BatchScenario(polls=None))
    batch.submit()
    ended = batch("wait", batch.output, "--run-timeout", 30)
    assert ended.code == 75
    assert "to go on: chatpool batch wait" in ended.err


def test_what_has_expired_is_listed_or_sent_at_once(batch):
    batch.serve(batches=EXPIRED)
    batch.submit()
    ended = batch("collect", batch.output)
    assert ended.code == 1
    assert "2 of 4 rows answered; 2 failed (2 x batch_expired), see" in ended.err
    ended = batch("collect", batch.output, "--finish-now", "--max-workers", 2)
    assert ended.code == 0
    assert "4 of 4 rows answered" in ended.err


def test_to_collect_what_is_under_way_says_what_is_left(batch):
    batch.serve(batches=BatchScenario(polls=None))
    batch.submit()
    ended = batch("collect", batch.output)
    assert ended.code == 3
    assert "1 of 1 batches are not over: their rows are pending" in ended.err
    assert f"to go on: chatpool batch collect {batch.output}" in ended.err
    ended = batch("collect", batch.output, "--finish-now")
    assert (ended.code, "chatpool batch wait" in ended.err) == (2, True)


def test_what_no_batch_has_answered_goes_on_with_finish_now(batch):
    batch.serve(batches=BatchScenario(polls=0, output_file="missing"))
    batch.submit()
    ended = batch("collect", batch.output)
    assert ended.code == 3
    assert (
        f"to go on: chatpool batch collect {batch.output} --base-url {batch.server.base_url} --finish-now" in ended.err
    )


def test_cancel_says_what_comes_next(batch):
    batch.serve(batches=BatchScenario(polls=None))
    batch.submit()
    batch.server.advance()
    ended = batch("cancel", batch.output)
    assert ended.code == 0
    assert "1 batch: 1 cancelling; to wait for their end: chatpool batch wait" in ended.err


def test_a_table_is_written_with_the_columns_of_its_choice(batch, tmp_path):
    batch.output = tmp_path / "out.csv"
    batch.submit()
    assert batch("collect", batch.output, "--fields", "text,answer").code == 0
    assert batch.output.read_text() == "text,answer\none,one\ntwo,two\nthree,three\nfour,four\n"


@pytest.mark.parametrize("name", ["wait", "collect", "cancel"])
def test_another_process_is_waited_for(name, batch, tmp_path):
    batch.submit()
    with Submission(str(tmp_path / "out.batches")):
        assert batch(name, batch.output).code == 75


@pytest.mark.parametrize("name", ["status", "wait", "collect", "cancel"])
def test_nothing_was_submitted(name, batch):
    ended = batch(name, batch.output)
    assert ended.code == 2
    assert "nothing was submitted for this output" in ended.err


def test_an_input_without_rows_is_an_error_unless_it_may_be(batch, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    ended = batch("submit", empty, "-o", batch.output)
    assert (ended.code, "has no rows" in ended.err) == (2, True)
    ended = batch("submit", empty, "-o", batch.output, "--allow-empty")
    assert (ended.code, "there is nothing to submit" in ended.err) == (0, True)


def test_the_embedded_model_takes_no_files(batch):
    ended = batch.submit("--local")
    assert (ended.code, "no option --local" in ended.err) == (2, True)


def test_ctrl_c_says_which_command_goes_on(batch, monkeypatch):
    batch.submit()

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("chatpool.batch.submission_driver.Driver.look", interrupt)
    ended = batch("wait", batch.output)
    assert ended.code == 130
    assert f"to go on: chatpool batch wait {batch.output} --base-url {batch.server.base_url}" in ended.err


def test_ctrl_c_while_rows_are_submitted_says_which_command_goes_on(batch, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("chatpool.batch.submission_driver.Driver.submit", interrupt)
    ended = batch.submit()
    assert ended.code == 130
    assert "to go on: chatpool batch submit " in ended.err
