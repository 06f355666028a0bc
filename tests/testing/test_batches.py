"""Batches at a FakeServer, and the scenarios that a test gives them."""

from __future__ import annotations

import http.client
import json
import threading

import pytest

from chatpool.errors import ConfigurationError
from chatpool.testing import (
    Answer,
    BatchLimits,
    BatchScenario,
    Delay,
    Error,
    FakeServer,
    Html,
    LostAnswer,
    Stall,
    Truncate,
)


@pytest.fixture
def api_with(make_server, api_of):
    """Talks to a server with these options."""
    return lambda **options: api_of(make_server(**options))


def finished(api, batch):
    """The object of a batch that has ended."""
    while api.server.advance():
        pass
    return api.poll(batch)


def row(custom_id="a", url="/v1/chat/completions", method="POST", **body):
    return {"custom_id": custom_id, "method": method, "url": url, "body": {"model": "m", **body}}


def as_file(*rows):
    return "".join(json.dumps(entry) + "\n" for entry in rows).encode()


# -- states ----------------------------------------------------------------------------------------------------


def test_each_poll_sees_the_next_state(api_with):
    api = api_with()
    batch = api.batch(["a", "b"], metadata={"run": "7"})
    assert (batch["status"], batch["metadata"]) == ("validating", {"run": "7"})
    assert batch["expires_at"] == batch["created_at"] + 24 * 3600
    states = [api.poll(batch)["status"] for _ in range(5)]
    assert states == ["validating", "in_progress", "finalizing", "completed", "completed"]
    done = api.poll(batch)
    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert done["usage"]["total_tokens"] == 4
    assert all(done[f"{state}_at"] for state in states[1:])


def test_the_scenario_says_how_many_polls_see_a_state(api_with):
    api = api_with(batches=BatchScenario(polls={"validating": 0, "in_progress": 3}))
    batch = api.batch(["a"] * 8)
    polls = [api.poll(batch) for _ in range(5)]
    assert [poll["status"] for poll in polls] == ["in_progress"] * 3 + ["finalizing", "completed"]
    assert [poll["request_counts"]["completed"] for poll in polls] == [0, 2, 4, 8, 8]


def test_a_batch_can_be_done_at_the_first_poll(api_with):
    api = api_with(batches=BatchScenario(polls=0))
    assert api.poll(api.batch(["a"]))["status"] == "completed"


def test_a_held_batch_waits_for_the_server_to_be_told(api_with):
    api = api_with(batches=BatchScenario(polls=None))
    batch = api.batch(["a"])
    for state in ("validating", "in_progress", "finalizing"):
        assert api.poll(batch, 3)["status"] == state
        assert api.server.advance() == 1
    assert api.poll(batch)["status"] == "completed"
    assert api.server.advance() == 0


def test_one_held_batch_can_be_moved_alone(api_with):
    api = api_with(batches=BatchScenario(polls=None))
    _, second = api.batch(["a"]), api.batch(["a"])
    assert api.server.advance(second["id"]) == 1
    assert [batch["status"] for batch in api.server.batches] == ["validating", "in_progress"]
    assert api.server.advance("batch_9") == 0


def test_a_waiting_test_is_woken_when_the_server_is_told(api_with):
    api = api_with(batches=BatchScenario(polls=None))
    api.batch(["a"])
    is_looking = threading.Event()

    def is_in_progress():
        status = api.server.batches[0]["status"]
        is_looking.set()
        return status == "in_progress"

    waiting = threading.Thread(target=api.server.wait_until, args=(is_in_progress, 60), daemon=True)
    waiting.start()
    assert is_looking.wait(10)
    api.server.advance()
    waiting.join(10)
    assert not waiting.is_alive()


def test_looking_does_not_move_a_batch(api_with):
    api = api_with()
    batch = api.batch(["a"])
    for _ in range(3):
        assert api.get("/batches").json["data"][0]["status"] == "validating"
        assert api.server.batches[0]["status"] == "validating"
    assert api.poll(batch)["status"] == "validating"


def test_batches_have_their_own_scenarios_in_the_order_of_creation(api_with):
    api = api_with(batches=[BatchScenario(end="failed"), None, BatchScenario(end="expired")])
    batches = [api.batch(["a"]) for _ in range(4)]
    assert [finished(api, batch)["status"] for batch in batches] == ["failed", "completed", "expired", "completed"]


def test_a_function_gives_a_scenario_by_the_body(api_with):
    api = api_with(batches=lambda body: BatchScenario(end="failed") if body["metadata"]["part"] == "2" else None)
    batches = [api.batch(["a"], metadata={"part": part}) for part in "123"]
    assert [finished(api, batch)["status"] for batch in batches] == ["completed", "failed", "completed"]


# -- rows ------------------------------------------------------------------------------------------------------


def test_rows_are_answered_by_the_model_in_another_order(api_with):
    api = api_with(reply=lambda body: body["messages"][-1]["content"].upper())
    done = finished(api, api.batch(["a", "b", "c"]))
    lines = api.lines(done["output_file_id"])
    assert list(lines) == ["row-1", "row-0", "row-2"]
    assert lines["row-2"]["error"] is None
    response = lines["row-2"]["response"]
    assert (response["status_code"], bool(response["request_id"])) == (200, True)
    assert response["body"]["choices"][0]["message"]["content"] == "C"
    assert done["error_file_id"] is None


@pytest.mark.parametrize(
    ("url", "body", "field"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "choices"),
        ("/v1/completions", {"prompt": "x"}, "choices"),
        ("/v1/responses", {"input": "x"}, "output"),
        ("/v1/embeddings", {"input": ["x", "y"]}, "data"),
        ("/v1/moderations", {"input": "x"}, "results"),
    ],
)
def test_a_row_has_the_answer_of_its_endpoint(api_with, url, body, field):
    api = api_with()
    done = finished(api, api.batch(as_file(row(url=url, **body)), url))
    assert api.lines(done["output_file_id"])["a"]["response"]["body"][field]


def test_azure_leaves_v1_out(api_with):
    api = api_with()
    api.root = "/openai"
    batch = api.batch(
        as_file(row(url="/chat/completions", messages=[{"role": "user", "content": "x"}])), "/chat/completions"
    )
    assert finished(api, batch)["request_counts"]["completed"] == 1


def test_a_row_that_the_api_refuses_is_in_the_file_of_errors(api_with):
    api = api_with()
    done = finished(api, api.batch(as_file(row("a"), row("b", messages=[{"role": "user", "content": "x"}]))))
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    line = api.lines(done["error_file_id"])["a"]
    assert (line["response"]["status_code"], line["error"]) == (400, None)
    assert "messages" in line["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("as_function", [False, True])
def test_the_scenario_says_which_rows_fail(api_with, as_function):
    steps = {"row-0": Error(429), "row-1": Stall(), "row-2": Truncate(), "row-3": Html(502), "row-4": Answer("own")}
    steps["row-5"] = Delay(3600, then=Answer("late"))
    steps["row-6"] = Stall(after=200)
    api = api_with(batches=BatchScenario(rows=(lambda row: steps.get(row["custom_id"])) if as_function else steps))
    done = finished(api, api.batch(["x"] * 8))
    errors, answers = api.lines(done["error_file_id"]), api.lines(done["output_file_id"])
    assert errors["row-0"]["response"]["status_code"] == 429
    for custom_id in ("row-1", "row-2", "row-6"):
        assert errors[custom_id]["response"] is None
        assert errors[custom_id]["error"]["code"] == "request_timeout"
    assert "<html>" in errors["row-3"]["response"]["body"]
    texts = {name: line["response"]["body"]["choices"][0]["message"]["content"] for name, line in answers.items()}
    assert texts == {"row-4": "own", "row-5": "late", "row-7": "x"}


def test_a_batch_without_an_answered_row_has_no_output_file(api_with):
    api = api_with(batches=BatchScenario(rows={"row-0": Error(400)}))
    done = finished(api, api.batch(["x"]))
    assert (done["status"], done["output_file_id"]) == ("completed", None)
    assert list(api.lines(done["error_file_id"])) == ["row-0"]


def test_a_reply_that_raises_leaves_the_batch_as_it_was(api_with):
    replies = [AssertionError("no such row"), "ok"]

    def reply(body):
        following = replies.pop(0)
        if isinstance(following, AssertionError):
            raise following
        return following

    api = api_with(reply=reply)
    batch = api.batch(["x"])
    api.server.advance()
    with pytest.raises(AssertionError, match="no such row"):
        api.server.advance()
    assert api.server.batches[0]["status"] == "in_progress"
    assert finished(api, batch)["status"] == "completed"


def test_an_error_in_reply_is_answered_where_a_poll_moves_the_batch(api_of):
    def reply(body):
        raise AssertionError("no such row")

    with pytest.raises(AssertionError, match="no such row"), FakeServer(reply=reply) as server:
        api = api_of(server)
        batch = api.batch(["x"])
        assert "no such row" in api.poll(batch, 3)["error"]["message"]


# -- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("done", "answered"), [(None, 2), (0, 0), (3, 3), (99, 5)])
def test_an_expired_batch_has_a_part_of_its_rows(api_with, done, answered):
    api = api_with(batches=BatchScenario(end="expired", done=done))
    batch = api.batch(["x"] * 5)
    assert api.poll(batch, 2)["request_counts"]["completed"] == answered
    batch = finished(api, batch)
    assert batch["status"] == "expired"
    assert batch["request_counts"]["completed"] == answered
    output = api.lines(batch["output_file_id"]) if batch["output_file_id"] else {}
    errors = api.lines(batch["error_file_id"]) if batch["error_file_id"] else {}
    assert sorted([*output, *errors]) == [f"row-{number}" for number in range(5)]
    assert sorted(output) == [f"row-{number}" for number in range(answered)]
    assert {line["error"]["code"] for line in errors.values()} == ({"batch_expired"} if errors else set())
    assert len({line["id"] for line in [*output.values(), *errors.values()]}) == 5


def test_a_cancelled_batch_has_the_rows_that_are_done(api_with):
    api = api_with(batches=BatchScenario(polls=None, done=1))
    batch = api.batch(["x"] * 3)
    api.server.advance()
    assert api.post(f"/batches/{batch['id']}/cancel").json["status"] == "cancelling"
    assert api.post(f"/batches/{batch['id']}/cancel").json["status"] == "cancelling"
    assert api.poll(batch)["status"] == "cancelling"
    api.server.advance()
    ended = api.poll(batch)
    assert (ended["status"], ended["request_counts"]["completed"]) == ("cancelled", 1)
    assert list(api.lines(ended["output_file_id"])) == ["row-0"]
    assert api.lines(ended["error_file_id"])["row-2"]["error"]["code"] == "batch_cancelled"


def test_a_batch_that_is_cancelled_before_it_starts_has_no_rows(api_with):
    api = api_with()
    batch = api.batch(["x"])
    api.post(f"/batches/{batch['id']}/cancel")
    assert api.poll(batch)["status"] == "cancelling"
    assert api.post(f"/batches/{batch['id']}/cancel").json["status"] == "cancelling"
    assert api.poll(batch)["status"] == "cancelled"
    ended = api.poll(batch)
    assert (ended["output_file_id"], ended["error_file_id"], ended["request_counts"]["total"]) == (None, None, 0)


def test_somebody_else_may_cancel_a_batch(api_with):
    api = api_with(batches=BatchScenario(end="cancelled"))
    batch = api.batch(["x"])
    states = [api.poll(batch)["status"] for _ in range(4)]
    assert states == ["validating", "in_progress", "cancelling", "cancelled"]


def test_a_batch_that_has_ended_cannot_be_cancelled(api_with):
    api = api_with(batches=BatchScenario(polls=0))
    batch = api.poll(api.batch(["x"]))
    answer = api.post(f"/batches/{batch['id']}/cancel")
    assert answer.status == 409
    assert "completed" in answer.json["error"]["message"]


def test_a_batch_fails_with_the_errors_of_the_scenario(api_with):
    error = {"code": "server_error", "message": "no luck", "param": None, "line": None}
    api = api_with(batches=BatchScenario(end="failed", errors=[error]))
    batch = finished(api, api.batch(["x"]))
    assert batch["status"] == "failed"
    assert batch["errors"] == {"object": "list", "data": [error]}
    assert batch["failed_at"]


@pytest.mark.parametrize("kind", ["output", "error"])
def test_a_file_can_be_missing_or_deleted(api_with, kind):
    fates = [BatchScenario(rows={"row-0": Error(400)}, **{f"{kind}_file": fate}) for fate in ("missing", "deleted")]
    api = api_with(batches=fates)
    missing, deleted = (finished(api, api.batch(["x", "y"])) for _ in fates)
    other = "error" if kind == "output" else "output"
    assert missing[f"{kind}_file_id"] is None
    assert missing["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert api.get(f"/files/{deleted[f'{kind}_file_id']}/content").status == 404
    for batch in (missing, deleted):
        assert api.lines(batch[f"{other}_file_id"])


# -- validation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"", "empty_file", None),
        (b"\n\n", "empty_file", None),
        (as_file(row()) + b"{not json\n", "invalid_json_line", 2),
        (as_file(row()) + b"[1]\n", "invalid_json_line", 2),
        (as_file(row()) + b"\n\xff\n", "invalid_json_line", 3),
        (as_file(row("a"), row("b"), row("a")), "duplicate_custom_id", 3),
        (as_file(row(url="/v1/embeddings")), "url_mismatch", 1),
        (as_file(row(method="GET")), "invalid_request", 1),
        (as_file({**row(), "body": "x"}), "invalid_request", 1),
        (as_file({**row(), "custom_id": 5}), "invalid_request", 1),
        (as_file(row("a"), row("b", model="other")), "model_mismatch", 2),
        (as_file(*(row(str(number)) for number in range(4))), "too_many_tasks", None),
    ],
)
def test_a_wrong_file_makes_the_batch_fail(api_with, content, code, line):
    api = api_with(batch_limits=BatchLimits(rows=3))
    batch = finished(api, api.batch(content))
    assert batch["status"] == "failed"
    [error] = batch["errors"]["data"]
    assert (error["code"], error["line"]) == (code, line)
    assert batch["output_file_id"] is None


def test_every_wrong_line_is_named(api_with):
    api = api_with()
    batch = finished(api, api.batch(b"{\n" + as_file(row()) + b"{\n"))
    assert [error["line"] for error in batch["errors"]["data"]] == [1, 3]


def test_tokens_of_batches_that_have_not_ended_are_limited(api_with):
    api = api_with(batch_limits=BatchLimits(enqueued_tokens=5), batches=BatchScenario(polls=None))
    first, second = api.batch(["one two", "three"]), api.batch(["one two three"])
    other_model = api.batch(as_file(row(model="other", messages=[{"role": "user", "content": "1 2 3 4 5"}])))
    api.server.advance()
    assert [batch["status"] for batch in api.server.batches] == ["in_progress", "failed", "in_progress"]
    [error] = api.poll(second)["errors"]["data"]
    assert error["code"] == "token_limit_exceeded"
    assert error["message"].startswith("Enqueued token limit reached for m in organization")
    while api.server.advance():
        pass
    again = api.batch(["one two three"])
    assert finished(api, again)["status"] == "completed"
    assert {api.poll(batch)["status"] for batch in (first, other_model)} == {"completed"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": "file-99"}, "input_file_id"),
        ({"endpoint": "/v1/files"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
    ],
)
def test_a_wrong_batch_is_not_made(api_with, change, param):
    api = api_with()
    file = api.upload(as_file(row()))
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h", **change}
    answer = api.post("/batches", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert api.server.batches == []


def test_a_file_of_another_purpose_makes_no_batch(api_with):
    api = api_with()
    file = api.upload(as_file(row()), purpose="user_data")
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert api.post("/batches", body).status == 400


# -- lists and faults ------------------------------------------------------------------------------------------


def test_pages_of_batches(api_with):
    api = api_with()
    for _ in range(3):
        api.batch(["x"])
    page = api.get("/batches?limit=2").json
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (["batch_3", "batch_2"], True)
    rest = api.get(f"/batches?after={page['last_id']}").json
    assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == (["batch_1"], False)


def test_an_unknown_batch_is_not_found(api_with):
    api = api_with()
    for answer in (api.get("/batches/batch_9"), api.post("/batches/batch_9/cancel")):
        assert answer.status == 404
        assert answer.json["error"]["message"] == "No such Batch object: batch_9"


def test_a_batch_can_be_made_though_its_answer_is_lost(api_with):
    api = api_with()
    api.server.enqueue(None, LostAnswer())
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        api.batch(["x"], metadata={"run": "7"})
    assert [batch["metadata"] for batch in api.get("/batches").json["data"]] == [{"run": "7"}]


def test_many_threads_make_and_poll_batches(api_with):
    api = api_with()

    def work():
        api.poll(api.batch(["x"]), 4)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [batch["status"] for batch in api.server.batches] == ["completed"] * 8
    assert len({batch["id"] for batch in api.server.batches}) == 8
    assert len({file.id for file in api.server.files}) == 16


@pytest.mark.parametrize(
    "options",
    [
        {"end": "done"},
        {"polls": -1},
        {"polls": {"waiting": 1}},
        {"polls": "many"},
        {"done": -1},
        {"output_file": "lost"},
        {"error_file": "lost"},
        {"errors": [{"code": "x"}]},
    ],
)
def test_a_wrong_scenario_is_refused(options):
    with pytest.raises(ConfigurationError):
        BatchScenario(**options)


@pytest.mark.parametrize("batches", ["failed", [BatchScenario(), "failed"], BatchScenario, 5])
def test_what_is_no_scenario_is_refused(batches):
    with pytest.raises(TypeError, match="batches must be a BatchScenario"):
        FakeServer(batches=batches)


def test_limits_are_positive():
    with pytest.raises(ConfigurationError, match="rows"):
        BatchLimits(rows=0)
