"""What ``on_error=`` leaves in a list of results, and what ``embed`` returns.  Checked by ``make types``, never run."""

from __future__ import annotations

from typing import Any, Iterable, List, Literal, Optional, Tuple, Union

from typing_extensions import assert_type

import chatpool
from chatpool import ChatCompletion, ChatPool, ChatPoolError, Outcome, Results

Vector = List[float]


def slots(pool: ChatPool, rows: List[Tuple[int, str]]) -> None:
    results = pool.map(["ping"])
    assert_type(results, Results[ChatCompletion])
    assert_type(results[0], Optional[ChatCompletion])
    assert_type([answer.text for answer in results if answer is not None], List[str])
    assert_type(results.outcomes, List[Outcome[ChatCompletion]])
    assert_type(results.failures, List[Outcome[ChatCompletion]])
    assert_type(results.texts, List[Optional[str]])
    assert_type(pool.map(["ping"], on_error="none"), Results[ChatCompletion])
    returned = pool.map(rows, prompt=lambda row: str(row[1]), on_error="return", temperature=0)
    assert_type(returned, Results[ChatCompletion, Union[ChatCompletion, ChatPoolError]])
    for answer in returned:
        assert_type(answer.message if isinstance(answer, ChatPoolError) else answer.text, str)
    raised = pool.map(["ping"], on_error="raise", run_timeout=60)
    assert_type(raised, Results[ChatCompletion, ChatCompletion])
    assert_type([answer.text for answer in raised], List[str])
    assert_type(pool.retry(raised), Results[ChatCompletion, ChatCompletion])


def module_function() -> None:
    assert_type(chatpool.map(["ping"], model="m", max_workers=32), Results[ChatCompletion])
    assert_type(chatpool.map(["ping"], on_error="raise")[0].text, str)
    returned = chatpool.map(["ping"], on_error="return", timeout=3)
    assert_type(returned, Results[ChatCompletion, Union[ChatCompletion, ChatPoolError]])


def embeddings(pool: ChatPool, texts: Iterable[str], rows: List[Tuple[int, str]]) -> None:
    assert_type(pool.embed("ping", dimensions=3), Vector)
    assert_type(pool.embed(texts), Results[Vector])
    assert_type(pool.embed(texts)[0], Optional[Vector])
    assert_type(pool.embed(texts, on_error="return"), Results[Vector, Union[Vector, ChatPoolError]])
    assert_type(pool.embed(texts, on_error="raise", model="m"), Results[Vector, Vector])
    assert_type(pool.embed(rows, prompt=lambda row: str(row[1]), max_pack=10).outcomes, List[Outcome[Vector]])
    assert_type(pool.retry(pool.embed(texts, on_error="raise")), Results[Vector, Vector])


def of_any_run(results: Results[Any, Any]) -> int:
    return len(results.failures)


def handed_on(pool: ChatPool) -> None:
    bare: Results = pool.map(["ping"])
    for results in (bare, pool.map(["ping"], on_error="raise"), pool.embed(["ping"], on_error="return")):
        of_any_run(results)


def mistakes(pool: ChatPool, policy: Literal["none", "raise"], word: str) -> None:
    assert_type(
        pool.map(["ping"], on_error=policy), Union[Results[ChatCompletion], Results[ChatCompletion, ChatCompletion]]
    )
    print(pool.map(["ping"])[0].text)  # type: ignore[union-attr]
    print(pool.map(["ping"], on_error="return")[0].text)  # type: ignore[union-attr]
    pool.map(["ping"], on_error="ignore")  # type: ignore[call-overload]
    pool.map(["ping"], on_error=word)  # type: ignore[call-overload]
    pool.map(["ping"], on_error="raise", timeout="3")  # type: ignore[call-overload]
    chatpool.map(["ping"], on_error="ignore")  # type: ignore[call-overload]
    pool.embed(["ping"], on_error="ignore")  # type: ignore[call-overload]
    pool.embed(7)  # type: ignore[call-overload]
    print(pool.embed(["ping"]).parsed)  # type: ignore[misc]
    number: int = pool.embed("ping")  # type: ignore[assignment]
    del number
