"""Tables of the benchmark ``scale``: what was measured, what follows from it for the whole job, what was simulated."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence

from ..measure import Sample, grouped
from ..tables import Table
from .job import Job

__all__ = ["Costs", "scale_tables"]

_FILES_PER_SHARD = 4  # its rows, its answers, its failures, its journal


class Costs(NamedTuple):
    """CPU seconds of a step: those of each row, and those of each shard beside them."""

    row: float
    shard: float

    @classmethod
    def of(cls, many_rows: Sample, one_row: Sample, step: str) -> Costs:
        """Return the costs that two measurements show: of shards of many rows, and of shards of one."""
        shard_and_row = one_row[step] / one_row["shards"]
        per_row = many_rows[step] / many_rows["rows"]
        rows = many_rows["rows"] / many_rows["shards"]  # of a shard
        shard = max(0.0, (shard_and_row - per_row) / (1 - 1 / rows))
        return cls(max(0.0, per_row - shard / rows), shard)

    def of_job(self, rows: float, shards: float) -> float:
        """Return the seconds of so many rows in so many shards."""
        return rows * self.row + shards * self.shard


def scale_tables(samples: Sequence[Sample]) -> List[Table]:
    """Redis, files, sizes of shards, deaths, hosts, and the check call by call."""
    kinds: Dict[Any, List[Sample]] = dict(grouped(samples, "what"))
    found = {what: kinds[what][0] for what in ("split", "rows", "shards", "names", "calls")}
    return [
        _commands(kinds["commands"]),
        _redis(kinds["redis"]),
        _costs(found),
        _sizes([each for each in kinds["shard size"] if each["life"] == "never"], found),
        _ends(kinds["shard size"]),
        _lives(kinds["shard size"]),
        _hosts(kinds["hosts"]),
        _calls(found["calls"]),
    ]


def _commands(samples: Sequence[Sample]) -> Table:
    names = {"requests": "requests a minute", "tokens": "requests and tokens a minute"}
    rows = [
        [names[each["limits"]], f"{each['calls']:,}", f"{each['commands'] / each['calls']:.2f}"] for each in samples
    ]
    note = "Measured: scripts that a real Redis ran for the calls of a pool whose answers differ in length."
    return Table("Redis: commands for each call", ("limits", "calls", "commands per call"), rows, note)


def _redis(samples: Sequence[Sample]) -> Table:
    rows = []
    for each in samples:
        call = each["reserve"] + each["correct"]
        rows.append(
            [
                f"{each['sharers']}",
                f"{each['state_bytes']:,}",
                f"{each['reserve'] * 1e6:,.0f}",
                f"{each['correct'] * 1e6:,.0f}",
                f"{1 / call:,.0f}",
                f"{100 * call * Job().quota_per_second:,.0f}",
            ]
        )
    columns = (
        *("processes that share", "bytes of state", "reserve, CPU us", "correct, CPU us"),
        *("calls/s of one Redis", "used by the job's quota, %"),
    )
    return Table("Redis: CPU of one limit", columns, rows, "Measured, with the state of a full minute.")


def _costs(found: Mapping[str, Sample]) -> Table:
    many, one = found["rows"], found["shards"]
    rows = [
        [words, f"{costs.row * 1e6:,.1f}", f"{costs.shard * 1e3:,.2f}"]
        for step, words in (
            ("split", "split"),
            ("again", "run again, all done"),
            ("status", "status"),
            ("merge", "merge"),
        )
        for costs in [Costs.of(many, one, step)]
    ]
    split = found["split"]
    note = (
        f"Measured: CPU with real files, {many['shards']:,} shards of {many['rows'] // many['shards']:,} rows and "
        f"{one['shards']:,} of one row. Split of {split['rows']:,} rows in {split['shards']:,} shards: "
        f"{split['split'] / split['rows'] * 1e6:.1f} us a row. Answers, failures and journal take "
        f"{many['answers_bytes'] / many['rows']:,.0f} bytes a row with answers of 400 characters; the names in memory "
        f"while splitting {found['names']['memory'] / found['names']['rows']:.1f} bytes a row; merge "
        f"{_merge_bytes(many, one):,.0f} bytes for each row of one shard."
    )
    return Table("Shards: what they cost", ("step", "of a row, us", "of a shard, ms"), rows, note)


def _merge_bytes(many: Sample, one: Sample) -> float:
    rows = many["rows"] / many["shards"]
    return max(0.0, float(many["merge_memory"] - one["merge_memory"]) / (rows - 1))


def _sizes(samples: Sequence[Sample], found: Mapping[str, Sample]) -> Table:
    many, one = found["rows"], found["shards"]
    load = one["load"] / one["shards"]
    rows = []
    for each in samples:
        size = (each["rows"], each["shards"])
        minutes = [f"{Costs.of(many, one, step).of_job(*size) / 60:,.1f}" for step in ("split", "status", "merge")]
        rows.append(
            [
                f"{each['shard_rows']:,}",
                f"{each['shards']:,}",
                f"{each['shards'] * _FILES_PER_SHARD:,}",
                f"{one['manifest_bytes'] / one['shards'] * each['shards'] / 1e6:,.1f}",
                f"{load * each['shards'] * 1e3:,.0f}",
                *minutes,
                f"{_merge_bytes(many, one) * each['shard_rows'] / 1e6:,.0f}",
            ]
        )
    columns = (
        *("rows of a shard", "shards", "files", "manifest, MB", "reading it, ms"),
        *("split, min", "status, min", "merge, min", "merge, MB"),
    )
    note = (
        f"Calculated from the costs above, for {samples[0]['rows']:,} rows: CPU of one core, without waiting for disks."
    )
    return Table("Shards: by their size", columns, rows, note)


def _by_life(samples: Sequence[Sample], title: str, note: str, cell: Callable[[Sample], str]) -> Table:
    sizes: Dict[Any, List[Sample]] = dict(grouped(samples, "shard_rows"))
    lives = [each["life"] for each in next(iter(sizes.values()))]
    rows = [[f"{size:,}", *(cell(each) for each in found)] for size, found in sizes.items()]
    return Table(title, ("rows of a shard", *(f"hosts live: {life}" for life in lives)), rows, note)


def _ends(samples: Sequence[Sample]) -> Table:
    first = samples[0]
    note = (
        f"Simulated: {first['rows']:,} rows, {first['hosts']} hosts of {first['workers']} workers, "
        f"{first['requests_per_minute']:,.0f} requests a minute, answers of {first['latency_seconds']:g} s; ideal "
        f"{first['ideal_seconds'] / 3600:.1f} h. Per cent over the ideal, and minutes at the end in which the quota is "
        "not used up."
    )

    def cell(each: Sample) -> str:
        over = 100 * (each["seconds"] / each["ideal_seconds"] - 1)
        return f"{over:.1f} %; {(each['seconds'] - each['full_seconds']) / 60:,.1f}"

    return _by_life(samples, "The whole job: time over the ideal, minutes of its end", note, cell)


def _lives(samples: Sequence[Sample]) -> Table:
    first = samples[0]
    note = (
        f"Simulated: the calls in flight of a host that dies; its shard is taken over after "
        f"{first['takeover_seconds']:g} s, and another host is there after {first['host_return_seconds']:g} s."
    )
    return _by_life(
        samples,
        "The whole job: hosts that die, and rows sent twice",
        note,
        lambda each: f"{each['deaths']:,}; {each['repeated']:,.0f} ({100 * each['repeated'] / each['rows']:.2f} %)",
    )


def _hosts(samples: Sequence[Sample]) -> Table:
    groups: Dict[Any, List[Sample]] = dict(grouped(samples, "latency_seconds"))
    hosts = [each["hosts"] for each in next(iter(groups.values()))]
    rows = [
        [
            f"{seconds:g} s",
            f"{Job().quota_per_second * seconds:,.0f}",
            *(f"{100 * each['answered'] / each['seconds'] / Job().quota_per_second:.0f}" for each in found),
        ]
        for seconds, found in groups.items()
    ]
    columns = ("an answer takes", "in flight for the quota", *(f"{number} hosts, %" for number in hosts))
    note = f"Simulated: how much of the quota is used, with {samples[0]['workers']} workers on each host."
    return Table("The whole job: hosts that it needs", columns, rows, note)


def _calls(each: Sample) -> Table:
    rows = [
        ["rows, hosts, requests a minute", f"{each['rows']:,}, {each['hosts']}, {each['requests_per_minute']:,.0f}"],
        ["hosts that died", f"{each['deaths']:,}"],
        ["calls sent", f"{each['sends']:,}"],
        ["of these again, of a host that died", f"{each['repeated']:,.0f}"],
        ["answers of a row: fewest, most", f"{each['fewest_answers']}, {each['most_answers']}"],
        ["calls in the fullest minute", f"{each['fullest_minute']:,}"],
    ]
    note = "Simulated call by call, with the limiter that Redis runs, on a clock of its own."
    return Table("A small job, call by call", ("figure", "value"), rows, note)
