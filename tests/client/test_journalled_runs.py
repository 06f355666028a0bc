"""Runs with a journal: what is done is not done again, however the last run ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import chatpool
from chatpool import (
    BadRequestError,
    Budget,
    CallCancelledError,
    ChatPool,
    ConfigurationError,
    Endpoint,
    InternalServerError,
    Limits,
    RetryPolicy,
)
from chatpool._journal import read_runs
from chatpool.testing import Error, Stall

ROOT = Path(chatpool.__file__).parents[1]


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "run.journal"


def prompts(server):
    return [request.prompt for request in server.requests]


def test_a_second_call_sends_only_what_may_go_better(serve, journal):
    server, pool = serve(retry=0)
    server.set_script({"b": Error(400), "c": Error(503)})
    first = pool.map(["a", "b", "c"], journal=journal, on_error="return")
    assert [type(each) for each in first[1:]] == [BadRequestError, InternalServerError]
    server.set_script(None)
    second = pool.map(["a", "b", "c"], journal=journal, on_error="return")
    assert Counter(prompts(server)) == {"a": 1, "b": 1, "c": 2}
    assert (second[0], str(second[2])) == (first[0], "c")
    assert type(second[1]) is BadRequestError
    assert vars(second[1]) == vars(first[1])
    assert second.outcomes[0].history[0].request_id == first.outcomes[0].history[0].request_id
    assert second.usage == first.usage + second[2].usage


def test_changed_items_run_again_and_others_do_not(serve, journal):
    server, pool = serve()
    pool.map(["a", "b"], journal=journal)
    pool.map(["a", "x", "c"], journal=journal)
    assert prompts(server)[2:] == ["x", "c"] or prompts(server)[2:] == ["c", "x"]
    pool.map(["a"], journal=journal, temperature=1)
    assert len(server.requests) == 5


@pytest.mark.parametrize("method", ["imap", "as_completed"])
def test_lazy_runs_go_on_as_well(serve, journal, method):
    server, pool = serve(max_workers=1)
    for outcome in getattr(pool, method)(["a", "b", "c"], journal=journal, buffersize=1):
        if outcome.item == "b":
            break
    again = list(getattr(pool, method)(["a", "b", "c"], journal=journal))
    assert sorted(outcome.value.text for outcome in again) == ["a", "b", "c"]
    assert Counter(prompts(server))["a"] == Counter(prompts(server))["b"] == 1


def test_other_answers_than_completions_come_back_too(serve, journal):
    server, pool = serve()
    items = [
        chatpool.ChatRequest({"input": "x", "dimensions": 2}, "/embeddings"),
        chatpool.ChatRequest({"input": "x"}, "/moderations"),
        {"input": "x"},
    ]
    first = pool.map(items, journal=journal)
    assert pool.map(items, journal=journal) == first
    assert len(server.requests) == 3


def test_what_cannot_be_sent_is_said_every_time(serve, journal):
    server, pool = serve()
    for _ in range(2):
        results = pool.map(["a", {"no": "messages"}, {"messages": "x"}], journal=journal, on_error="return")
        assert [type(each) for each in results[1:]] == [ConfigurationError] * 2
    assert len(server.requests) == 1


def test_rows_after_a_fatal_error_are_not_taken_for_done(serve, journal):
    server, pool = serve(max_workers=1)
    server.set_script(Error(401))
    pool.map([str(number) for number in range(20)], journal=journal)
    server.set_script(None)
    assert [str(each) for each in pool.map([str(number) for number in range(20)], journal=journal)] == [
        str(number) for number in range(20)
    ]
    assert len(server.requests) == 21


def test_two_runs_cannot_use_one_journal(serve, journal):
    _, pool = serve()
    outcomes = pool.imap(["a", "b"], journal=journal)
    next(outcomes)
    with pytest.raises(ConfigurationError, match="in use"):
        pool.map(["a"], journal=journal)
    outcomes.close()
    assert pool.map(["a"], journal=journal)


def test_an_iterator_that_was_never_begun_holds_nothing(serve, journal):
    _, pool = serve()
    outcomes = pool.imap(["a"], journal=journal)
    assert not journal.exists()
    assert pool.map(["a"], journal=journal)
    del outcomes


def test_a_file_that_is_no_journal_is_refused(serve, tmp_path):
    _, pool = serve()
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "x"}\n')
    with pytest.raises(ConfigurationError, match="not a journal"):
        pool.map(["a"], journal=path)


def test_what_cannot_be_kept_ends_the_run_with_what_was_done(serve, journal, monkeypatch):
    server, pool = serve(max_workers=1)
    real = chatpool._journal.Journal.append

    def full(self, record):
        if record.row == 3:
            raise OSError(28, "No space left on device")
        real(self, record)

    monkeypatch.setattr("chatpool._journal.Journal.append", full)
    with pytest.raises(OSError, match="No space left") as caught:
        pool.map([str(number) for number in range(50)], journal=journal, on_error="return")
    results = caught.value.results
    assert [str(each) for each in results[:4]] == ["0", "1", "2", "3"]
    assert {type(each) for each in results[5:]} == {CallCancelledError}
    monkeypatch.undo()
    assert len(pool.map([str(number) for number in range(50)], journal=journal)) == 50
    assert Counter(prompts(server)).most_common(1)[0][1] <= 2


def test_duplicates_that_were_not_sent_are_known_as_well(serve, journal):
    server, pool = serve()
    for _ in range(2):
        assert [str(each) for each in pool.map(["a", "b", "a"], journal=journal, dedupe=True)] == ["a", "b", "a"]
    assert len(server.requests) == 2


PROGRAM = """
import sys
from chatpool import ChatPool
with ChatPool("m", base_url=sys.argv[1], max_workers=4) as pool:
    for outcome in pool.as_completed([f"row {number}" for number in range(200)], journal=sys.argv[2]):
        print(outcome.index, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.slow
def test_after_a_kill_at_most_what_was_in_flight_is_sent_again(chatpool_server, journal):
    command = [sys.executable, "-c", PROGRAM, chatpool_server.base_url, str(journal)]
    chatpool_server.set_script(lambda request: Stall() if request.number >= 100 else None)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        chatpool_server.wait_for(104, timeout=60)
        process.send_signal(signal.SIGKILL)
        reported = process.communicate()[0].split()
    chatpool_server.set_script(None)
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert sorted(map(int, ended.stdout.split())) == list(range(200))
    assert len(chatpool_server.requests) == 204
    assert len(reported) <= 100


def test_pools_that_are_used_once_take_a_journal(chatpool_server, journal):
    for _ in range(2):
        assert len(chatpool.map(["a"], model="m", base_url=chatpool_server.base_url, journal=journal)) == 1
    assert len(chatpool_server.requests) == 1


def test_a_pool_of_another_kind_does_not_matter(chatpool_server, journal):
    for workers in (1, 7):
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=workers) as pool:
            pool.map(["a", "b"], journal=journal, timeout=workers)
    assert len(chatpool_server.requests) == 2


def test_an_item_that_is_paid_again_is_said_once(serve, journal, caplog):
    server, pool = serve()
    pool.map(["a", "b", "c"], journal=journal)
    assert caplog.text == ""
    pool.map(["new", "a", "b", "c"], journal=journal)
    (record,) = caplog.records
    assert record.getMessage().startswith("item 0 has an answer to another request in ")
    assert len(server.requests) == 7


# -- the options of a run -------------------------------------------------------------------------------------------


def test_a_run_that_sends_something_notes_its_options(serve, journal):
    server, pool = serve(retry=2, timeout=7, limits=Limits(requests_per_minute=60_000), budget=Budget(tokens=1e6))
    pool.map(["a"], journal=journal, run_timeout=60, temperature=0.5, model="other")
    pool.map(["a"], journal=journal, run_timeout=60, temperature=0.5, model="other")  # sends nothing
    ((at, options),) = read_runs(journal)
    assert at > 1.6e9
    assert options["base_url"] == server.base_url
    assert (options["model"], options["parameters"], options["run_timeout"]) == ("other", {"temperature": 0.5}, 60)
    assert options["limits"] == {"requests_per_minute": 60_000, "burst": 1}
    assert options["budget"] == {"tokens": 1e6}
    assert (options["timeout"]["attempt"], options["retry"]["max_retries"]) == (7, 2)


def test_a_retry_of_what_has_failed_notes_its_own(serve, journal):
    server, pool = serve(retry=0)
    server.set_script({"b": Error(503)})
    results = pool.map(["a", "b"], journal=journal)
    pool.retry(results, retry=1)
    assert [options["retry"]["max_retries"] for _, options in read_runs(journal)] == [0, 1]


def test_no_key_no_prompt_and_no_header_is_noted(chatpool_server, journal):
    endpoints = [
        Endpoint(chatpool_server.base_url, "sk-one", name="one", limits=Limits(tokens_per_minute=1e6)),
        Endpoint(chatpool_server.base_url, "sk-two", name="two", headers={"x-gate": "sk-three"}),
    ]
    options = {
        "api_key": "sk-four",
        "authorization": "Bearer sk-five",
        "tools": [{"type": "mcp", "headers": {"Authorization": "sk-six"}}],
        "metadata": {"note": "sk-seven"},
        "instructions": "Say sk-eleven",
        "provider_auth": "sk-twelve",
        "server_url": "https://me:sk-thirteen@tools.test/?sig=sk-fourteen",
        "user": "sk-fifteen@mail.test",
        "prompt": "very " * 1000,
        "reasoning_effort": "high",
        "routed_to": "org/model:free",
        "max_tokens": 10,
    }
    with ChatPool("m", endpoints=endpoints, system="sk-eight", headers={"x-mine": "sk-nine"}) as pool:
        pool.map(["sk-ten"], journal=journal, extra_body=options)
    ((_, noted),) = read_runs(journal)
    assert "sk-" not in str(noted)
    assert len(str(noted)) < 1500
    assert noted["parameters"]["api_key"] == noted["parameters"]["authorization"] == "***"
    assert (noted["parameters"]["max_tokens"], noted["parameters"]["metadata"]) == (10, "{note}")
    assert (noted["parameters"]["instructions"], noted["parameters"]["prompt"]) == ("13 characters", "5,000 characters")
    assert (noted["parameters"]["reasoning_effort"], noted["parameters"]["routed_to"]) == ("high", "org/model:free")
    assert noted["endpoints"] == {"one": chatpool_server.base_url, "two": chatpool_server.base_url}
    assert noted["limits"]["one"] == {"tokens_per_minute": 1e6, "burst": 1}


def test_functions_of_a_retry_policy_are_noted_by_name(serve, journal):
    def never(error):
        return False

    _, pool = serve(retry=RetryPolicy(retry_if=never))
    pool.map(["a"], journal=journal)
    assert read_runs(journal)[0][1]["retry"]["retry_if"] == "never"
