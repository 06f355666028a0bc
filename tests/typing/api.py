"""What a type checker says about programs that use chatpool.  Checked by ``make types``, never run.

A comment ``type: ignore[...]`` marks a line that has to be an error: mypy complains if it is none.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

import requests
from tenacity import stop_after_attempt, wait_random_exponential
from typing_extensions import assert_type

from chatpool import (
    APIError,
    Attachment,
    Attempt,
    ChatChunk,
    ChatCompletion,
    ChatPool,
    ChatPoolError,
    ChatRequest,
    ChatStream,
    Endpoint,
    Event,
    Limits,
    Outcome,
    PoolStats,
    RetryPolicy,
    Timeout,
    ToolCall,
    Usage,
    attach,
)
from chatpool.local import LocalServer
from chatpool.testing import Error, FakeServer, RateLimited


def constructors(session: requests.Session, seen: List[Event]) -> None:
    ChatPool()
    ChatPool("gpt-4o-mini", api_key="key", base_url="http://127.0.0.1:1/v1", max_workers=32)
    ChatPool(api_key=lambda: "a key that rotates", timeout=10, retry=2)
    ChatPool(timeout=(5, None), retry=RetryPolicy(stop=stop_after_attempt(20), wait=wait_random_exponential(max=60)))
    ChatPool(timeout=Timeout(total=3), system="Be brief.", defaults={"temperature": 0}, headers={"X-Team": "a"})
    ChatPool(session=session, verify="ca.pem", cert=("client.pem", "key.pem"), listeners=[seen.append])
    ChatPool.azure("https://name.openai.azure.com", "deployment", api_version="2024-10-21")
    ChatPool.azure("https://name.openai.azure.com", azure_ad_token_provider=lambda: "a token")
    ChatPool(endpoints=[Endpoint(), Endpoint("http://127.0.0.1:1/v1", "key", limits=Limits(), weight=2)])
    ChatPool(endpoints=[Endpoint(model="a"), Endpoint(model={"a": "b"}, name="spare")])
    ChatPool(endpoints=[Endpoint.azure("https://name.openai.azure.com", "deployment", name="eu", api_version="1")])
    ChatPool(endpoints=["http://127.0.0.1:1/v1"])  # type: ignore[list-item]
    models = ["gpt-4o", "gpt-4.1"]
    ChatPool(fallbacks=models).with_options(fallbacks=[])
    ChatPool(fallbacks=["gpt-4o", {"max_completion_tokens": 8000, "max_tokens": None}, Endpoint()])
    ChatPool(fallbacks=[7])  # type: ignore[list-item]
    ChatPool(max_workers="many")  # type: ignore[arg-type]
    ChatPool(max_worker=3)  # type: ignore[call-arg]
    ChatPool("gpt-4o-mini", "key")  # type: ignore[call-arg]
    Timeout(10)  # type: ignore[call-arg]
    RetryPolicy(max_retries="3")  # type: ignore[arg-type]


def singular_calls(pool: ChatPool) -> None:
    assert_type(pool.chat("ping"), ChatCompletion)
    pool.chat([{"role": "user", "content": "ping"}], temperature=0, seed=1)
    pool.chat({"messages": [], "model": "m"})
    picture = attach(Path("cat.png"), detail="low", max_bytes=1000)
    assert_type(picture, Attachment)
    pool.chat(["Describe it.", picture, {"type": "text", "text": "In one word."}])
    pool.responses([attach(b"%PDF-1.4", filename="a.pdf"), "Sum up."])
    pool.map(["cat.png"], prompt=lambda path: ["Describe it.", attach(path)])
    attach(7)  # type: ignore[arg-type]
    pool.chat(ChatRequest({"input": "ping"}, "/responses"))
    assert_type(pool.responses("ping", max_output_tokens=5), ChatCompletion)
    pool.responses(7)  # type: ignore[arg-type]
    pool.chat("ping", timeout=(1, 2), retry=0, headers={"X-Row": "7"}, extra_body={"timeout": 3})
    future: Future[ChatCompletion] = pool.submit("ping")
    assert_type(future.result(), ChatCompletion)
    pool.request("/models", method="GET")
    pool.chat(7)  # type: ignore[arg-type]
    pool.chat("ping", timeout="3")  # type: ignore[arg-type]


def streams(pool: ChatPool) -> None:
    with pool.stream("ping", temperature=0) as stream:
        assert_type(stream, ChatStream)
        for chunk in stream:
            assert_type(chunk, ChatChunk)
            assert_type(chunk.text, str)
    assert_type(stream.completion, ChatCompletion)
    for index, piece in pool.stream_many(["ping"]):
        assert_type(index, int)
        assert_type(piece, Union[ChatChunk, Outcome[ChatCompletion]])
    pool.chat("ping", collect_stream=True)
    pool.map(["ping"], collect_stream="yes")  # type: ignore[call-overload]
    pool.stream(7)  # type: ignore[arg-type]


def runs(pool: ChatPool, rows: List[Tuple[int, str]]) -> None:
    results = pool.map(["ping", "pong"] * 5)
    assert_type(results.usage, Usage)
    assert_type(results.elapsed, float)
    assert_type(results.explain(), str)
    assert_type(results.to_dicts(), List[Dict[str, Any]])
    pool.map(
        rows, prompt=lambda row: row[1], progress={"desc": "rows"}, on_error="raise", run_timeout=60, temperature=0
    )
    assert_type(pool.imap(iter(["ping"]), buffersize=10), Iterator[Outcome[ChatCompletion]])
    for outcome in pool.as_completed(f"row {number}" for number in range(10)):
        outcome_facts(outcome)
    pool.map(7)  # type: ignore[call-overload]


def outcome_facts(outcome: Outcome[ChatCompletion]) -> None:
    assert_type(outcome.index, int)
    assert_type(outcome.ok, bool)
    assert_type(outcome.value, Optional[ChatCompletion])
    assert_type(outcome.error, Optional[ChatPoolError])
    assert_type(outcome.attempts, int)
    assert_type(outcome.history, Tuple[Attempt, ...])
    assert_type(outcome.request, Optional[ChatRequest])
    assert_type(outcome.result(), ChatCompletion)


def answer_facts(answer: ChatCompletion) -> None:
    assert_type(answer.text, str)
    assert_type(answer.message, Dict[str, Any])
    assert_type(answer.finish_reason, Optional[str])
    assert_type(answer.usage, Optional[Usage])
    assert_type(answer.tool_calls, Tuple[ToolCall, ...])
    assert_type(answer.parsed, Any)


def errors(pool: ChatPool) -> None:
    try:
        pool.chat("ping")
    except APIError as error:
        assert_type(error.status_code, Optional[int])
        assert_type(error.request_id, Optional[str])
        assert_type(error.retry_after, Optional[float])
        assert_type(error.attempts, int)


def the_pool_itself(pool: ChatPool) -> None:
    with pool as same:
        assert_type(same, ChatPool)
    assert_type(pool.with_options(model="m", timeout=3), ChatPool)
    assert_type(pool.stats(), PoolStats)
    assert_type(pool.stats().usage, Usage)
    pool.close()
    pool.abort()


def decides(error: APIError) -> Optional[bool]:
    return None if error.status_code == 409 else True


retry_if: Callable[[APIError], Optional[bool]] = decides
RetryPolicy(retry_if=retry_if)
RetryPolicy(max_retries=3, patience=10)
RetryPolicy(patience="10")  # type: ignore[arg-type]


def tools_around_it() -> None:
    with LocalServer(parallel=4) as local:
        assert_type(local.base_url, str)
        assert_type(local.model, str)
    with FakeServer([Error(503), RateLimited(1)], latency=0.1) as server:
        assert_type(server.base_url, str)
