"""The list of all benchmarks."""

from __future__ import annotations

import importlib
from typing import Any, List, NamedTuple, Sequence, Tuple

from .measure import Sample
from .tables import Table

__all__ = ["BENCHMARKS", "Benchmark", "chosen"]


class Benchmark(NamedTuple):
    """One benchmark: a module with ``measure(quick) -> samples`` and ``tables(samples) -> tables``.

    ``tables`` is a pure function, so that a report can be made again from what is stored.  ``servers`` are modules
    with ``version()``, which installs a server where it is missing.  With ``prepares`` the module has
    ``prepare(quick)`` as well: for what takes long, uses the machine, and must not happen while something is measured.
    One that stands ``apart`` takes long and is run by its name only.
    """

    name: str
    summary: str
    module: str
    servers: Tuple[str, ...] = ()
    prepares: bool = False
    apart: bool = False

    def _load(self) -> Any:
        return importlib.import_module(f"{__package__}.{self.module}")

    def versions(self) -> List[str]:
        """Of the servers that it calls."""
        return [importlib.import_module(f"{__package__}.{server}").version() for server in self.servers]

    def prepare(self, quick: bool) -> None:
        """Make what it needs and this machine lacks."""
        if self.prepares:
            self._load().prepare(quick)

    def measure(self, quick: bool) -> List[Sample]:
        """Take the measurements."""
        samples: List[Sample] = self._load().measure(quick)
        return samples

    def tables(self, samples: Sequence[Sample]) -> List[Table]:
        """Return their tables."""
        shown: List[Table] = self._load().tables(samples)
        return shown


_NGINX = ("nginx",)

BENCHMARKS: Tuple[Benchmark, ...] = (
    Benchmark("import", "what importing chatpool costs", "imports"),
    Benchmark("cost", "CPU per call and calls per second, against other clients", "cost", servers=_NGINX),
    Benchmark(
        "interpreters",
        "the cost of a call by Python version, and without the global lock",
        "interpreters",
        servers=_NGINX,
        prepares=True,
    ),
    Benchmark("growth", "more calls, and more in flight: time, CPU, memory", "growth", servers=_NGINX),
    Benchmark("overrun", "how late a time limit or a cancel takes effect", "overrun"),
    Benchmark("engine", "the pool without a network: CPU, memory, workers", "engine"),
    Benchmark("backoff", "calls that fail and are made again", "backoff", servers=_NGINX),
    Benchmark("pacing", "servers with limits: time against the ideal, and refusals", "pacing"),
    Benchmark("ablation", "what each part of the pacing is for (simulated)", "pacing.ablation", apart=True),
    Benchmark("sharing", "limits that processes share", "pacing.sharing"),
    Benchmark("scale", "millions of rows over many hosts: shards, Redis, deaths", "scale"),
    Benchmark("clusters", "shards on a Dask cluster: workers killed, and one limit for all", "clusters"),
    Benchmark("outage", "a server that is down for a while", "outage", servers=_NGINX),
    Benchmark("overload", "real limiters, and refusals at random", "overload", servers=("nginx", "haproxy")),
    Benchmark("streaming", "streams: first chunk and chunks per second, against others", "streaming", servers=_NGINX),
    Benchmark("embeddings", "vectors: CPU and memory, over the JSON decoder alone", "embeddings", servers=_NGINX),
    Benchmark("batch", "files of rows: throughput against pool.map, and by two processes", "batch", servers=_NGINX),
    Benchmark("million", "a million rows in one run: memory; a quarter of an hour", "million", _NGINX, apart=True),
    Benchmark("model", "2,000 rows on the embedded model", "model"),
    Benchmark("interrupts", "Ctrl-C, with and abort() while every worker is blocked", "interrupts"),
)


def chosen(names: Sequence[str]) -> List[Benchmark]:
    """The benchmarks of these names; without any, all but those that stand apart.

    Raises:
        ValueError: there is none of such a name.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(known)}")
    if not names:
        return [benchmark for benchmark in BENCHMARKS if not benchmark.apart]
    return [known[name] for name in dict.fromkeys(names)]
