"""Counters of a pool, and one line of the log per retry."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatpool._observe.listeners import CallLog, Statistics
from chatpool.events import Event
from chatpool.prices import prices_of
from chatpool.types import Usage


def event(kind, usage=None):
    return Event(kind, call_id=1, attempt=1, time=0.0, usage=usage)


def test_ends_retries_and_tokens_are_counted():
    statistics = Statistics()
    cached = event("succeeded")._replace(cached=True)
    for heard in [event("retrying"), event("failed"), event("succeeded", Usage(3, 4, 7, 1)), cached]:
        statistics(heard)
    usage = Usage(3, 4, 7, 1)
    counts = {"succeeded": 2, "failed": 1, "retried": 1, "reasked": 0, "fell_back": 0, "cached": 1}
    assert statistics.snapshot() == {**counts, "usage": usage, "cost": None}


def test_money_is_what_servers_state_or_else_by_the_prices_of_each_model():
    statistics = Statistics(prices_of({"m": (1, 2), "e": 0.5}))
    for usage, model in [(Usage(10, 10, 20), "m"), (Usage(20, 0, 20), "e"), (Usage(9, 9, 18, cost=0.25), "m")]:
        statistics(event("succeeded", usage)._replace(model=model))
    assert statistics.snapshot()["cost"] == pytest.approx(0.25 + 40e-6)


def test_what_was_asked_again_is_counted_with_its_tokens():
    statistics = Statistics()
    for heard in [event("reasking", Usage(1, 1, 2)), event("failed", Usage(2, 2, 4))]:
        statistics(heard)
    counted = statistics.snapshot()
    assert (counted["reasked"], counted["retried"], counted["failed"]) == (1, 0, 1)
    assert counted["usage"] == Usage(3, 3, 6)


def test_nothing_is_lost_between_threads():
    statistics = Statistics()
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: statistics(event("succeeded", Usage(1, 1, 2))), range(4000)):
            pass
    assert statistics.snapshot()["succeeded"] == 4000
    assert statistics.snapshot()["usage"] == Usage(4000, 4000, 8000)


def test_what_a_finalizer_adds_in_the_middle_of_counting_is_counted_once():
    statistics = Statistics()

    class Interrupting:
        """Tokens at whose reading the collector comes, and cancels many calls."""

        prompt_tokens = completion_tokens = cached_tokens = reasoning_tokens = 1
        cost = 0.0

        @property
        def total_tokens(self):
            for _ in range(200):
                statistics(event("failed"))
            return 0

    for _ in range(10):
        statistics(event("succeeded", Interrupting()))
    counted = statistics.snapshot()
    assert (counted["succeeded"], counted["usage"].prompt_tokens) == (10, 10)
    assert statistics.snapshot()["failed"] == 2000


def attempted(kind, **facts):
    usual = {"endpoint": "http://host/v1", "model": "m", "request_id": "req_1"}
    return Event(kind, call_id=7, attempt=2, time=0.0, **{**usual, **facts})


class TestCallLog:
    def lines_of(self, caplog, level, *events):
        with caplog.at_level(level, logger="chatpool"):
            log = CallLog()
            for heard in events:
                if heard.kind in log.kinds:
                    log(heard)
        return caplog.messages

    def test_a_retry_is_one_line_with_attempt_cause_endpoint_model_request_and_wait(self, caplog):
        (line,) = self.lines_of(caplog, logging.INFO, attempted("retrying", reason="503 server_error", wait=1.25))
        about = "http://host/v1, model 'm', request id req_1"
        assert line == f"call 7: attempt 2 failed (503 server_error); next attempt in 1.25 s ({about})"

    def test_what_is_not_known_is_left_out(self, caplog):
        facts = {"model": None, "request_id": None}
        assert self.lines_of(caplog, logging.INFO, attempted("retrying", reason="timed out", wait=2, **facts)) == [
            "call 7: attempt 2 failed (timed out); next attempt in 2 s (http://host/v1)"
        ]

    def test_a_reask_is_one_line(self, caplog):
        assert self.lines_of(caplog, logging.INFO, attempted("reasking", reason="parse failed")) == [
            "call 7: attempt 2: parse failed; it is asked again (http://host/v1, model 'm', request id req_1)"
        ]

    def test_at_level_debug_every_attempt_and_every_end_is_a_line(self, caplog):
        others = [attempted("sent", request_id=None), attempted("succeeded", elapsed=0.25)]
        others.append(attempted("failed", reason="InternalServerError"))
        assert self.lines_of(caplog, logging.INFO, *others) == []
        about = "(http://host/v1, model 'm', request id req_1)"
        assert self.lines_of(caplog, logging.DEBUG, *others) == [
            "call 7: attempt 2 is sent (http://host/v1, model 'm')",
            f"call 7: attempt 2 succeeded in 0.25 s {about}",
            f"call 7: attempt 2 failed (InternalServerError); the call has ended {about}",
        ]

    def test_each_line_has_the_values_of_its_event_for_json(self, caplog):
        retry = attempted("retrying", reason="503", wait=1.25, usage=Usage(2, 1, 3))
        self.lines_of(caplog, logging.INFO, retry)
        values = json.loads(json.dumps(caplog.records[0].chatpool))
        assert (values["kind"], values["call_id"], values["wait"]) == ("retrying", 7, 1.25)
        assert (values["usage"]["total_tokens"], values["request_id"]) == (3, "req_1")
        assert "status" not in values

    def test_a_formatter_for_json_writes_them(self, caplog):
        formatters = pytest.importorskip("pythonjsonlogger.json")
        self.lines_of(caplog, logging.INFO, attempted("retrying", reason="503", wait=1.25))
        line = json.loads(formatters.JsonFormatter().format(caplog.records[0]))
        assert line["chatpool"]["endpoint"] == "http://host/v1"

    def test_no_text_of_a_server_is_obeyed_by_a_terminal(self, caplog):
        lines = self.lines_of(
            caplog, logging.INFO, attempted("retrying", reason="\x1b[2J", request_id="\x1b]0;", wait=1)
        )
        assert "\x1b" not in lines[0]
        assert "\\u001b" in lines[0]


LOG_OF_A_CALL = """
from chatpool import ChatPool, RetryPolicy
from chatpool.testing import Error, FakeServer
from tenacity import wait_none
with FakeServer(script=[Error(503)]) as server:
    with ChatPool("m", base_url=server.base_url, api_key="sk-secret", retry=RetryPolicy(wait=wait_none())) as pool:
        pool.chat("a prompt that nobody may see")
"""


class TestOpenAILog:
    def errors_of(self, level):
        environment = {**os.environ, "OPENAI_LOG": level}
        command = [sys.executable, "-c", LOG_OF_A_CALL]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
        assert "sk-secret" not in ended.stderr
        assert "nobody may see" not in ended.stderr
        return ended.stderr

    def test_info_writes_retries_to_stderr_in_the_form_of_openais_client(self):
        lines = self.errors_of("info").splitlines()
        assert len(lines) == 1
        assert re.fullmatch(r"\[\d{4}-\d\d-\d\d [\d:]+ - chatpool:\d+ - INFO\] call 1: attempt 1 failed .*", lines[0])

    def test_debug_writes_every_attempt(self):
        said = self.errors_of("debug")
        assert re.search(
            r"attempt 2 succeeded in [\d.e-]+ s \(http://127.0.0.1:\d+/v1, model 'm', request id req_1\)", said
        )

    @pytest.mark.parametrize(
        "level", ["", *(pytest.param(level, marks=pytest.mark.slow) for level in ("warning", "INFO", "loud"))]
    )
    def test_other_words_write_nothing(self, level):
        assert self.errors_of(level) == ""
