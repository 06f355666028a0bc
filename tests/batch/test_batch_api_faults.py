"""The Batch API when things go wrong: lost answers, refusals, kills at every step, two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from batch_api_rows import AT_ONCE, batch_rows_at, prompts_asked
from batch_rows import ROOT

from chatpool import ChatPool, ConfigurationError, JournalBusyError, NotFoundError, batch, errors
from chatpool._journal import AppendOnly, Journal
from chatpool.batch.submission_journal import Submission
from chatpool.testing import Answer, BatchLimits, BatchScenario, Error, FakeServer, LostAnswer, Reset
from tests.api_description import needs_description, problems_of_request

ROWS = [f"row {number}" for number in range(4)]


def posts_to(path, step):
    """A script that meets the first POST to a path with a step, and answers all others as usual."""
    steps = [step]

    def script(request):
        return steps.pop() if steps and request.method == "POST" and request.path.endswith(path) else None

    return script


# -- lost answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/files", "/batches"])
@pytest.mark.parametrize("loss", [LostAnswer(), LostAnswer(Error(504)), Reset(), Error(503)])
def test_after_a_lost_answer_the_server_is_asked_before_anything_is_sent_again(path, loss, api_with, write_rows):
    api = api_with(script=posts_to(path, loss))
    assert api.answer(write_rows(4), rows_per_batch=2).succeeded == 4
    assert sorted(batch_rows_at(api.server)) == ROWS
    assert len(api.server.batches) == 2
    assert len([file for file in api.server.files if file.purpose == "batch"]) == 2
    keys = [request.headers["idempotency-key"] for request in api.sent("POST", "/batches")]
    assert len(set(keys)) == 2  # one for each batch, however often it is asked for
    assert len(api.sent("POST", path)) == (2 if isinstance(loss, LostAnswer) else 3)
    assert api.sent("GET", path)


def test_a_server_that_keeps_no_metadata_is_searched_by_the_input_file(api_with, write_rows, monkeypatch):
    from chatpool.testing import batches

    monkeypatch.setattr(
        batches, "_batch_object", lambda name, body, made=batches._batch_object: made(name, {**body, "metadata": None})
    )
    api = api_with(script=posts_to("/batches", LostAnswer()))
    assert api.answer(write_rows(2)).succeeded == 2
    assert len(api.server.batches) == 1


def test_batches_of_others_are_not_taken_for_ours(api_with, write_rows):
    api = api_with(script=posts_to("/batches", Reset()))
    file = api.pool.request("/files", {"purpose": "batch"}, files={"file": ("x.jsonl", b"{}\n")})
    for metadata in (None, {"chatpool_submission": "other", "chatpool_part": "1", "chatpool_try": "1"}):
        body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        api.server.set_script(None)
        api.pool.request("/batches", {**body, "metadata": metadata})
    api.server.set_script(posts_to("/batches", Reset()))
    assert api.submit(write_rows(2)).batches[0].batch_id == "batch_3"


def test_a_server_may_list_a_batch_some_seconds_late(api_with, write_rows, instant_waits):
    lost = posts_to("/batches", LostAnswer())
    lists = []

    def script(request):
        if request.method == "GET" and request.path.endswith("/batches"):
            lists.append(instant_waits.now())
            return Answer(body={"object": "list", "data": [], "has_more": False}) if len(lists) == 1 else None
        return lost(request)

    api = api_with(script=script)
    assert api.answer(write_rows(1)).succeeded == 1
    assert len(api.server.batches) == 1
    assert lists[1] - lists[0] >= 10


def test_a_lost_batch_is_found_on_a_later_page(api_with, write_rows):
    script = posts_to("/batches", LostAnswer())
    api = api_with(batches=BatchScenario(polls=None))

    def then_many_others(request):
        step = script(request) if request.method == "POST" else None
        if step is None and request.method == "GET" and len(api.server.batches) == 1:
            api.server.set_script(None)
            file = api.server.files[0].id
            for number in range(120):
                body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
                api.pool.request("/batches", {**body, "metadata": {"number": str(number)}})
            return Error(503)
        return step

    api.server.set_script(then_many_others)
    assert api.submit(write_rows(2)).batches[0].batch_id == "batch_1"
    assert len(api.server.batches) == 121


@needs_description
@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_every_request_is_one_of_the_api_description(path, api_with, write_rows):
    api = api_with(script=posts_to(path, LostAnswer()), batches=BatchScenario(polls=None, done=1))
    api.submit(write_rows(2), metadata={"team": "search"})
    api.server.advance()
    api.cancel()
    while api.server.advance():
        pass
    assert api.collect(finish_now=True).succeeded == 2
    methods = {(request.method, request.path.removeprefix("/v1")) for request in api.server.requests}
    assert methods >= {("POST", "/files"), ("POST", "/batches"), ("GET", path), ("POST", "/batches/batch_1/cancel")}
    others = [request for request in api.server.requests if not request.path.endswith("/cancel")]  # which has a {}
    assert [problem for request in others for problem in problems_of_request(request)] == []


# -- refusals ------------------------------------------------------------------------------------------------------


def test_what_the_limit_of_enqueued_tokens_refuses_is_submitted_in_turn(api_with, write_rows, ids):
    # Two words a row: two of the batches fit at a time.
    api = api_with(batches=BatchScenario(), batch_limits=BatchLimits(enqueued_tokens=8))
    api.submit(write_rows(10), rows_per_batch=2)
    seen = []

    def look(facts):
        states = Counter(each["status"] for each in facts["batches"])
        seen.append(states["held back"])
        assert states["in_progress"] + states["finalizing"] <= 2

    batch.wait(api.output, pool=api.pool, progress=look)
    assert max(seen) == 3
    assert api.collect().succeeded == 10
    assert ids(api.output) == [f"row {number}" for number in range(10)]
    uploaded = [file for file in api.server.files if file.purpose == "batch"]
    assert len(uploaded) == 5  # none goes up twice
    refused = [each for each in api.server.batches if each["status"] == "failed"]
    assert len(refused) <= 3 + 5  # the first round, and at most one more for each that was accepted or ended
    assert len(api.server.batches) == 5 + len(refused)


def test_the_limit_may_refuse_the_call_itself(api_with, write_rows):
    message = "Enqueued token limit reached for m"
    api = api_with(script=posts_to("/batches", Error(429, message, code="token_limit_exceeded")))
    status = api.submit(write_rows(4), rows_per_batch=2)
    assert [each.status for each in status.batches] == ["held back", "waiting"]
    assert message in status.batches[0].problem
    api.wait()
    assert api.collect().succeeded == 4
    assert len(api.server.batches) == 2


def test_a_batch_that_others_hold_back_is_tried_again_after_minutes(api_with, write_rows, caplog, instant_waits):
    refusals = [Error(400, "Enqueued token limit reached", code="token_limit_exceeded")] * 3

    def script(request):
        return refusals.pop() if refusals and request.method == "POST" and request.path.endswith("/batches") else None

    api = api_with(script=script)
    api.submit(write_rows(2))
    skipped = instant_waits.skipped
    api.wait()
    assert 600 <= instant_waits.skipped - skipped <= 1200
    posts = api.sent("POST", "/batches")
    assert len({request.headers["idempotency-key"] for request in posts}) == 4  # no refusal is to be repeated
    assert "submit smaller batches (tokens_per_batch, --tokens-per-batch)" in caplog.text


def test_a_batch_that_fails_says_why_and_its_rows_stay_pending(api_with, write_rows, caplog):
    wrong = [{"code": "invalid_model", "message": "The model does not exist.", "param": "body.model", "line": 2}]
    api = api_with(batches=[BatchScenario(polls=0, end="failed", errors=wrong), AT_ONCE])
    source = write_rows(4)
    result = api.answer(source, rows_per_batch=2)
    assert api.status().batches[0].problem == "line 2: The model does not exist."
    assert (result.succeeded, result.pending) == (2, 2)
    assert "it has failed: line 2: The model does not exist." in caplog.text
    assert api.answer(source).succeeded == 4


def test_a_server_without_a_batch_api_is_named(api_with, write_rows):
    api = api_with(script=lambda request: Error(404) if request.path.endswith(("/files", "/batches")) else None)
    with pytest.raises(NotFoundError, match=r"has no Batch API \(POST /files: 404\).*vllm run-batch"):
        api.submit(write_rows(1))


def test_a_wrong_key_ends_a_wait_and_an_outage_does_not(api_with, write_rows, caplog):
    api = api_with(batches=BatchScenario())
    api.submit(write_rows(1))
    failures = [Error(503)] * 40

    def script(request):
        return failures.pop() if failures else None

    api.server.set_script(script)
    assert api.wait().is_over
    assert "is asked again" in caplog.text
    other = api_with(batches=BatchScenario(polls=None))
    other.output = api.folder / "other.jsonl"
    other.submit(write_rows(1))
    other.server.set_script(Error(401))
    with pytest.raises(errors.AuthenticationError):
        other.wait()


def test_an_unknown_batch_points_to_the_key(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(1))
    api.server.set_script(Error(404))
    with pytest.raises(NotFoundError, match="knows no batch batch_1: is the key one of the project"):
        api.wait()


def test_a_batch_that_was_held_back_is_cancelled_before_it_begins(api_with, write_rows, caplog):
    refusal = Error(429, "Enqueued token limit reached for m", code="token_limit_exceeded")
    api = api_with(script=posts_to("/batches", refusal))
    source = write_rows(2)
    api.submit(source)
    assert [each.status for each in api.cancel().batches] == ["cancelled"]
    assert api.wait().is_over
    assert api.collect().pending == 2
    assert "part 1 was cancelled before it was submitted: its 2 rows stay pending" in caplog.text
    assert api.server.batches == []
    assert api.answer(source).succeeded == 2


def test_a_batch_whose_answer_was_lost_is_found_to_be_cancelled(api_with, write_rows):
    posts = [LostAnswer()] * 9

    def script(request):
        is_post = request.method == "POST" and request.path.endswith("/batches")
        return Error(503) if not is_post and posts and request.method == "GET" else posts.pop() if is_post else None

    api = api_with(batches=BatchScenario(polls=None), script=script)
    with pytest.raises(errors.APIError):
        api.submit(write_rows(2))
    api.server.set_script(None)
    assert [each.status for each in api.cancel().batches] == ["cancelling"]
    assert [each["status"] for each in api.server.batches] == ["cancelling"]


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["missing", "deleted"])
def test_a_file_of_answers_that_is_not_there_leaves_its_rows_pending(fate, api_with, write_rows, caplog):
    source = write_rows(4)
    api = api_with(batches=[BatchScenario(polls=0, output_file=fate), AT_ONCE])
    result = api.answer(source, rows_per_batch=2)
    assert (result.succeeded, result.pending) == (2, 2)
    assert "2 of its rows have no answer and no error in its files: they stay pending" in caplog.text
    assert api.collect(finish_now=True).succeeded == 4
    assert sorted(prompts_asked(api)) == ["row 0", "row 1"]


def test_a_file_of_answers_that_is_named_late_is_looked_for(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(2))
    while api.server.advance():
        pass
    whole = api.pool.request("/batches/batch_1", method="GET")
    api.server.set_script([Answer(body={**whole, "output_file_id": None})])
    assert api.wait().is_over
    assert api.collect().succeeded == 2


def test_a_missing_file_of_errors_leaves_its_rows_pending(api_with, write_rows, caplog):
    api = api_with(batches=BatchScenario(polls=0, end="expired", error_file="missing"))
    result = api.answer(write_rows(4))
    assert (result.succeeded, result.failed, result.pending) == (2, 0, 2)
    assert "2 of its rows have no answer" in caplog.text


def damaged(content):
    """An output file with lines that are of no use."""
    first, *others = content.splitlines(keepends=True)
    failure = {"custom_id": json.loads(first)["custom_id"], "response": None, "error": {"code": "batch_expired"}}
    stranger = {"custom_id": "stranger", "response": {"status_code": 200, "body": {}}, "error": None}
    bad = [b"not json", b"\xff\xfe", b"[" * 100_000, b"", json.dumps(stranger).encode(), json.dumps(failure).encode()]
    return bad[-1] + b"\n" + first + first + b"\n".join(bad) + b"\n" + b"".join(others) + b'{"cut'


def test_damaged_unknown_and_repeated_lines_are_counted_and_survived(api_with, write_rows, caplog, monkeypatch):
    from chatpool.batch.submission_service import BatchService

    download = BatchService.download

    def damage(self, file_id, path):
        found = download(self, file_id, path)
        with open(path, "rb") as file:
            content = file.read()
        with open(path, "wb") as file:
            file.write(damaged(content))
        return found

    monkeypatch.setattr(BatchService, "download", damage)
    api = api_with()
    result = api.answer(write_rows(4))
    assert (result.succeeded, result.failed, result.usage.total_tokens, result.causes) == (4, 0, 16, {})
    for text in ("1 lines of its files name no row", "3 lines of its files name a row again", "4 lines of its files"):
        assert text in caplog.text


def test_a_failure_does_not_replace_an_answer(api_with, write_rows, ids):
    source = write_rows(4)
    api = api_with(batches=BatchScenario(polls=0, end="expired"))
    api.submit(source)
    other, journal = api.folder / "other.jsonl", api.folder / "out.journal"
    batch.run(source, other, pool=api.pool, journal=journal, progress=False)  # paid twice, as nobody could know
    assert api.collect().succeeded == 4


def test_answers_are_on_the_disk_before_they_count_as_collected(api_with, write_rows, monkeypatch):
    steps, sync, append = [], Journal.sync, Submission._append
    monkeypatch.setattr(Journal, "sync", lambda journal: steps.append("sync") or sync(journal))
    monkeypatch.setattr(Submission, "_append", lambda *args: steps.append(args[1]["event"]) or append(*args))
    api_with().answer(write_rows(1))
    assert steps[-2:] == ["sync", "collected"]


def test_an_answer_that_is_none_fails_its_row(api_with, write_rows):
    def reply(body):
        return {"id": "x", "object": "chat.completion"} if body["messages"][-1]["content"] == "row 1" else "fine"

    api = api_with(reply=reply)
    source = write_rows(3)
    result = api.answer(source)
    assert (result.succeeded, result.causes) == (2, {"APIResponseError": 1})


# -- Azure ---------------------------------------------------------------------------------------------------------


def test_azure_has_its_own_names_and_checks_files_first(api_with, write_rows):
    api = api_with()
    api.pool = ChatPool.azure(api.server.origin, api_key="k", model="my-deployment", api_version="preview")
    source = api.folder / "in.txt"
    source.write_text("ping\n")
    api.submit(source)
    upload = api.sent("POST", "/files")[0]
    assert (upload.path, upload.query) == ("/openai/v1/files", {"api-version": "preview"})
    (line,) = map(json.loads, api.server.files[0].content.splitlines())
    assert (line["url"], line["body"]["model"]) == ("/chat/completions", "my-deployment")
    assert api.server.batches[0]["endpoint"] == "/chat/completions"
    assert [(each.method, each.path.removeprefix("/openai/v1")) for each in api.server.requests] == [
        ("POST", "/files"),
        ("GET", "/files/file-1"),
        ("POST", "/batches"),
    ]


def test_a_deployment_of_azure_has_no_files(api_with, write_rows):
    api = api_with()
    options = {"api_key": "k", "api_version": "2024-10-21"}
    with pytest.raises(ConfigurationError, match="leave deployment out"):
        batch.submit(write_rows(1), api.output, pool=ChatPool.azure(api.server.origin, "gpt", **options))


def test_a_pool_of_several_servers_is_refused(api_with, write_rows):
    from chatpool import Endpoint

    api = api_with()
    urls = [api.server.base_url, "http://127.0.0.1:9/v1"]
    endpoints = [Endpoint(url, api_key="k") for url in urls]
    with ChatPool("m", endpoints=endpoints) as pool, pytest.raises(ConfigurationError, match="2 endpoints"):
        batch.submit(write_rows(1), api.output, pool=pool)


# -- two at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["submit", "wait", "collect", "cancel"])
def test_a_second_process_is_refused(function, api_with, write_rows):
    source = write_rows(1)
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(source)
    arguments = [source] if function == "submit" else []
    with Submission(str(api.folder / "out.batches")):
        assert api.status().rows == 1  # which changes nothing
        with pytest.raises(JournalBusyError):
            getattr(api, function)(*arguments)


def test_a_run_and_a_submission_keep_each_other_away(api_with, write_rows):
    source = write_rows(1)
    api = api_with()
    with Journal(api.folder / "out.journal"), pytest.raises(JournalBusyError):
        api.submit(source)
    assert not (api.folder / "out.batches").exists()


# -- kills ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here, as far as a test goes."""


class Steps:
    """Counts the steps of a submission, and ends one of them before or after its work.

    Attributes:
        end_at: the step at which it ends, from 1; 0 for none.
    """

    def __init__(self, end):
        self.end_at, self.taken, self._end = 0, 0, end

    def wrap(self, function):
        def step(*arguments, **options):
            self._count()
            result = function(*arguments, **options)
            self._count()
            return result

        return step

    def _count(self):
        self.taken += 1
        if self.taken == self.end_at:
            self._end()


STEPS = [(Submission, "_append"), (ChatPool, "request"), (Journal, "append"), (Journal, "sync")]


def kill_in_turn(server_of, steps, answer, check):
    """Kill ``answer`` at each of its steps in turn, do it again to its end, and check what came of it."""
    kills = 0
    while True:
        with server_of() as server:
            steps.end_at, steps.taken = kills + 1, 0
            try:
                answer(server, kills)
            except Killed:
                kills += 1
            else:
                return kills
            steps.end_at = 0
            answer(server, kills - 1)
            check(server, kills - 1)


@pytest.mark.slow
def test_an_end_at_any_step_loses_nothing_and_pays_nothing_twice(instant_waits, tmp_path, write_rows, monkeypatch, ids):
    def end():
        raise Killed

    source, steps = write_rows(4), Steps(end)
    monkeypatch.setattr(AppendOnly, "sync", lambda file: None)  # no machine dies here, and disks are slow
    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, steps.wrap(getattr(owner, name)))

    def answer(server, number):
        output = tmp_path / f"{number}.jsonl"
        with ChatPool("m", base_url=server.base_url, api_key="k") as pool:
            batch.submit(source, output, pool=pool, rows_per_batch=2)
            batch.wait(output, pool=pool, progress=False)
            batch.collect(output, pool=pool)

    def check(server, number):
        assert ids(tmp_path / f"{number}.jsonl") == ROWS, number
        assert sorted(batch_rows_at(server)) == ROWS, number
        assert len(server.batches) == 2
        assert len([file for file in server.files if file.purpose == "batch"]) == 2

    assert kill_in_turn(lambda: FakeServer(batches=AT_ONCE), steps, answer, check) > 40


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_batch_api_faults import STEPS, Steps
from chatpool.testing import InstantClock
from chatpool.clock import install_clock
from chatpool import batch
install_clock(InstantClock())
base_url, source, output, end_at = sys.argv[1:]
steps = Steps(lambda: os.kill(os.getpid(), signal.SIGKILL))
steps.end_at = int(end_at)
for owner, name in STEPS:
    setattr(owner, name, steps.wrap(getattr(owner, name)))
options = dict(base_url=base_url, api_key="k")
batch.submit(source, output, model="m", rows_per_batch=2, **options)
batch.wait(output, progress=False, **options)
batch.collect(output, **options)
"""


def killed_and_done_again(source, output, end_at):
    """The exit status of a process that is killed at a step, after another has gone on from there; checks the rest."""
    with FakeServer(batches=AT_ONCE) as server:
        program = PROGRAM.format(tests=os.path.dirname(__file__))
        command = [sys.executable, "-c", program, server.base_url, str(source), str(output)]
        first = subprocess.run([*command, str(end_at)], cwd=ROOT, timeout=120)
        if first.returncode == 0:
            return 0
        subprocess.run([*command, "0"], cwd=ROOT, timeout=120, check=True)
        assert sorted(batch_rows_at(server)) == ROWS, end_at
        assert len([file for file in server.files if file.purpose == "batch"]) == 2
        lines = [json.loads(line)["custom_id"] for line in output.read_text().splitlines()]
        assert lines == ROWS
        return first.returncode


QUICK = (12,)  # a batch is there, and nothing tells of it
ALL_STEPS = [pytest.param(step, marks=() if step in QUICK else pytest.mark.slow) for step in range(1, 61)]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("end_at", ALL_STEPS)
def test_a_killed_process_is_followed_by_one_that_goes_on(end_at, tmp_path, write_rows):
    status = killed_and_done_again(write_rows(4), tmp_path / "out.jsonl", end_at)
    assert status == -signal.SIGKILL or (status == 0 and end_at > 40)  # there are so many steps
