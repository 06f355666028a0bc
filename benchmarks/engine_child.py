"""One measurement of the pool without a network: ``python -m benchmarks.engine_child SPEC``."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
import tracemalloc
from typing import Any, Callable, Dict, Iterator, List, Mapping
from unittest import mock

from requests.structures import CaseInsensitiveDict

from .answer import ANSWER, HEADERS, MODEL, TEXT, prompts

sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError

from chatpool import ChatPool  # noqa: E402 - after orjson was hidden from it
from chatpool._transport import TransportSettings  # noqa: E402
from chatpool._values import HTTPResponse  # noqa: E402
from chatpool._wire import classify_response, encode, to_request  # noqa: E402

__all__ = ["run"]


class NoTransport:
    """Stands in for the transport: answers at once, or when its ``gate`` opens."""

    gate = threading.Event()
    arrived = threading.Semaphore(0)
    gated = False

    def __init__(self, settings: TransportSettings) -> None:
        self.base_url = settings.base_url
        self.auth = settings.auth
        self._reply = HTTPResponse(
            200, CaseInsensitiveDict(HEADERS), ANSWER.encode(), "http://nowhere/v1/chat/completions"
        )

    def exchange(self, request: Any, body: bytes, **options: Any) -> HTTPResponse:
        """The same answer every time."""
        if self.gated:
            self.arrived.release()
            self.gate.wait()
        return self._reply

    def url_of(self, path: str) -> str:
        """The place where it would have gone."""
        return self.base_url + path

    def close(self) -> None:
        """Nothing is open."""

    abort = close


@contextlib.contextmanager
def _pool(max_workers: int) -> Iterator[ChatPool]:
    with mock.patch("chatpool._client.core.Transport", NoTransport):
        pool = ChatPool(MODEL, api_key="key", base_url="http://nowhere/v1", max_workers=max_workers)
    with pool:
        yield pool


def cpu(workers: int, calls: int) -> Dict[str, Any]:
    """Seconds of CPU per call of ``pool.map``, and of what ``wire`` alone does for a call."""
    asked = prompts(calls)
    with _pool(workers) as pool:
        pool.map(asked[:1000], progress=False)
        gc.collect()
        gc.freeze()
        started = time.process_time()
        answers = pool.map(asked, progress=False)
        used = time.process_time() - started
    if [answer.text for answer in answers] != [TEXT] * calls:
        raise RuntimeError("not every call was answered")
    wire = _wire_cpu(asked)
    return {"pool": used / calls, "wire": wire / calls, "engine": (used - wire) / calls}


def _wire_cpu(asked: List[str]) -> float:
    reply = HTTPResponse(200, CaseInsensitiveDict(HEADERS), ANSWER.encode())
    gc.collect()
    started = time.process_time()
    kept = []
    for prompt in asked:
        request = to_request(prompt, model=MODEL)
        encode(request.body)
        kept.append(classify_response(reply, request, endpoint_proven=True, model_proven=True, wall=0.0))
    return time.process_time() - started


def queued(calls: int) -> Dict[str, Any]:
    """Bytes that a queued call takes beyond its prompt: of a run, and submitted with a future."""
    NoTransport.gated = True
    asked = prompts(calls)
    sizes = {}
    with _pool(1) as pool:
        for how, queue in (("run", _queue_run), ("future", _queue_futures)):
            NoTransport.gate.clear()
            gc.collect()
            tracemalloc.start()
            kept = queue(pool, asked)
            sizes[how] = tracemalloc.get_traced_memory()[0] / calls
            tracemalloc.stop()
            NoTransport.gate.set()
            for _ in kept:
                continue
    return sizes


def _queue_run(pool: ChatPool, asked: List[str]) -> Iterator[Any]:
    outcomes = pool.imap(asked, buffersize=len(asked), progress=False)
    taker = threading.Thread(target=lambda: next(outcomes))  # an imap feeds when it is asked for the first outcome
    taker.start()
    _wait_until(lambda: pool.stats().queued >= len(asked) - 1)
    return _after(taker, outcomes)


def _after(taker: threading.Thread, outcomes: Iterator[Any]) -> Iterator[Any]:
    taker.join()
    yield from outcomes


def _queue_futures(pool: ChatPool, asked: List[str]) -> Iterator[Any]:
    futures = [pool.submit(prompt) for prompt in asked]
    return (future.result() for future in futures)


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("the calls were not queued")
        time.sleep(0.05)


def lazy(calls: int, workers: int) -> Dict[str, Any]:
    """Growth of the resident memory over a run fed by a generator, beyond what a short run needs."""
    template = prompts(1)[0]

    def rows(count: int) -> Iterator[str]:
        return (f"{index}: {template}" for index in range(count))

    with _pool(workers) as pool:
        for _ in pool.imap(rows(5000), progress=False):
            continue
        gc.collect()
        before = peak = _rss()
        for index, outcome in enumerate(pool.imap(rows(calls), progress=False)):
            if not outcome.ok:
                raise RuntimeError(str(outcome.error))
            if index % 1000 == 0:
                peak = max(peak, _rss())
    return {"growth": peak - before, "peak": peak}


def _rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start(workers: int) -> Dict[str, Any]:
    """Seconds from ``map`` until every worker is in an exchange."""
    NoTransport.gated = True
    with _pool(workers) as pool:
        started = time.monotonic()
        runner = threading.Thread(target=lambda: pool.map(prompts(workers), progress=False))
        runner.start()
        for _ in range(workers):
            if not NoTransport.arrived.acquire(timeout=60):
                raise RuntimeError("not all workers started")
        seconds = time.monotonic() - started
        NoTransport.gate.set()
        runner.join()
    return {"seconds": seconds}


_TASKS: Mapping[str, Callable[..., Dict[str, Any]]] = {"cpu": cpu, "queued": queued, "lazy": lazy, "start": start}


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """The measurement that ``spec["task"]`` names."""
    return _TASKS[spec["task"]](**spec["options"])


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
