"""The page of errors by message shows messages as they are, of every class of errors."""

from __future__ import annotations

import doctest
import re
import ssl
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

import chatpool.errors
from chatpool import Budget, Cache, ChatPool, ChatPoolError, Limits, RetryPolicy, Timeout
from chatpool._journal import FolderLease, Journal
from chatpool.clock import install_clock
from chatpool.testing import (
    Answer,
    Error,
    FakeServer,
    Garbage,
    Hangup,
    Html,
    InstantClock,
    RateLimited,
    Reset,
    Stall,
    Stream,
    Truncate,
    chat_completion,
)

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "troubleshooting.md"
AS_SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Bases, which nobody meets, what a program raises itself, and a function.
NOT_MET = {"ChatPoolError", "APIError", "Reask", "from_dict"}


def call(script: Any = None, pool: Any = None, **keywords: Any):
    options = {"retry": 0, **(pool or {})}
    with FakeServer(script=script) as server, ChatPool("m", base_url=server.base_url, **options) as made:
        made.chat("ping", **keywords)


def run(script: Any, retry: Any = 0, **keywords: Any):
    """Raise what ended the run."""
    options = {"max_workers": 1, "retry": retry}
    with FakeServer(script=script) as server, ChatPool("m", base_url=server.base_url, **options) as pool:
        raise pool.map([f"item {number}" for number in range(60)], progress=False, **keywords).fatal


def at(url: str, **options: Any):
    with ChatPool("m", base_url=url, retry=0, **options) as pool:
        pool.chat("ping")


def untrusted():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme = pytest.importorskip("trustme")
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with FakeServer(tls=tls) as server:
        at(server.base_url)


def cancelled():
    with FakeServer(script=Error(400)) as server, ChatPool("m", base_url=server.base_url, max_workers=1) as pool:
        try:
            pool.map(["ping"] * 100, on_error="raise")
        except ChatPoolError as error:
            raise error.results.errors[-1] from None


def closed():
    pool = ChatPool("m", base_url="http://127.0.0.1:1/v1")
    pool.close()
    pool.chat("ping")


def empty_cell():
    with ChatPool("m", base_url="http://127.0.0.1:1/v1") as pool:
        raise pool.map([float("nan")], progress=False).failures[0].error


def in_use():
    with tempfile.TemporaryDirectory() as folder, Journal(f"{folder}/run.journal"):
        Journal(f"{folder}/run.journal")


def taken_over():
    with tempfile.TemporaryDirectory() as folder, FolderLease(folder) as lost, FolderLease(f"{folder}/other") as other:
        Path(other.path(".journal.lock")).rename(Path(folder, f"{lost.generation + 1}.journal.lock"))
        lost.check(at_once=True)


def not_sent_as_it_is_down():
    with FakeServer(script=Error(503)) as server, ChatPool("m", base_url=server.base_url, when_down="raise") as pool:
        for _ in range(100):
            try:
                pool.chat("ping")
            except ChatPoolError as error:
                if "was not sent" in str(error):
                    raise


def own_day():
    with FakeServer() as server:
        limits = Limits(requests_per_day=1)
        with ChatPool("m", base_url=server.base_url, max_workers=1, limits=limits) as pool:
            raise pool.map(["ping"] * 3, progress=False).fatal


def not_recorded():
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(f"{folder}/answers.db", account="tests", offline=True)
        with ChatPool("m", cache=cache) as pool:
            pool.chat("ping")


CONTEXT = Error(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded")
QUOTA = Error(
    429, "You exceeded your current quota, please check your plan and billing details.", code="insufficient_quota"
)

RPD = Error(429, "Rate limit reached for m on requests per day (RPD): Limit 200, Used 200. Please try again in 7h12m.")

# The heading of the page -> what raises each error below it, in order.
SAMPLES: Dict[str, List[Callable[[], Any]]] = {
    "api_key is missing": [lambda: ChatPool("m", base_url=None)],
    "HTTP 401, invalid_api_key": [lambda: call(Error(401))],
    "HTTP 403": [lambda: call(Error(403))],
    "HTTP 429, insufficient_quota": [lambda: call(QUOTA)],
    "connection refused": [lambda: at("http://127.0.0.1:1/v1")],
    "the host name cannot be resolved": [lambda: at("http://no-such-host.invalid/v1")],
    "CERTIFICATE_VERIFY_FAILED": [untrusted],
    "the connection was reset, closed without an answer, broke off": [
        lambda: call(Reset()),
        lambda: call(Hangup()),
        lambda: call(Truncate()),
    ],
    "what was sent is not HTTP": [lambda: call(Garbage())],
    "HTTP 400, context_length_exceeded": [lambda: call(CONTEXT)],
    "HTTP 400 for every item": [lambda: run(Error(400))],
    "HTTP 404, model_not_found": [lambda: call(Error(404))],
    "HTTP 422": [lambda: call(Error(422))],
    "HTTP 409": [lambda: call(Error(409))],
    "HTTP 413, 405 and other statuses": [lambda: call(Error(413))],
    "HTTP 429, rate_limit_exceeded": [lambda: call(RateLimited(300))],
    "A limit per day": [own_day, lambda: call(RPD)],
    "HTTP 500, 502, 503, 504": [lambda: call(Error(503))],
    "no call has succeeded for ... s": [lambda: run(Error(503), RetryPolicy(max_outage=2))],
    "unusable answer": [lambda: call(Html(200)), lambda: call(Answer(body={"data": []}))],
    "the stream ended without a finish_reason": [lambda: call(Stream(["Once"], end="cut"), collect_stream=True)],
    "parse= could make nothing of the answer": [lambda: call(parse=int, max_reasks=0)],
    "the answer was cut at the token limit": [
        lambda: call(Answer(body=chat_completion("Once", finish_reason="length")), parse=str)
    ],
    "a content filter cut the answer": [
        lambda: call(Answer(body=chat_completion("Once", finish_reason="content_filter")), accept="stop")
    ],
    "timed out waiting for": [lambda: call(Stall(), {"timeout": Timeout(attempt=0.2)})],
    "the time for the call ran out": [lambda: call(Stall(), {"timeout": Timeout(total=1)})],
    "the budget is used up": [lambda: call(pool={"budget": Budget(tokens=1)})],
    "the cache has no answer to": [not_recorded],
    "... items have failed, as many as ends the run": [lambda: run(lambda request: Error(400), max_failures=3)],
    "the call was cancelled": [cancelled],
    "the pool is closed": [closed],
    "... is in use by process ...": [in_use],
    "... was taken over by process ...": [taken_over],
    "... has been down for ... s, and when_down='raise' does not wait for it": [not_sent_as_it_is_down],
    "max_workers must be at least 1": [lambda: ChatPool("m", api_key="k", max_workers=0)],
    "items must be an iterable of items": [lambda: ChatPool("m", base_url="http://127.0.0.1:1/v1").map("ping")],
    "the cell is empty": [empty_cell],
}


def entries() -> Iterator[Tuple[str, List[str]]]:
    """Each heading of the page, with the messages below it."""
    for section in PAGE.read_text(encoding="utf-8").split("\n### ")[1:]:
        yield section.split("\n", 1)[0], re.findall(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _instant(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    before = install_clock(InstantClock(grace=0.2))
    yield
    install_clock(before)


def test_every_entry_has_its_samples_and_every_sample_its_entry():
    assert {heading: len(shown) for heading, shown in entries()} == {
        name: len(found) for name, found in SAMPLES.items()
    }


@pytest.mark.parametrize(("heading", "shown"), list(entries()), ids=[heading for heading, _ in entries()])
def test_messages_are_what_they_are_shown_to_be(heading: str, shown: List[str]):
    for wanted, sample in zip(shown, SAMPLES[heading]):
        with pytest.raises((ChatPoolError, TypeError)) as caught:
            sample()
        said = f"{type(caught.value).__name__}: {caught.value}\n"
        assert doctest.OutputChecker().check_output(wanted, said, AS_SHOWN), said


def test_no_class_of_errors_is_missing():
    named = {text.split(":", 1)[0] for _, shown in entries() for text in shown}
    assert set(chatpool.errors.__all__) - {"status_error_class"} - NOT_MET - named == set()
