"""Reprs of results, outcomes and statistics: short on a terminal, tables in a notebook, safe for any content."""

from __future__ import annotations

import dataclasses
import html.parser
import re

import pytest

from chatpool import (
    Attempt,
    BadRequestError,
    BudgetExceededError,
    ChatCompletion,
    ChatPool,
    ChatRequest,
    InternalServerError,
    LineStats,
    Outcome,
    PoolStats,
    Results,
    Usage,
)
from chatpool.testing import Error

HOSTILE = '<script>alert(1)</script>" onload="x\x1b[31m\u202eevil\ud800\x00'


class Tree(html.parser.HTMLParser):
    """Reads what a notebook shows: tags, and the rows of all tables."""

    def __init__(self, shown):
        super().__init__()
        self.tags, self.rows, self._cell = set(), [], None
        self.feed(shown)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = tag

    def handle_endtag(self, tag):
        if tag == self._cell:
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data

    @property
    def facts(self):
        return {row[0]: row[1] for row in self.rows if len(row) == 2}


def succeeded(index, text="pong", item="ping", parsed=None, **facts):
    value = ChatCompletion(text=text, message={}, usage=Usage(1, 2, 3), parsed=parsed)
    return Outcome(index, item, value=value, history=(Attempt("ok", 200, None, 0.5, "r"),), elapsed=0.5, **facts)


def failed(index, error, item="ping"):
    history = (Attempt("503", 503, 1.25, 0.25, None), Attempt("503", 503, None, 0.25, None))
    return Outcome(index, item, error=error, history=history, elapsed=1.75)


def results(*outcomes, fatal=None):
    return Results([outcome.value for outcome in outcomes], outcomes, 2.0, fatal)


TOO_LONG = BadRequestError("too long", status_code=400, code="context_length_exceeded")


class TestResults:
    def test_the_repr_of_a_thousand_answers_is_a_line_with_the_first_ones(self):
        got = results(*(succeeded(index, f"answer {index} " + "x" * 1000) for index in range(1000)))
        shown = repr(got)
        assert shown.startswith("<Results: 1,000 of 1,000 answered; 3,000 tokens; 2.0 s; ['answer 0 xx")
        assert shown.endswith("…', ...]>")
        assert shown.count("answer ") == 3
        assert len(shown) < 250
        assert str(got) == shown
        assert len(repr(list(got))) > 1_000_000

    def test_it_counts_failures_by_cause(self):
        got = results(succeeded(0), failed(1, TOO_LONG), failed(2, InternalServerError("down", status_code=503)))
        assert repr(got) == (
            "<Results: 1 of 3 answered; 2 failed (1 x BadRequestError (400, context_length_exceeded), "
            "1 x InternalServerError (503)); 3 tokens; 2.0 s; ['pong', None, None]>"
        )

    def test_empty_results_and_vectors_have_one_too(self):
        assert repr(Results([], [], 0.0)) == "<Results: 0 of 0 answered; 0.0 s; []>"
        vector = [0.125] * 1536
        shown = repr(Results([vector], [Outcome(0, "text", value=vector)], 0.1))
        assert shown.startswith("<Results: 1 of 1 answered; 0.1 s; [[0.125, 0.125, ")
        assert len(shown) < 100

    def test_a_notebook_shows_counts_failures_with_their_cure_and_the_first_rows(self):
        got = results(succeeded(0, "Paris.", item="France?"), failed(1, TOO_LONG), *map(succeeded, range(2, 30)))
        tree = Tree(got._repr_html_())
        assert tree.facts["answered"] == "29 of 30"
        assert tree.facts["failed"] == (
            "1 x BadRequestError (400, context_length_exceeded): change the request: it is refused as it is"
        )
        assert tree.facts["tokens"] == "29 read, 58 written"
        assert tree.facts["latency"].startswith("p50 0.50 s")
        assert tree.facts["attempts"] == "31, 1 of them made again"
        assert tree.facts["time"] == "2.0 s"
        start = tree.rows.index(["", "prompt", "answer", "error"])
        assert tree.rows[start + 1] == ["0", "France?", "Paris.", ""]
        assert tree.rows[start + 2] == ["1", "ping", "", "BadRequestError: too long"]
        assert len(tree.rows) - start - 1 == 10
        assert "… and 20 more" in got._repr_html_()

    def test_the_cost_is_shown_where_servers_state_it_and_the_end_where_it_was_early(self):
        paid = Outcome(0, "a", value=ChatCompletion(text="b", message={}, usage=Usage(1, 1, 2, cost=0.25)))
        unsent = failed(1, BudgetExceededError("no money left"))
        facts = Tree(results(paid, unsent, fatal=BudgetExceededError("no money left"))._repr_html_()).facts
        assert facts["cost"] == "$0.25"
        assert facts["ended early"].startswith("BudgetExceededError: no money left; raise the budget")
        assert "cost" not in Tree(results(succeeded(0))._repr_html_()).facts

    def test_hostile_content_is_text_everywhere(self):
        error = BadRequestError(HOSTILE, code=HOSTILE)
        got = results(succeeded(0, HOSTILE, HOSTILE, parsed={HOSTILE: HOSTILE}), failed(1, error, HOSTILE), fatal=error)
        for shown in (got, *got.outcomes):
            page = shown._repr_html_()
            assert Tree(page).tags <= {"style", "div", "strong", "table", "tr", "th", "td"}
            assert "onload=&quot;x" in page
            assert not re.search("[\x00-\x08\x0e-\x1f\u202e\ud800]", page + repr(shown))
            page.encode("utf-8")

    def test_dollar_signs_are_no_mathematics(self):
        shown = results(succeeded(0, "$5", "$1"))._repr_html_()
        assert re.search(r'<div class="[^"]*\bmathjax_ignore\b', shown)

    def test_huge_texts_are_cut_and_stand_on_one_line(self):
        got = results(succeeded(0, "a\n" * 10_000_000, "b " * 10_000_000, parsed=["c" * 1_000_000] * 1000))
        assert len(got._repr_html_()) < 5000
        assert len(repr(got)) < 200
        assert "a\n" not in got._repr_html_()

    @pytest.mark.parametrize(
        ("item", "shown"),
        [
            ([{"role": "user", "content": "Hello?"}], "Hello?"),
            (
                [
                    {"role": "system", "content": "Short."},
                    {"role": "assistant", "content": "Hi."},
                    {"role": "user", "content": "And?"},
                ],
                "[3 messages] And?",
            ),
            (
                [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is in"},
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}},
                        ],
                    }
                ],
                "What is in [image_url]",
            ),
            (
                ChatRequest({"messages": [{"role": "user", "content": [{"type": "input_text", "text": "deep"}]}]}),
                "deep",
            ),
            ({"model": "m", "input": "a body"}, "a body"),
            (ChatRequest({"prompt": "a request"}), "a request"),
            (3.5, "3.5"),
            ([], "[]"),
            ({"city": "Rome"}, "{'city': 'Rome'}"),
        ],
    )
    def test_a_prompt_is_what_was_asked_last(self, item, shown):
        request = item if isinstance(item, ChatRequest) else None
        rows = Tree(results(succeeded(0, item=item, request=request))._repr_html_()).rows
        assert rows[-1] == ["0", shown, "pong"]

    def test_a_conversation_that_holds_itself_does_no_harm(self):
        messages = [{"role": "user", "content": []}]
        messages[0]["content"].append({"role": "user", "content": messages})
        assert "[" in Tree(results(succeeded(0, item=messages))._repr_html_()).rows[-1][1]

    def test_the_prompt_that_was_made_of_a_row_is_shown_and_not_the_row(self, chatpool_server):
        with ChatPool("m", base_url=chatpool_server.base_url) as pool:
            got = pool.map([{"city": "Rome"}], prompt="Where is {0[city]}?".format, progress=False)
        assert Tree(got._repr_html_()).rows[-1][1] == "Where is Rome?"

    def test_values_of_parse_have_a_column(self):
        @dataclasses.dataclass
        class Town:
            name: str

        class Silent:
            def __repr__(self):
                raise RuntimeError("no repr")

        rows = Tree(results(succeeded(0, parsed=Town("Rome")), succeeded(1, parsed=Silent()))._repr_html_()).rows
        assert rows[-3] == ["", "prompt", "answer", "parsed"]
        assert rows[-2][3].endswith("Town(name='Rome')")
        assert rows[-1][3].startswith("<Silent instance at")


class TestOutcome:
    def test_its_repr_is_short(self):
        assert repr(succeeded(3)) == (
            "Outcome(index=3, value=ChatCompletion('pong', finish_reason=None, model=None), attempts=1, elapsed=0.50)"
        )
        assert len(repr(succeeded(3, "x" * 100_000))) < 250
        assert (
            repr(failed(1, TOO_LONG)) == "Outcome(index=1, error=BadRequestError('too long'), attempts=2, elapsed=1.75)"
        )

    def test_a_notebook_shows_its_attempts(self):
        rows = Tree(failed(1, TOO_LONG)._repr_html_()).rows
        assert ["error", "BadRequestError: too long; change the request: it is refused as it is"] in rows
        assert rows[-3:] == [
            ["attempt", "result", "seconds", "then waited"],
            ["1", "503", "0.25", "1.25"],
            ["2", "503", "0.25", ""],
        ]


class TestPoolStats:
    def test_its_repr_has_what_has_happened(self):
        stats = PoolStats(queued=1200, in_flight=16, succeeded=3, usage=Usage(1, 2, 3), cost=0.5)
        assert repr(stats) == ("<PoolStats: 3 succeeded; 0 failed; 16 in flight; 1,200 queued; 3 tokens; $0.50>")

    def test_why_calls_wait_is_in_the_line_and_the_table(self):
        lines = {("http://one/v1", "m"): LineStats(waits_for="server down, <probing>")}
        stats = PoolStats(queued=4, waits_for="server asks to wait 4 s", lines=lines)
        assert repr(stats) == "<PoolStats: 0 succeeded; 0 failed; 4 queued; server asks to wait 4 s>"
        html = stats._repr_html_()
        assert "server asks to wait 4 s" in html
        assert "server down, &lt;probing&gt;" in html

    def test_a_notebook_shows_each_endpoint_and_model(self):
        lines = {("http://a/v1", HOSTILE): LineStats(rate=12.5, concurrency_limit=4, paused_until=2.0, why="down")}
        tree = Tree(PoolStats(failed=1, lines=lines)._repr_html_())
        assert tree.facts["failed"] == "1"
        assert tree.rows[-2] == ["endpoint", "model", "rate", "at a time", "paused for", "why"]
        assert tree.rows[-1][2:] == ["12.5/s", "4", "2.0 s", "down"]
        assert tree.tags <= {"style", "div", "strong", "table", "tr", "th", "td"}

    def test_a_pool_that_has_done_nothing_is_shown_too(self):
        assert repr(PoolStats()) == "<PoolStats: 0 succeeded; 0 failed>"
        assert "PoolStats" in PoolStats()._repr_html_()


def test_keys_are_in_no_repr(chatpool_server):
    chatpool_server.set_script(Error(401, "no such key: sk-secret-0123456789abcdef"))
    with ChatPool("m", base_url=chatpool_server.base_url, api_key="sk-secret-0123456789abcdef") as pool:
        got = pool.map(["a"], progress=False)
        shown = repr(got) + got._repr_html_() + repr(got.outcomes[0]) + pool.stats()._repr_html_()
    assert "sk-secret" not in shown
