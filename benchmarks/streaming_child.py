"""One reader of a stream in a process of its own: ``python -m benchmarks.streaming_child SPEC`` prints what it used."""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping

__all__ = ["run"]

Count = Callable[[Iterable[bytes]], int]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Read a stream of ``spec["chunks"]`` chunks in reads of ``spec["read"]`` bytes (0: a chunk each)."""
    if not spec["orjson"]:
        sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    count = _COUNTS[spec["reader"]]()
    events = _events(spec["chunks"])
    body = b"".join(events)
    size = spec["read"]
    pieces = [body[start : start + size] for start in range(0, len(body), size)] if size else events
    count(pieces[: len(pieces) // 10])
    gc.collect()
    gc.freeze()
    cpu, wall = time.process_time(), time.perf_counter()
    chunk_count = count(pieces)
    used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    if chunk_count < spec["chunks"]:
        raise RuntimeError(f"{spec['reader']} found {chunk_count} of {spec['chunks']} chunks")
    return {"chunks": chunk_count, "bytes": len(body), **used}


def _events(chunks: int) -> List[bytes]:
    """A chat's stream as OpenAI sends it."""
    head = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_06737a9306",
    }
    deltas = [{"role": "assistant", "content": "", "refusal": None}, *({"content": f" word{n}"} for n in range(chunks))]
    choices: List[Dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return [
        *(
            f"data: {json.dumps({**head, 'choices': [choice]}, separators=(',', ':'))}\n\n".encode()
            for choice in choices
        ),
        b"data: [DONE]\n\n",
    ]


def _chatpool() -> Count:
    from chatpool import ChatRequest
    from chatpool._wire import StreamReader

    def count(pieces: Iterable[bytes]) -> int:
        reader = StreamReader(ChatRequest({}))
        return sum(1 for piece in pieces for chunk in reader.feed(piece) if chunk.text is not None)

    return count


def _chatpool_events() -> Count:
    from chatpool._wire.sse import EventParser

    def count(pieces: Iterable[bytes]) -> int:
        parser = EventParser()
        return sum(1 for piece in pieces for _ in parser.feed(piece))

    return count


class _Response:
    """As much of a response as openai's stream asks for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def iter_bytes(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        pass


def _openai() -> Count:
    from openai import OpenAI, Stream
    from openai.types.chat import ChatCompletionChunk

    client = OpenAI(api_key="k", base_url="http://127.0.0.1:9")

    def count(pieces: Iterable[bytes]) -> int:
        response: Any = _Response(pieces)
        chunks = Stream(cast_to=ChatCompletionChunk, response=response, client=client)
        return sum(1 for chunk in chunks if chunk.choices[0].delta is not None)

    return count


def _openai_events() -> Count:
    from openai import OpenAI

    client = OpenAI(api_key="k", base_url="http://127.0.0.1:9")

    def count(pieces: Iterable[bytes]) -> int:
        return sum(1 for _ in client._make_sse_decoder().iter_bytes(iter(pieces)))

    return count


_COUNTS: Mapping[str, Callable[[], Count]] = {
    "chatpool": _chatpool,
    "chatpool-orjson": _chatpool,
    "openai": _openai,
    "chatpool-events": _chatpool_events,
    "openai-events": _openai_events,
}

if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
