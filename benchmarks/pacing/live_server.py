"""A server with a limit on real sockets: ``python -m benchmarks.pacing.live_server SPEC``.

It prints its URL, serves until its standard input ends, and prints what it has counted.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from typing import Any, List, Mapping, Optional, Union

from chatpool.testing import Answer, Delay, FakeServer, RateLimited
from chatpool.testing.received import ReceivedRequest

from ..answer import TEXT, prompts
from .scenarios import SCENARIOS, tokens_of
from .servers import Bucket

__all__ = ["serve"]

_SAID = {"exact": "retry-after-ms", "whole": "retry-after"}


class Limited:
    """The script of a server with one of the limits; counts, and says what it is told to say.

    Args:
        name: the scenario.
        hint: ``"exact"``, ``"whole"`` (seconds) or None.
        headers: whether answers state the limit.
    """

    def __init__(self, name: str, hint: Optional[str], headers: bool) -> None:
        self._scenario = SCENARIOS[name]
        self._server = self._scenario.server()
        calls = self._scenario.calls
        self._tokens = dict(zip(prompts(calls), tokens_of(calls))) if self._scenario.tokens else {}
        self._hint = hint
        self._headers = headers
        self._lock = threading.Lock()
        self._began: Optional[float] = None
        self._ends: List[float] = []
        self.accepted = 0
        self.rejected_at: List[float] = []
        self.accepted_at: List[float] = []

    def __call__(self, request: ReceivedRequest) -> Union[Delay, RateLimited]:
        """Accept or reject."""
        weight = float(self._tokens.get(request.prompt, 1))
        with self._lock:
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            now -= self._began
            self._ends = [end for end in self._ends if end > now]
            wait = self._server.free_in(now, len(self._ends), weight)
            if wait > 0:
                self.rejected_at.append(now)
                return self._rejection(wait)
            self._server.accept(now, weight)
            self._ends.append(now + self._scenario.latency)
            self.accepted_at.append(now)
            return Delay(self._scenario.latency, self._answer(weight, self._statement(now)))

    def _answer(self, weight: float, headers: Mapping[str, str]) -> Answer:
        if not self._scenario.tokens:
            return Answer(TEXT, headers=headers)
        usage = {"prompt_tokens": 1, "completion_tokens": int(weight) - 1, "total_tokens": int(weight)}
        message = {"role": "assistant", "content": TEXT}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Answer(body={"object": "chat.completion", "choices": [choice], "usage": usage}, headers=headers)

    def _rejection(self, wait: float) -> RateLimited:
        wait = self._scenario.hint if math.isinf(wait) else wait
        if self._hint is None:
            return RateLimited(hint=None)
        return RateLimited(wait if self._hint == "exact" else math.ceil(wait), hint=_SAID[self._hint])

    def _statement(self, now: float) -> Mapping[str, str]:
        server = self._server
        if not self._headers or not isinstance(server, Bucket):
            return {}
        left, kind = max(0.0, server.left(now)), "tokens" if self._scenario.tokens else "requests"
        return {
            f"x-ratelimit-limit-{kind}": f"{server.burst:.0f}",
            f"x-ratelimit-remaining-{kind}": f"{math.floor(left):d}",
            f"x-ratelimit-reset-{kind}": f"{math.ceil(1000 * (server.burst - left) / server.rate)}ms",
        }


def serve(spec: Mapping[str, Any]) -> None:
    """Serve until standard input ends."""
    limited = Limited(spec["scenario"], spec["hint"], spec["headers"])
    with FakeServer(limited) as server:
        print(json.dumps({"base_url": server.base_url}), flush=True)
        sys.stdin.read()
    print(json.dumps({"accepted_at": limited.accepted_at, "refused_at": limited.rejected_at}), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
