"""Runs that end when too many of their items fail."""

from __future__ import annotations

import pytest

from chatpool import BadRequestError, ChatPool, ConfigurationError, ParseError, TooManyFailuresError
from chatpool.testing import Error

MISSPELT = Error(400, message="Unknown parameter: 'temprature'.", code="unknown_parameter", param="temprature")
PROMPTS = [f"prompt {number}" for number in range(600)]


def refuse(*of_these):
    """A script that refuses prompts which end so, each in words of its own."""

    def script(request):
        prompt = request.body["messages"][-1]["content"]
        ends = prompt.endswith(of_these)
        return Error(400, message=f"{prompt!r} is not welcome here", code="unwelcome") if ends else None

    return script


@pytest.fixture
def serve(serve):
    """As always, with a call that has gone well: where none has, a model that refuses all is given up sooner."""

    def make(**options):
        server, pool = serve(**options)
        pool.chat("first")
        pool.embed("first")
        return server, pool

    return make


@pytest.fixture
def always(serve):
    """A server that has begun to do the same thing with every request."""

    def make(step):
        server, pool = serve()
        server.set_script(lambda request: step)
        return server, pool

    return make


class TestTheSameWords:
    def test_a_misspelt_parameter_is_not_sent_with_every_item(self, always):
        server, pool = always(MISSPELT)
        results = pool.map(PROMPTS, temprature=0)
        assert results == [None] * 600
        assert 50 <= sent(server) < 60
        assert isinstance(results.fatal, TooManyFailuresError)
        assert isinstance(results.fatal.__cause__, BadRequestError)
        assert "Unknown parameter: 'temprature'" in str(results.fatal)
        assert "not sent" in str(results.outcomes[-1].error)
        assert {type(outcome.error) for outcome in results.outcomes} == {BadRequestError, TooManyFailuresError}

    def test_numbers_in_the_words_make_no_difference(self, serve):
        server, pool = serve()
        lengths = iter(range(10_000, 20_000))
        server.set_script(
            lambda request: Error(400, message=f"You requested {next(lengths)} tokens of 8192.", code="long")
        )
        assert pool.map(PROMPTS).fatal is not None
        assert sent(server) < 60

    @pytest.mark.parametrize("run", ["imap", "as_completed", "stream_many", "embed"])
    def test_every_kind_of_run_has_it(self, always, run):
        server, pool = always(MISSPELT)
        outcomes = getattr(pool, run)(PROMPTS, **({"max_pack": 1} if run == "embed" else {}))
        outcomes = outcomes.outcomes if run == "embed" else [last(one) for one in outcomes]
        assert len(outcomes) == 600
        assert any(isinstance(outcome.error, TooManyFailuresError) for outcome in outcomes)
        assert sent(server) < 60

    def test_one_answer_shows_that_it_is_not_all_of_them(self, serve):
        server, pool = serve()
        server.set_script(lambda request: None if "prompt 7'" in str(request.body) else MISSPELT)
        assert pool.map(PROMPTS[:120]).fatal is None
        assert sent(server) == 120

    def test_so_do_words_of_another_kind(self, serve):
        server, pool = serve()
        server.set_script(
            lambda request: Error(400, message="No cats.") if "prompt 7'" in str(request.body) else MISSPELT
        )
        assert pool.map(PROMPTS[:120]).fatal is None
        assert sent(server) == 120

    def test_49_are_too_few(self, always):
        server, pool = always(MISSPELT)
        assert pool.map(PROMPTS[:49]).fatal is None
        assert sent(server) == 49

    def test_items_that_were_not_sent_say_nothing(self, serve):
        _, pool = serve()
        results = pool.map([3.5] * 200 + ["a prompt"])
        assert results.fatal is None
        assert results[-1].text

    def test_answers_that_were_not_taken_are_no_refusals(self, serve):
        server, pool = serve()
        results = pool.map(PROMPTS[:80], parse=int, max_reasks=0)
        assert results.fatal is None
        assert {type(outcome.error) for outcome in results.outcomes} == {ParseError}
        assert sent(server) == 80

    def test_none_sends_them_all(self, always):
        server, pool = always(MISSPELT)
        assert pool.map(PROMPTS[:120], max_failures=None).fatal is None
        assert sent(server) == 120


class TestAModelThatHasNeverAnswered:
    """Where nothing has gone well yet, fewer refusals are enough, unless somebody says how many."""

    @pytest.mark.parametrize(("max_failures", "least", "most"), [("same", 10, 40), (100, 100, 120), (None, 300, 300)])
    def test_max_failures_is_what_counts(self, chatpool_server, max_failures, least, most):
        chatpool_server.set_script(lambda request: MISSPELT)
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=8) as pool:
            results = pool.map(PROMPTS[:300], max_failures=max_failures)
        assert least <= len(chatpool_server.requests) <= most
        assert (results.fatal is None) == (max_failures is None)


class TestANumber:
    def test_it_ends_with_that_many_whatever_they_fail_of(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(refuse("3", "8"))
        results = pool.map(PROMPTS, max_failures=5)
        refused = [outcome for outcome in results.outcomes if isinstance(outcome.error, BadRequestError)]
        assert [outcome.index for outcome in refused] == [3, 8, 13, 18, 23]
        assert sent(server) in (24, 25)  # a worker may have the next one already
        assert "5 items have failed" in str(results.fatal)
        assert results.fatal.__cause__ is refused[-1].error

    def test_items_that_cannot_be_sent_count_too(self, serve):
        server, pool = serve(max_workers=1)
        results = pool.map(["a", 3.5, 3.5, *PROMPTS], max_failures=2)
        assert results.fatal is not None
        assert sent(server) <= 2
        assert len(results) == 603

    def test_one_ends_the_run_and_keeps_what_was_done(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(refuse("9"))
        results = pool.map(PROMPTS, max_failures=1)
        assert [outcome.ok for outcome in results.outcomes[:10]] == [True] * 9 + [False]

    def test_a_journal_goes_on_from_there(self, serve, tmp_path):
        server, pool = serve(max_workers=1)
        server.set_script(refuse("9"))
        assert pool.map(PROMPTS[:40], max_failures=1, journal=tmp_path / "run.journal").fatal is not None
        before = sent(server)
        server.set_script(lambda request: None)
        results = pool.map(PROMPTS[:40], journal=tmp_path / "run.journal")
        assert sum(outcome.ok for outcome in results.outcomes) == 39  # a refusal would only repeat itself
        assert sent(server) <= before + 30


class TestAShare:
    def test_it_is_looked_at_from_the_twentieth_item_on(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(refuse("0", "1"))
        results = pool.map(PROMPTS, max_failures=0.15)
        assert isinstance(results.fatal, TooManyFailuresError)
        assert sent(server) in (20, 21)

    def test_less_than_it_ends_nothing(self, serve):
        server, pool = serve()
        server.set_script(refuse("0"))
        assert pool.map(PROMPTS[:100], max_failures=0.2).fatal is None
        assert sent(server) == 100


@pytest.mark.parametrize(
    ("max_failures", "error", "says"),
    [
        (0, ConfigurationError, "max_failures must be at least 1, got 0"),
        (-3, ConfigurationError, "max_failures must be at least 1"),
        (1.5, ConfigurationError, "between 0 and 1"),
        (0.0, ConfigurationError, "between 0 and 1"),
        (True, TypeError, "max_failures must be a whole number"),
        ("all", ConfigurationError, "max_failures must be a number, a share"),
        ([3], TypeError, "max_failures must be a whole number"),
    ],
)
def test_what_is_no_limit_is_an_error_before_anything_is_sent(serve, max_failures, error, says):
    server, pool = serve()
    with pytest.raises(error, match=says):
        pool.map(PROMPTS, max_failures=max_failures)
    assert not sent(server)


def sent(server):
    """How many requests of the run there were."""
    return sum("first" not in str(request.body) for request in server.requests)


def last(one):
    """An outcome, also of the pairs of ``stream_many``."""
    return one[1] if isinstance(one, tuple) else one
