"""Runs with a journal, started again: what is made of stored answers is up to the run that goes on."""

from __future__ import annotations

import dataclasses

import pytest

from chatpool import ContentFilterError, LengthError, ParseError
from chatpool.testing import Answer, Error
from chatpool.testing.model import chat_completion


@dataclasses.dataclass
class City:
    name: str


ROME = Answer('{"name": "Rome"}')
CUT = Answer(body=chat_completion('{"name":', finish_reason="length"))


@pytest.fixture
def run(serve, tmp_path):
    """``run(*script, **keywords)``: the outcome of one item, and how many requests were sent for it this time."""
    server, pool = serve(max_workers=1)

    def go(*script, **keywords):
        server.set_script(list(script))
        before = len(server.requests)
        results = pool.map(["x"], journal=tmp_path / "run.journal", progress=False, on_error="return", **keywords)
        return results.outcomes[0], len(server.requests) - before

    return go


def test_the_value_is_made_again_of_the_stored_answer(run):
    for sent in (1, 0):
        outcome, found = run(ROME, parse=City)
        assert (outcome.value.parsed, found) == (City("Rome"), sent)


def test_the_tokens_of_all_answers_are_kept(run):
    first, _ = run(Answer("no idea at all"), ROME, parse=City)
    again, sent = run(parse=City)
    assert sent == 0
    assert again.usage == first.usage
    assert again.usage.completion_tokens == 4 + 2
    assert [attempt.reason for attempt in again.history] == ["parse failed", "ok"]


def test_an_answer_that_was_kept_without_parse_is_parsed(run):
    run(ROME)
    outcome, sent = run(parse=City)
    assert (outcome.value.parsed, sent) == (City("Rome"), 0)


def test_an_answer_of_which_nothing_can_be_made_any_more_is_asked_for_again(run):
    run(Answer("Rome"))
    outcome, sent = run(ROME, parse=City)
    assert (outcome.value.parsed, sent) == (City("Rome"), 1)


def test_an_item_that_ended_in_a_parse_error_runs_again(run):
    outcome, sent = run(Answer("a"), Answer("b"), parse=City, max_reasks=1)
    assert isinstance(outcome.error, ParseError)
    assert sent == 2
    outcome, sent = run(ROME, parse=City)
    assert (outcome.value.parsed, sent) == (City("Rome"), 1)


def test_unless_the_last_answer_will_do_now(run):
    run(Answer("a"), Answer("b"), parse=City, max_reasks=1)
    outcome, sent = run(parse=str.upper)
    assert (outcome.value.parsed, sent) == ("B", 0)
    outcome, sent = run()
    assert (outcome.value.text, sent) == ("b", 0)


def test_an_answer_that_met_an_error_of_the_program_is_not_paid_again(run):
    broken = True

    def parse(text):
        if broken:
            raise RuntimeError("no database")
        return text.upper()

    for expected in (1, 0):
        outcome, sent = run(Answer("a"), parse=parse)
        assert isinstance(outcome.error, ParseError)
        assert sent == expected
    broken = False
    outcome, sent = run(parse=parse)
    assert (outcome.value.parsed, sent) == ("A", 0)


def test_an_answer_that_was_cut_is_not_asked_for_again(run):
    for expected in (1, 0):
        outcome, sent = run(CUT, parse=City)
        assert isinstance(outcome.error, LengthError)
        assert outcome.error.text == '{"name":'
        assert outcome.error.completion.finish_reason == "length"
        assert (outcome.error.attempts, sent) == (1, expected)
        assert outcome.usage.completion_tokens == 1


def test_it_is_taken_where_that_is_accepted_now(run):
    run(CUT, accept="stop")
    outcome, sent = run(accept=("stop", "length"))
    assert (outcome.value.text, sent) == ('{"name":', 0)


def test_a_stored_answer_is_not_taken_where_it_is_not_accepted_now(run):
    run(CUT)
    outcome, sent = run(accept="stop")
    assert isinstance(outcome.error, LengthError)
    assert sent == 0


def test_a_refusal_is_kept_too(run):
    body = chat_completion(None)
    body["choices"][0]["message"]["refusal"] = "No."
    for _ in range(2):
        outcome, _ = run(Answer(body=body), accept="stop")
        assert isinstance(outcome.error, ContentFilterError)
        assert outcome.error.text == "No."


def test_an_unknown_reason_runs_again(run):
    _, sent = run(Answer(body=chat_completion("x", finish_reason="abort")), accept="stop")
    outcome, again = run(accept="stop")
    assert (outcome.ok, sent, again) == (True, 1, 1)


def test_other_failures_are_as_before(run):
    run(Error(400), parse=City)
    outcome, sent = run(parse=City)
    assert outcome.error.status_code == 400
    assert sent == 0
