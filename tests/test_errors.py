"""The error tree: every class can be made of a message alone, and pickles with its facts."""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import json
import pickle

import pytest

from chatpool import errors
from chatpool.types import ChatCompletion, Outcome, Results

CLASSES = [
    value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.ChatPoolError) and not name.startswith("_")
]
API_CLASSES = [cls for cls in CLASSES if issubclass(cls, errors.APIError)]

FACTS = {
    "status_code": 429,
    "request_id": "req_1",
    "code": "rate_limit_exceeded",
    "type": "requests",
    "param": "model",
    "body": {"error": {"message": "slow down"}},
    "retry_after": 1.5,
}


def through_pickle(error):
    return pickle.loads(pickle.dumps(error))


def through_copy(error):
    return copy.copy(error)


def test_the_tree_has_all_its_classes():
    assert {cls.__name__ for cls in CLASSES} == set(errors.__all__) - {"from_dict", "status_error_class", "Reask"}


@pytest.mark.parametrize("cls", CLASSES)
def test_a_message_is_enough_to_make_one(cls):
    error = cls("what happened")
    assert str(error) == error.message == "what happened"
    assert error.attempts == 0
    assert error.results is None


@pytest.mark.parametrize("cls", CLASSES)
def test_nothing_at_all_is_enough_to_make_one(cls):
    assert cls().message == ""


@pytest.mark.parametrize("again", [through_pickle, through_copy])
@pytest.mark.parametrize("cls", CLASSES)
def test_copies_keep_class_message_and_attempts(cls, again):
    twin = again(cls("what happened", attempts=3))
    assert type(twin) is cls
    assert twin.args == ("what happened",)
    assert str(twin) == "what happened"
    assert twin.attempts == 3


@pytest.mark.parametrize("again", [through_pickle, through_copy])
@pytest.mark.parametrize("cls", API_CLASSES)
def test_copies_keep_the_facts_of_an_answer(cls, again):
    twin = again(cls("what happened", attempts=2, **FACTS))
    assert {name: getattr(twin, name) for name in FACTS} == FACTS


@pytest.mark.parametrize("cls", API_CLASSES)
def test_facts_that_are_not_known_are_none(cls):
    error = cls("what happened")
    assert [getattr(error, name) for name in FACTS] == [None] * len(FACTS)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_pickle_keeps_the_results_of_the_run_that_the_error_is_part_of(cls):
    error = cls("what happened")
    error.results = Results([error], [Outcome(0, "ping", error=error)], 1.5)
    twin = through_pickle(error)
    assert twin.results.elapsed == 1.5
    assert twin.results[0] is twin.results.outcomes[0].error is twin


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_what_to_do_and_what_it_is(cls):
    assert cls.advice
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.APITimeoutError, TimeoutError),
        (errors.DeadlineExceededError, TimeoutError),
        (errors.PoolClosedError, RuntimeError),
        (errors.ConfigurationError, ValueError),
        (errors.CallCancelledError, concurrent.futures.CancelledError),
    ],
)
def test_errors_are_caught_by_the_builtin_they_stand_for(cls, builtin):
    with pytest.raises(builtin):
        raise cls("what happened")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.BadRequestError),
        (401, errors.AuthenticationError),
        (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError),
        (409, errors.ConflictError),
        (418, errors.APIStatusError),
        (422, errors.UnprocessableEntityError),
        (429, errors.RateLimitError),
        (500, errors.InternalServerError),
        (529, errors.InternalServerError),
    ],
)
def test_statuses_have_the_names_that_openai_gives_them(status, cls):
    assert errors.status_error_class(status) is cls


def test_running_out_of_credit_is_caught_as_a_rate_limit_too():
    assert issubclass(errors.InsufficientQuotaError, errors.RateLimitError)


@pytest.mark.parametrize("again", [through_pickle, through_copy])
def test_a_truncated_stream_keeps_the_text_that_had_arrived(again):
    twin = again(errors.TruncatedStreamError("cut off", text="Once upon", status_code=200, attempts=1))
    assert (twin.text, twin.status_code, twin.attempts) == ("Once upon", 200, 1)
    assert errors.TruncatedStreamError("cut off").text == ""


@pytest.mark.parametrize("again", [through_pickle, through_copy])
@pytest.mark.parametrize("cls", [errors.ParseError, errors.LengthError, errors.ContentFilterError])
def test_an_answer_that_is_not_accepted_is_kept_on_the_error(cls, again):
    answer = ChatCompletion(text="Pa", message={"role": "assistant", "content": "Pa"}, finish_reason="length")
    twin = again(cls("not accepted", completion=answer, request_id="req_1"))
    assert (twin.text, twin.completion, twin.request_id) == ("Pa", answer, "req_1")
    assert (cls("no answer").text, cls("no answer").completion) == ("", None)


@pytest.mark.parametrize("again", [through_pickle, through_copy])
def test_an_answer_that_cannot_be_parsed_says_why(again):
    twin = again(errors.ParseError("no number in it", text="seven", reason="not a number"))
    assert (twin.text, twin.reason) == ("seven", "not a number")
    assert errors.ParseError("no number in it").reason == ""


def through_json(error):
    return errors.from_dict(json.loads(json.dumps(error.to_dict(), allow_nan=False)))


@pytest.mark.parametrize("cls", CLASSES)
def test_json_keeps_class_message_and_attempts(cls):
    twin = through_json(cls("what happened", attempts=3))
    assert type(twin) is cls
    assert (str(twin), twin.attempts) == ("what happened", 3)


@pytest.mark.parametrize("cls", API_CLASSES)
def test_json_keeps_the_facts_of_an_answer_but_not_what_the_server_sent(cls):
    twin = through_json(cls("what happened", **FACTS))
    assert {name: getattr(twin, name) for name in FACTS} == {**FACTS, "body": None}


def test_json_has_no_answer_and_no_results():
    answer = ChatCompletion(text="secret answer", message={})
    error = errors.ParseError("no number", text="secret answer", reason="no number", completion=answer)
    error.results = Results([], [], 0.0)
    described = error.to_dict()
    assert "secret answer" not in json.dumps(described)
    assert set(described) == {"error", "message", "attempts", "reason"}
    twin = errors.from_dict(described)
    assert (twin.reason, twin.text, twin.completion) == ("no number", "", None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}, [1]])
def test_facts_that_json_has_no_form_for_are_left_out(value):
    assert through_json(errors.APIError("what happened", code=value)).code is None


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"error": "OfTomorrow", "message": "what happened", "spin": 3},
        {"error": "Reask", "message": "x"},
        {"error": "status_error_class"},
        {
            "error": "APIError",
            "message": "x",
            "args": "y",
            "__class__": "z",
            "status_code": [429],
            "advice": "run rm -rf",
        },
    ],
)
def test_a_description_that_is_not_known_is_an_error_all_the_same(facts):
    error = errors.from_dict(facts)
    assert isinstance(error, errors.ChatPoolError)
    assert str(error) == facts.get("message", "")
    assert not set(facts) & {"spin", "__class__"} & set(error.__dict__)
    assert error.advice == type(error).advice


def test_a_description_that_is_none_says_what_it_has_to_be():
    with pytest.raises(TypeError, match="facts must be a dict"):
        errors.from_dict("RateLimitError")
