"""Streams: the first token over a connection, and chunks per second on one core, against other clients."""

from __future__ import annotations

import sys
from typing import Dict, List, NamedTuple, Sequence

from . import nginx
from .children import run_child
from .measure import Sample, grouped, ratios, rotated, rounds, spread
from .tables import Bound, Table, bounds_table

__all__ = ["measure", "tables"]

BOUND = 20_000  # chunks per second
LATER = 1.0  # milliseconds after bare urllib3

_CHUNKS = 15_000
_READS = {"a chunk": 0, "1,400 bytes": 1400, "16 KiB": 16_384}


class Reader(NamedTuple):
    """A reader of the bytes.

    Attributes:
        title: what the report calls it.
        makes: what it makes: ``"chunks"``, ready for the user, or ``"events"``, without decoding their JSON.
        orjson: whether orjson may be used where it is installed.
    """

    title: str
    makes: str = "chunks"
    orjson: bool = False


READERS: Dict[str, Reader] = {
    "chatpool": Reader("chatpool"),
    "chatpool-orjson": Reader("chatpool with orjson", orjson=True),
    "openai": Reader("openai"),
    "chatpool-events": Reader("chatpool", makes="events"),
    "openai-events": Reader("openai", makes="events"),
}


_CLIENTS = {"urllib3": "bare urllib3", "chatpool": "chatpool", "openai": "openai"}
_RELAYED = {"streams": 200, "chunks": 60, "pause": 0.1}
_WHAT = {"first token": {"streams": 300, "chunks": 20}, "reading": {"streams": 3, "chunks": 5000}}


def measure(quick: bool) -> List[Sample]:
    """Streams over connections, by all clients in turn; then every reader on the same bytes, in turn."""
    samples: List[Sample] = []
    with nginx.running() as server:
        for turn in range(rounds(2 if quick else 3)):
            for what in _WHAT:
                samples += _received(turn, what, server, quick)
            samples += [_relayed(turn, client, server, quick) for client in rotated(list(_CLIENTS), turn)]
            print(f"round {turn + 1} over connections", file=sys.stderr)
    return samples + _measure_parsing(quick)


def _received(turn: int, what: str, server: nginx.Server, quick: bool) -> List[Sample]:
    spec = dict(_WHAT[what])
    if quick:
        spec["streams"] = max(1, spec["streams"] // 10)
    asked = {**spec, "base_url": server.base_url("stream"), "clients": rotated(list(_CLIENTS), turn)}
    taken = run_child("first_token_child", asked)
    return [{"what": what, "round": turn, "client": client, **spec, **used} for client, used in taken.items()]


def _relayed(turn: int, client: str, server: nginx.Server, quick: bool) -> Sample:
    spec = {**_RELAYED, "chunks": 20} if quick else _RELAYED
    asked = {**spec, "base_url": server.base_url("paced"), "client": client}
    return {"what": "relay", "round": turn, "client": client, **spec, **run_child("relay_child", asked)}


def _measure_parsing(quick: bool) -> List[Sample]:
    samples: List[Sample] = []
    trials = [(name, read) for read in _READS for name in READERS]
    for turn in range(rounds(2 if quick else 3)):
        samples += [_parsed(turn, name, read, quick) for name, read in rotated(trials, turn)]
        print(f"round {turn + 1}", file=sys.stderr)
    return samples


def _parsed(turn: int, name: str, read: str, quick: bool) -> Sample:
    spec = {"reader": name, "read": _READS[read], "chunks": _CHUNKS // 10 if quick else _CHUNKS}
    where = {"what": "parsing", "round": turn, "reader": name, "read": read}
    return {**where, **run_child("streaming_child", {**spec, "orjson": READERS[name].orjson})}


def tables(samples: Sequence[Sample]) -> List[Table]:
    """Bounds, and the chunks per second of every reader."""
    of = grouped(samples, "what")
    parsing, first, reading = of.get("parsing", []), of.get("first token", []), of.get("reading", [])
    relayed = of.get("relay", [])
    columns = ("bytes to", "client", "bytes per read", "thousands per second", "over openai's")
    rows = [_row(found, parsing) for found in grouped(parsing, "reader", "read").values()]
    return [
        bounds_table([*_first_bounds(first), *_bounds(parsing)]),
        *(_connection_tables(first, reading) if first else []),
        *([_relay_table(relayed)] if relayed else []),
        Table("Chunks per second of CPU, one core, bytes in memory", columns, rows),
    ]


def _first_bounds(first: Sequence[Sample]) -> List[Bound]:
    later = _later(first, "chatpool")
    return [Bound("first chunk: milliseconds after bare urllib3", spread(later), LATER)] if later else []


def _later(samples: Sequence[Sample], client: str, what: str = "first") -> List[float]:
    """Milliseconds between the first chunk of bare urllib3 and that of ``client``, per round; or between others."""
    base = {sample["round"]: sample[what] for sample in samples if sample["client"] == "urllib3"}
    return [1000 * (sample[what] - base[sample["round"]]) for sample in samples if sample["client"] == client]


def _connection_tables(first: Sequence[Sample], reading: Sequence[Sample]) -> List[Table]:
    firsts = [
        [
            _CLIENTS[str(client)],
            spread(sample["first"] for sample in found).show(2, 1000),
            spread(sample["slow"] for sample in found).show(2, 1000),
            spread(_later(first, str(client))).show(2),
        ]
        for client, found in grouped(first, "client").items()
    ]
    reads = [
        [_CLIENTS[str(client)], spread(map(_received_rate, found)).show(1, 0.001), _over_openai(found, reading)]
        for client, found in grouped(reading, "client").items()
    ]
    return [
        Table(
            "Milliseconds from the call to the first chunk",
            ("client", "median", "95th percentile", "after bare urllib3"),
            firsts,
            "One stream after the other over a kept connection, the clients in turn in one process.",
        ),
        Table(
            "Chunks per second of CPU, over a connection",
            ("client", "thousands per second", "over openai's"),
            reads,
            "Each chunk is sent by itself, as fast as the server can.",
        ),
    ]


def _relay_table(relayed: Sequence[Sample]) -> Table:
    base = [sample for sample in relayed if sample["client"] == "urllib3"]
    rows = [
        [
            _CLIENTS[str(client)],
            spread(map(_received_rate, found)).show(1, 0.001),
            spread(ratios(found, base, lambda sample: float(sample["cpu"]))).show(),
            spread(sample["late"] for sample in found).show(2, 1000),
            spread(sample["latest"] for sample in found).show(2, 1000),
            spread(_later(relayed, str(client), "late")).show(),
        ]
        for client, found in grouped(relayed, "client").items()
    ]
    streams, chunks, pause = (relayed[0][name] for name in ("streams", "chunks", "pause"))
    return Table(
        f"{streams} streams at once, relayed by one process",
        ("client", "thousand chunks per second of CPU", "CPU over urllib3", "ms late", "99th percentile", "ms later"),
        rows,
        f"{chunks} chunks each, one every {1000 * pause:g} ms: {streams / pause:,.0f} a second. A chunk is late by the "
        "time between the server sent it and the client has written it on; later by that after bare urllib3.",
    )


def _received_rate(sample: Sample) -> float:
    return float(sample["streams"] * sample["chunks"] / sample["cpu"])


def _over_openai(found: Sequence[Sample], reading: Sequence[Sample]) -> str:
    base = [sample for sample in reading if sample["client"] == "openai"]
    return spread(ratios(found, base, _received_rate)).show(1)


def _rate(sample: Sample) -> float:
    return float(sample["chunks"] / sample["cpu"])


def _bounds(parsing: Sequence[Sample]) -> List[Bound]:
    found = grouped([sample for sample in parsing if sample["reader"] == "chatpool"], "read")
    return [
        Bound(f"chunks per second, {read} per read", spread(map(_rate, of_read)), BOUND, at_least=True, digits=0)
        for read, of_read in found.items()
    ]


def _row(found: Sequence[Sample], parsing: Sequence[Sample]) -> List[str]:
    first = found[0]
    reader = READERS[first["reader"]]
    reference = "openai-events" if reader.makes == "events" else "openai"
    base = [s for s in parsing if s["reader"] == reference and s["read"] == first["read"]]
    over = spread(ratios(found, base, _rate)).show(1)
    return [reader.makes, reader.title, first["read"], spread(map(_rate, found)).show(1, 0.001), over]
