"""Answers that ``parse=`` cannot use are asked for again."""

from __future__ import annotations

import contextvars
import dataclasses
import json
import pickle
import threading
from typing import List

import pytest

from chatpool import (
    Budget,
    BudgetExceededError,
    ChatPool,
    ConfigurationError,
    DeadlineExceededError,
    Limits,
    ParseError,
    Reask,
    Timeout,
    Usage,
)
from chatpool.errors import RateLimitError
from chatpool.testing import Answer, Error, FakeServer, Stall, Stream


@dataclasses.dataclass
class City:
    name: str
    people: int


BAD, HALF, GOOD = Answer("no idea"), Answer('{"name": "Rome"}'), Answer('{"name": "Rome", "people": 3}')
ROME = City("Rome", 3)


def messages(request):
    return [(message["role"], message["content"]) for message in request.body["messages"]]


# -- what is sent ----------------------------------------------------------------------------------------------


def test_the_answer_and_the_reason_are_appended(serve):
    server, pool = serve(BAD, HALF, GOOD)
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which city?"}]
    assert pool.chat(conversation, parse=City, temperature=0).parsed == ROME
    first, second, third = server.requests
    assert messages(first) == [("system", "Be brief."), ("user", "Which city?")]
    assert messages(second)[2] == ("assistant", "no idea")
    assert messages(second)[3][0] == "user"
    assert "not JSON: Expecting value" in messages(second)[3][1]
    assert messages(third)[:4] == messages(second)
    assert messages(third)[4] == ("assistant", '{"name": "Rome"}')
    assert "people: missing" in messages(third)[5][1]
    assert third.body["temperature"] == 0
    assert len(conversation) == 2


def test_an_answer_without_text_stands_for_one(serve):
    server, pool = serve(Answer(""), GOOD)
    pool.chat("x", parse=City)
    assert messages(server.requests[1])[1] == ("assistant", "(no text)")


def test_half_a_surrogate_pair_in_an_answer_can_be_sent_back(serve):
    body = b'{"choices": [{"message": {"role": "assistant", "content": "\\ud83d"}, "finish_reason": "stop"}]}'
    server, pool = serve(Answer(body=body), GOOD)
    assert pool.chat("x", parse=City).parsed == ROME
    assert messages(server.requests[1])[1] == ("assistant", "?")


def test_the_responses_api_gets_them_as_input(serve):
    server, pool = serve(BAD, BAD, GOOD)
    assert pool.chat({"input": "Which city?"}, parse=City).parsed == ROME
    assert [item["role"] for item in server.requests[1].body["input"]] == ["user", "assistant", "user"]
    assert len(server.requests[2].body["input"]) == 5


def test_a_conversation_that_the_server_keeps_gets_the_reason_only(serve):
    server, pool = serve(BAD, GOOD)
    pool.chat({"input": "Which city?", "conversation": "conv_1"}, parse=City)
    assert [item["role"] for item in server.requests[1].body["input"]] == ["user"]


def test_a_bare_prompt_holds_no_conversation_and_is_not_asked_again(serve):
    server, pool = serve(BAD, GOOD)
    with pytest.raises(ParseError):
        pool.chat({"prompt": "Which city?"}, parse=City)
    assert len(server.requests) == 1


# -- how often -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keywords", "sent"), [({}, 3), ({"max_reasks": 0}, 1), ({"max_reasks": 4}, 5)])
def test_it_ends_after_max_reasks_with_the_last_answer(always, keywords, sent):
    server, pool = always(BAD)
    with pytest.raises(ParseError) as raised:
        pool.chat("x", parse=City, **keywords)
    error = raised.value
    assert len(server.requests) == error.attempts == sent
    assert error.text == error.completion.text == "no idea"
    assert error.reason.startswith("not JSON: ")
    assert error.reason in str(error)
    assert error.request_id == f"req_{sent - 1}"
    assert isinstance(error.__cause__, ValueError)


def test_the_error_survives_pickling_with_the_answer(always):
    _, pool = always(BAD)
    error = pool.map(["x"], parse=City, on_error="return")[0]
    again = pickle.loads(pickle.dumps(error))
    assert (again.text, again.reason, again.attempts) == ("no idea", error.reason, 3)
    assert again.completion == error.completion


@pytest.mark.parametrize("value", [-1, 1.5, "2", True])
def test_max_reasks_is_a_count(serve, value):
    _, pool = serve()
    with pytest.raises(TypeError, match="max_reasks must be a whole number, 0 or more"):
        pool.chat("x", parse=City, max_reasks=value)


def test_max_reasks_alone_is_a_mistake(serve):
    _, pool = serve()
    with pytest.raises(TypeError, match="max_reasks has no effect without parse="):
        pool.chat("x", max_reasks=1)


def test_a_call_that_fails_inside_parse_is_not_the_answers_fault(serve):
    server, pool = serve(BAD)

    def parse(text):
        raise RateLimitError("too many")

    with pytest.raises(ParseError, match="RateLimitError: too many"):
        pool.chat("x", parse=parse)
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, IndexError, AssertionError, UnicodeError, Reask])
def test_what_says_that_the_answer_is_wrong_is_told_to_the_model(serve, kind):
    server, pool = serve(BAD, GOOD)

    def parse(text):
        if text == "no idea":
            raise kind("a city is wanted")
        return text

    assert pool.chat("x", parse=parse).parsed == '{"name": "Rome", "people": 3}'
    assert "a city is wanted" in messages(server.requests[1])[-1][1]


class DatabaseError(Exception):
    """Of a driver."""


class NotJSON(ValueError, OSError):
    """As requests has some: a service's answer was no JSON."""


class DataError(DatabaseError, ValueError):
    """As asyncpg has one: a query was given a value that it does not take."""


@pytest.mark.parametrize(
    "kind", [DatabaseError, DataError, RuntimeError, OSError, NotJSON, ArithmeticError, AttributeError, RecursionError]
)
def test_any_other_exception_ends_the_call_and_its_text_is_sent_to_nobody(always, kind):
    server, pool = always(BAD)
    raised = kind("db.internal: password is hunter2")

    def parse(text):
        raise raised

    results = pool.map(["a", "b"], parse=parse, on_error="return", progress=False)
    assert len(server.requests) == 2
    for error in results:
        assert isinstance(error, ParseError)
        assert f"parse= raised {kind.__name__}: " in str(error)
        assert error.__cause__ is raised
        assert error.text == "no idea"
        assert error.attempts == 1
    assert pool.stats().reasked == 0
    assert [outcome.history[-1].reason for outcome in results.outcomes] == ["parse raised"] * 2


def test_reask_has_words_of_any_length_for_the_model(serve):
    server, pool = serve(BAD, GOOD)
    words = "compiler: " + "line is wrong; " * 1000

    def parse(text):
        if text == "no idea":
            raise Reask(words)
        return text

    pool.chat("x", parse=parse)
    said = messages(server.requests[1])[-1][1]
    assert words in said
    assert "Reask" not in said


def test_reask_without_words_asks_all_the_same_and_in_the_end_it_is_a_parse_error(always):
    server, pool = always(BAD)

    def parse(text):
        raise Reask

    with pytest.raises(ParseError, match="it is not what was asked for") as raised:
        pool.chat("x", parse=parse, max_reasks=1)
    assert len(server.requests) == 2
    assert isinstance(raised.value.__cause__, Reask)


@dataclasses.dataclass
class Checked:
    name: str

    def __post_init__(self):
        if self.name == "boom":
            raise DatabaseError("no connection")
        if self.name == "ask":
            raise Reask("another city, please")
        if self.name == "pool":
            raise ConfigurationError("no key")
        if self.name == "key":
            raise KeyError("colour")
        if self.name == "bare":
            raise AssertionError
        assert self.name != "assert", "not this one"


@pytest.mark.parametrize(
    ("name", "sent", "said"),
    [
        ("boom", 1, None),
        ("pool", 1, None),
        ("ask", 2, "another city, please"),
        ("assert", 2, "not this one"),
        ("bare", 2, "AssertionError"),
        ("key", 2, "KeyError: 'colour'"),
    ],
)
@pytest.mark.parametrize("parse", [Checked, List[Checked]])
def test_checks_of_a_class_follow_the_same_rule(always, parse, name, sent, said):
    server, pool = always(Answer(json.dumps({"name": name} if parse is Checked else [{"name": name}])))
    with pytest.raises(ParseError):
        pool.chat("x", parse=parse, max_reasks=1)
    assert len(server.requests) == sent
    if said:
        assert said in messages(server.requests[1])[-1][1]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_ends_the_call_and_nothing_else(serve, kind):
    server, pool = serve(max_workers=1)

    def parse(text):
        raise kind("stop")

    with pytest.raises(ParseError, match=f"{kind.__name__}: stop") as raised:
        pool.chat("x", parse=parse)
    assert isinstance(raised.value.__cause__, kind)
    assert len(server.requests) == 1
    assert pool.chat("again").text == "again"


# -- retries, limits, time ---------------------------------------------------------------------------------------


def test_failed_attempts_are_counted_apart_and_start_afresh(serve, instant_waits):
    server, pool = serve(Error(503), BAD, Error(503), BAD, Error(503), GOOD)
    outcome = pool.map(["x"], parse=City, retry=1, progress=False).outcomes[0]
    assert outcome.value.parsed == ROME
    assert [attempt.reason for attempt in outcome.history] == [
        "503 server_error",
        "parse failed",
        "503 server_error",
        "parse failed",
        "503 server_error",
        "ok",
    ]
    assert (pool.stats().retried, pool.stats().reasked) == (3, 2)


def test_without_retries_it_is_asked_again_all_the_same(serve):
    server, pool = serve(BAD, GOOD, retry=0)
    assert pool.chat("x", parse=City).parsed == ROME


def test_it_keeps_to_the_limits(always, stepped_time):
    server, pool = always(BAD, limits=Limits(requests_per_minute=60))
    with pytest.raises(ParseError):
        stepped_time.run(pool, lambda: pool.chat("x", parse=City))
    times = [request.time for request in server.requests]
    assert all(later - earlier >= 0.99 for earlier, later in zip(times, times[1:]))


def test_it_keeps_to_the_budget(always):
    server, pool = always(Answer("one two three"), budget=Budget(tokens=10))
    with pytest.raises(BudgetExceededError) as raised:
        pool.chat("x", parse=City, max_reasks=50, max_tokens=4)
    assert raised.value.attempts == len(server.requests) < 5
    assert pool.stats().usage.total_tokens <= 20


def test_the_time_of_the_call_goes_on(serve):
    server, pool = serve(BAD, Stall())
    with pytest.raises(DeadlineExceededError):
        pool.chat("x", parse=City, timeout=Timeout(total=2))  # the first answer comes in that, on a busy machine too
    assert len(server.requests) == 2


def test_a_call_whose_time_went_by_in_parse_is_not_asked_again(always, instant_waits):
    server, pool = always(BAD)

    def parse(text):
        condition = threading.Condition()
        with condition:
            pool._core.engine.clock.wait(condition, 100)
        raise ValueError("no")

    with pytest.raises(DeadlineExceededError, match="before it could be sent"):
        pool.map(["x"], parse=parse, timeout=Timeout(total=50), progress=False).raise_on_failure()
    assert len(server.requests) == 1


# -- counted -------------------------------------------------------------------------------------------------


def test_the_tokens_of_all_answers_are_counted(serve):
    server, pool = serve(BAD, GOOD)
    results = pool.map(["a b c"], parse=City, progress=False)
    outcome = results.outcomes[0]
    total = pool.stats().usage
    assert total == outcome.usage == results.usage
    assert total.completion_tokens == 2 + 4
    assert results[0].usage.completion_tokens == 4
    assert results.to_dicts()[0]["completion_tokens"] == 6


def test_so_are_those_of_a_call_that_failed(always):
    _, pool = always(BAD)
    results = pool.map(["a"], parse=City, max_reasks=1, on_error="return", progress=False)
    assert results.usage.completion_tokens == 4
    assert pool.stats().usage == results.usage
    assert pool.stats().failed == 1


def test_an_answer_that_does_not_say_its_tokens_adds_none(always):
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    _, pool = always(Answer(body=body))
    results = pool.map(["a"], parse=City, on_error="return", progress=False)
    assert results.outcomes[0].usage is None
    assert results.usage == Usage()


def test_the_outcome_has_the_request_that_was_made_of_the_item(serve):
    _, pool = serve(BAD, GOOD)
    outcome = pool.map(["x"], parse=City, progress=False).outcomes[0]
    assert outcome.request.body == {"messages": [{"role": "user", "content": "x"}], "model": "m"}
    assert outcome.item == "x"


def test_listeners_hear_of_it(serve):
    heard = []
    _, pool = serve(BAD, GOOD, listeners=[heard.append])
    pool.chat("x", parse=City)
    assert [(event.kind, event.attempt, event.reason) for event in heard] == [
        ("queued", 0, None),
        ("sent", 1, None),
        ("reasking", 1, "parse failed"),
        ("sent", 2, None),
        ("succeeded", 2, None),
    ]
    assert heard[2].usage.completion_tokens == 2


def test_the_log_has_a_line_and_nothing_of_the_answer(serve, caplog):
    caplog.set_level("INFO", "chatpool")
    _, pool = serve(BAD, GOOD)
    pool.chat("x", parse=City)
    assert "attempt 1: parse failed; it is asked again" in caplog.text
    assert "no idea" not in caplog.text


def test_identical_items_are_asked_again_once(always):
    server, pool = always(BAD)
    results = pool.map(["x"] * 3, parse=City, dedupe=True, on_error="return", progress=False)
    assert [error.text for error in results] == ["no idea"] * 3
    assert len(server.requests) == 3
    assert results.usage.completion_tokens == 6


def test_a_twin_whose_text_makes_no_value_this_time_keeps_its_leaders(always):
    _, pool = always(Answer("7"))
    made = iter([7])
    replies = pool.map(["x"] * 2, parse=lambda text: next(made), dedupe=True, progress=False)
    assert [reply.parsed for reply in replies] == [7, 7]


# -- where and when ---------------------------------------------------------------------------------------------


def test_the_callers_context_is_there_every_time(serve):
    seen, wanted = [], contextvars.ContextVar("wanted")
    _, pool = serve()
    wanted.set("this")

    def parse(text):
        seen.append(wanted.get())
        raise ValueError

    with pytest.raises(ParseError):
        pool.chat("x", parse=parse)
    assert seen == ["this"] * 3


def test_a_call_from_inside_a_worker_is_asked_again_there(serve):
    server, pool = serve(Answer("outer"), BAD, GOOD, max_workers=1)
    assert pool.chat("x", parse=lambda text: pool.chat("inner", parse=City).parsed).parsed == ROME
    assert len(server.requests) == 3


def test_a_class_that_is_made_of_an_answer_may_make_calls_itself(serve):
    server, pool = serve(GOOD, Answer("inner"))

    @dataclasses.dataclass
    class Asking:
        name: str
        people: int

        def __post_init__(self):
            self.name = pool.chat(self.name).text

    assert pool.chat("x", parse=Asking).parsed.name == "inner"
    assert len(server.requests) == 2


def test_a_slow_parse_holds_up_nobody_else(serve):
    _, pool = serve(max_workers=2)
    started, ended = threading.Event(), threading.Event()

    def parse(text):
        started.set()
        assert ended.wait(60)
        return text

    future = pool.submit("slow", parse=parse)
    assert started.wait(60)
    assert [str(reply) for reply in pool.map(["a", "b", "c"], progress=False)] == ["a", "b", "c"]
    ended.set()
    assert future.result(60).parsed == "slow"


@pytest.fixture
def stuck(serve):
    """(server, pool, future, let_go) of a call whose parse= waits and then asks for another answer."""
    server, pool = serve(BAD, GOOD, max_workers=1)
    started, ended, left = threading.Event(), threading.Event(), threading.Event()

    def parse(text):
        started.set()
        assert ended.wait(60)
        left.set()
        raise ValueError

    future = pool.submit("x", parse=parse)
    assert started.wait(60)

    def let_go():
        ended.set()
        assert left.wait(60)

    yield server, pool, future, let_go
    ended.set()


def test_a_call_that_is_cancelled_while_it_is_parsed_is_not_asked_again(stuck):
    server, pool, future, let_go = stuck
    assert future.cancel()
    let_go()
    assert pool.chat("another").text  # the only worker is free
    assert len(server.requests) == 2


def test_an_abort_does_not_wait_for_a_parse(stuck):
    server, pool, future, let_go = stuck
    pool.abort()
    assert future.done()
    let_go()
    assert len(server.requests) == 1


def test_close_waits_for_calls_that_are_asked_again(serve):
    server, pool = serve(BAD, GOOD)
    future = pool.submit("x", parse=City)
    pool.close()
    assert future.result(0).parsed == ROME
    assert len(server.requests) == 2


def test_a_run_that_is_left_asks_no_more(serve):
    server, pool = serve(max_workers=1)
    entered, leave = threading.Event(), threading.Event()

    def parse(text):
        if text == "first":
            return text
        entered.set()
        assert leave.wait(60)
        raise ValueError

    outcomes = pool.imap(["first", "second"], parse=parse)
    assert next(outcomes).value.parsed == "first"
    assert entered.wait(60)
    outcomes.close()
    leave.set()
    assert pool.chat("third").text == "third"
    assert [request.prompt for request in server.requests] == ["first", "second", "third"]


@pytest.mark.slow
def test_very_many_at_once_end_as_each_should():
    """Every item needs as many answers as its number says; those of more than three fail."""

    def reply(body):
        number = int(body["messages"][0]["content"])
        asked = len(body["messages"]) // 2
        return "yes" if asked == number % 6 else "no"

    def parse(text):
        if text != "yes":
            raise ValueError(text)
        return True

    with FakeServer(reply=reply) as server, ChatPool("m", base_url=server.base_url, max_workers=8) as pool:
        results = pool.map(map(str, range(600)), parse=parse, max_reasks=3, on_error="return", progress=False)
        for number, outcome in enumerate(results.outcomes):
            assert outcome.ok is (number % 6 <= 3)
            assert outcome.attempts == min(number % 6, 3) + 1
        stats = pool.stats()
        assert (stats.queued, stats.parked, stats.in_flight) == (0, 0, 0)
        assert (stats.succeeded, stats.failed) == (400, 200)
        assert stats.reasked == len(server.requests) - 600
        assert stats.usage == results.usage


def test_answers_collected_from_streams_are_parsed_and_asked_for_again(serve):
    server, pool = serve(Stream(["no ", "idea"]), Stream(['{"name": "Rome",', ' "people": 3}']))
    assert pool.chat("x", parse=City, collect_stream=True).parsed == ROME
    assert [request.body["stream"] for request in server.requests] == [True, True]
    assert messages(server.requests[1])[1] == ("assistant", "no idea")
