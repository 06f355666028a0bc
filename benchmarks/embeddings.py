"""Embeddings: vectors per second and memory, against the JSON decoder and the socket alone."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Dict, List, NamedTuple, Sequence

from . import nginx
from .answer import DIMENSIONS, PACK
from .children import run_child
from .measure import Sample, grouped, ratios, rotated, rounds, spread
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

BOUND = 1.2  # times what the decoder and the socket need


class Client(NamedTuple):
    """A client.

    Attributes:
        title: what the report calls it.
        base: what it is compared with.
        needs: the package that it needs, besides those of the others.
    """

    title: str
    base: str = "decoder"
    needs: str = "urllib3"


_CLIENTS: Dict[str, Client] = {
    "decoder": Client("urllib3 and `json.loads`"),
    "chatpool": Client("**chatpool** `pool.embed`"),
    "openai": Client("openai SDK in threads", needs="openai"),
    "decoder+orjson": Client("urllib3 and `orjson.loads`", "decoder+orjson", "orjson"),
    "chatpool+orjson": Client("**chatpool** `pool.embed`, orjson installed", "decoder+orjson", "orjson"),
}


def measure(quick: bool) -> List[Sample]:
    """The same vectors by all clients in turn."""
    clients = [name for name, client in _CLIENTS.items() if importlib.util.find_spec(client.needs)]
    vectors = 2_000 if quick else 10_000
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn in range(rounds(2 if quick else 3)):
            for name in rotated(clients, turn):
                client, _, orjson = name.partition("+")
                spec: Dict[str, Any] = {"client": client, "orjson": bool(orjson), "vectors": vectors}
                used = run_child("embeddings_child", {**spec, "base_url": server.base_url("vectors")})
                samples.append({"round": turn, "client": name, "vectors": vectors, **used})
            print(f"round {turn + 1}", file=sys.stderr)
    return samples


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and the figures of every client."""
    of = grouped(samples, "client")
    bounds = [
        Bound(f"CPU: {client.title} over {_CLIENTS[client.base].title}", spread(_over(of, name, "cpu")), BOUND)
        for name, client in _CLIENTS.items()
        if name in of and name.startswith("chatpool")
    ]
    note = f"Vectors of {DIMENSIONS:,} numbers, {PACK} in an answer, 8 requests at a time; all of them are kept."
    columns = ("client", "vectors/s", "CPU over the decoder's", "time over the decoder's", "peak memory, MB")
    rows = [
        [
            _CLIENTS[str(name)].title,
            spread(sample["vectors"] / sample["wall"] for sample in found).show(0),
            spread(_over(of, str(name), "cpu")).show(),
            spread(_over(of, str(name), "wall")).show(),
            spread(sample["peak_rss_kb"] for sample in found).show(0, 1 / 1024),
        ]
        for name, found in of.items()
    ]
    return [bounds_table(bounds), Table("Vectors", columns, rows, note)]


def _over(of: Any, name: str, what: str) -> List[float]:
    return ratios(of[name], of[_CLIENTS[name].base], lambda sample: float(sample[what]))
