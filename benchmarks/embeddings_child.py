"""Many vectors by one client in a process of its own: ``python -m benchmarks.embeddings_child SPEC``."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Mapping, Sequence

from .answer import DIMENSIONS, PACK, prompts

__all__ = ["run"]

_MODEL = "text-embedding-3-small"
_WORKERS = 8

Embed = Callable[[Sequence[str]], List[Any]]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Have ``spec["vectors"]`` texts embedded by ``spec["client"]``, and keep all vectors; returns what it used."""
    if not spec["orjson"]:
        sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    embed = _CLIENTS[spec["client"]](spec["base_url"])
    embed(prompts(2 * PACK * _WORKERS))
    texts = prompts(spec["vectors"])
    gc.collect()
    gc.freeze()
    cpu, wall = time.process_time(), time.perf_counter()
    found = embed(texts)
    used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    if len(found) != len(texts) or any(len(vector) != DIMENSIONS for vector in found):
        raise RuntimeError(f"{len(found)} vectors of {len(texts)} came")
    return {**used, "peak_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def _packs(texts: Sequence[str]) -> List[Sequence[str]]:
    return [texts[start : start + PACK] for start in range(0, len(texts), PACK)]


def _in_threads(ask: Callable[[Sequence[str]], List[Any]]) -> Embed:
    def embed(texts: Sequence[str]) -> List[Any]:
        with ThreadPoolExecutor(_WORKERS) as executor:
            return [vector for vectors in executor.map(ask, _packs(texts)) for vector in vectors]

    return embed


def _decoder(base_url: str) -> Embed:
    """The least a program can do: a pooled connection, and the JSON decoder."""
    import urllib3

    try:
        from orjson import loads
    except ImportError:
        from json import loads  # type: ignore[assignment]
    pool = urllib3.PoolManager(maxsize=_WORKERS)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}

    def ask(texts: Sequence[str]) -> List[Any]:
        body = json.dumps({"model": _MODEL, "input": texts})
        answer: Any = pool.request("POST", base_url + "/embeddings", body=body, headers=headers)
        return [each["embedding"] for each in loads(answer.data)["data"]]

    return _in_threads(ask)


def _chatpool(base_url: str) -> Embed:
    from chatpool import ChatPool

    pool = ChatPool(_MODEL, api_key="k", base_url=base_url, max_workers=_WORKERS)
    return lambda texts: pool.embed(texts, max_pack=PACK, progress=False)


def _openai(base_url: str) -> Embed:
    from openai import OpenAI

    client = OpenAI(api_key="k", base_url=base_url)

    def ask(texts: Sequence[str]) -> List[Any]:
        answer = client.embeddings.create(model=_MODEL, input=list(texts), encoding_format="float")
        return [each.embedding for each in answer.data]

    return _in_threads(ask)


_CLIENTS: Mapping[str, Callable[[str], Embed]] = {"decoder": _decoder, "chatpool": _chatpool, "openai": _openai}

if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
