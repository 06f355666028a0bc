"""The requests and answers of the benchmarks: prompts, and an answer with the headers that OpenAI's servers send."""

from __future__ import annotations

import json
import random
from typing import Any, Dict, List, Tuple

__all__ = ["ANSWER", "DIMENSIONS", "END", "EVENT", "HEADERS", "MODEL", "PACK", "TEXT", "prompts", "vectors"]

MODEL = "gpt-4o-mini"

TEXT = (
    "The order was placed on a Tuesday and left the warehouse two days later. The customer asks why the tracking "
    "page has not changed since, and whether the parcel can still be sent to another address. The likely cause is "
    "a missed scan at the depot; the address can be changed until the parcel is out for delivery."
)

ANSWER = json.dumps(
    {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 49,
            "completion_tokens": 63,
            "total_tokens": 112,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_06737a9306",
    }
)


def _event(choice: Dict[str, Any]) -> str:
    chunk = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_06737a9306",
        "choices": [{"index": 0, **choice}],
    }
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


EVENT = _event({"delta": {"content": " word"}, "logprobs": None, "finish_reason": None})
"""A chunk of a stream, as it is sent."""

END = _event({"delta": {}, "logprobs": None, "finish_reason": "stop"}) + "data: [DONE]\n\n"
"""The bytes after the last of them."""

_COOKIE = "expires=Mon, 10-Mar-25 01:55:52 GMT; domain=.api.openai.com; HttpOnly; Secure; SameSite=None"

# With Server, Date, Content-Type, Content-Length and Connection, which nginx adds, 26.
HEADERS: Tuple[Tuple[str, str], ...] = (
    ("access-control-expose-headers", "X-Request-ID"),
    ("openai-organization", "user-3kq9v0example0org"),
    ("openai-processing-ms", "412"),
    ("openai-project", "proj_4mZ8example0project"),
    ("openai-version", "2020-10-01"),
    ("x-envoy-upstream-service-time", "421"),
    ("x-ratelimit-limit-requests", "30000"),
    ("x-ratelimit-limit-tokens", "150000000"),
    ("x-ratelimit-remaining-requests", "29999"),
    ("x-ratelimit-remaining-tokens", "149999942"),
    ("x-ratelimit-reset-requests", "2ms"),
    ("x-ratelimit-reset-tokens", "0s"),
    ("x-request-id", "req_5c0fd0b9a1e34d4f8f6f5d0c7c3d2e1b"),
    ("x-openai-proxy-wasm", "v0.1"),
    ("cf-cache-status", "DYNAMIC"),
    (
        "set-cookie",
        "__cf_bm=Zl3n0w5g6h7j8k9l0q1w2e3r4t5y6u7i8o9p0a1s2d-1741569952-1.0.1.1-x; path=/; " + _COOKIE,
    ),
    ("set-cookie", "_cfuvid=a1b2c3d4e5f6g7h8-1741569952; path=/; " + _COOKIE),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("cf-ray", "91dd5f0c7a8b9c0d-FRA"),
    ("alt-svc", 'h3=":443"; ma=86400'),
)


PACK, DIMENSIONS = 100, 1536
"""Texts in a request for embeddings, and numbers in the vector of each."""


def vectors() -> str:
    """The answer to a request for the embeddings of ``PACK`` texts, its numbers as long as OpenAI's."""
    numbers = random.Random(1)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [round(numbers.gauss(0, 0.0255), 9) for _ in range(DIMENSIONS)],
        }
        for index in range(PACK)
    ]
    usage = {"prompt_tokens": 50 * PACK, "total_tokens": 50 * PACK}
    return json.dumps({"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage})


def prompts(count: int) -> List[str]:
    """So many different prompts of some 200 characters; each holds its number."""
    return [
        f"This is letter number {index} to our support. Summarise it in two sentences and name the likely cause: "
        "I ordered a lamp three weeks ago, it was sent, and since then nothing has happened at all. Help!"
        for index in range(count)
    ]
