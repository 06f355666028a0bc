"""Simulations of millions of rows: closed forms where there are any, and what has to hold whatever happens."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.scale.__main__ import main
from benchmarks.scale.calls import Calls, fullest_minute
from benchmarks.scale.flow import simulate
from benchmarks.scale.job import Job
from benchmarks.scale.report import Costs, scale_tables
from benchmarks.scale.simulations import simulated

PLAIN = Job(rows=5_000, shard_rows=500, hosts=10, requests_per_minute=600, latency_sigma=0.0, shard_start_seconds=0.0)
MORTAL = replace(PLAIN, rows=3_000, shard_rows=100, host_life_hours=0.02, host_return_seconds=20, takeover_seconds=30)


# -- a job as a flow ------------------------------------------------------------------------------------------------


def test_a_job_that_the_quota_holds_back_takes_its_rows_over_the_quota_and_one_answer():
    job = replace(PLAIN, shard_rows=500)
    assert simulate(job).seconds == pytest.approx(job.rows / job.quota_per_second + job.latency_seconds)


def test_a_job_that_its_workers_hold_back_takes_its_rounds_of_answers():
    job = replace(PLAIN, hosts=1, workers=10, shard_rows=5_000, requests_per_minute=1e6, latency_seconds=2.0)
    assert simulate(job).seconds == pytest.approx(5_000 / 10 * 2.0)


def test_of_two_limits_the_narrower_counts():
    wide, narrow = replace(PLAIN, tokens_per_minute=1e9), replace(PLAIN, tokens_per_minute=600 * 1_500 / 4)
    assert wide.quota_per_second == pytest.approx(10, rel=0.03)
    assert narrow.quota_per_second == pytest.approx(2.5, rel=0.03)


def test_fewer_shards_than_hosts_leave_hosts_idle():
    job = replace(PLAIN, workers=4, shard_rows=2_500)  # two hosts of one call a second each
    ran = simulate(job)
    assert ran.seconds == pytest.approx(2_500)
    assert ran.full_seconds == 0


def test_each_shard_costs_its_start():
    job = replace(PLAIN, hosts=1, workers=1_000, shard_rows=1_000, shard_start_seconds=7.0)
    assert simulate(job).seconds == pytest.approx(job.rows / job.quota_per_second + 5 * (7.0 + job.latency_seconds))


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_conserved_and_the_quota_is_kept_however_hosts_die(seed):
    job = replace(MORTAL, seed=seed, latency_sigma=0.6, shard_start_seconds=1.0)
    ran = simulate(job)
    assert ran.deaths > 0 < ran.takeovers <= ran.deaths
    assert ran.answered == pytest.approx(job.rows)
    assert ran.sent == pytest.approx(job.rows + ran.repeated)
    assert 0 < ran.repeated <= ran.deaths * job.workers
    assert ran.max_per_second <= job.quota_per_second * (1 + 1e-9)
    assert ran.seconds >= job.ideal_seconds


def test_the_same_seed_gives_the_same_figures():
    assert simulate(MORTAL) == simulate(MORTAL)
    assert simulate(MORTAL) != simulate(replace(MORTAL, seed=2))


def test_the_slowest_of_many_answers_is_slower_than_one():
    job, chance = Job(latency_seconds=4.0, latency_sigma=0.6), random.Random(1)
    ones = [job.latency(chance) for _ in range(4_000)]
    slowest = [job.slowest_latency(64, chance) for _ in range(400)]
    assert sum(ones) / len(ones) == pytest.approx(4.0, rel=0.05)
    by_hand = [max(random.Random(seed).sample(ones, 64)) for seed in range(400)]
    assert sum(slowest) / 400 == pytest.approx(sum(by_hand) / 400, rel=0.1)


# -- call by call, with the limiter ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_no_minute_has_more_than_the_quota_and_every_row_one_answer(seed):
    job = replace(MORTAL, seed=seed, latency_sigma=0.6)
    made = Calls(job).run()
    assert made.ran.deaths > 0
    assert fullest_minute(made.sends) <= job.requests_per_minute
    assert set(made.answers) == {1}
    assert len(made.sends) == job.rows + made.ran.repeated
    assert made.ran.repeated <= made.ran.deaths * job.workers


def test_no_minute_has_more_tokens_than_the_quota():
    job = replace(PLAIN, rows=1_000, requests_per_minute=1e6, tokens_per_minute=450_000, tokens_per_row=1_500)
    assert 0 < fullest_minute(Calls(job).run().sends) * 1_500 <= 450_000


def test_hosts_that_ask_one_call_at_a_time_get_equal_shares():
    made = Calls(replace(PLAIN, rows=10 * 400, shard_rows=400)).run()
    first_minutes = [made.by_host[number] for number in range(10)]
    assert max(first_minutes) - min(first_minutes) <= 1


@pytest.mark.parametrize(
    "changed", [{}, {"latency_sigma": 0.6}, {"workers": 2}, {"hosts": 3, "shard_start_seconds": 5.0}]
)
def test_the_flow_takes_as_long_as_the_calls(changed):
    job = replace(PLAIN, **changed)
    assert simulate(job).seconds == pytest.approx(Calls(job).run().ran.seconds, rel=0.05)


@pytest.mark.parametrize(
    ("sends", "most"), [([], 0), ([5.0], 1), ([0.0, 59.9, 60.0, 61.0], 3), ([0.0, 60.0, 120.0], 1), ([1.0] * 4, 4)]
)
def test_the_fullest_minute_is_half_open(sends, most):
    assert fullest_minute(sends) == most


# -- the report -------------------------------------------------------------------------------------------------------


def test_costs_of_a_row_and_of_a_shard_are_told_apart():
    row, shard = 20e-6, 5e-3
    many = {"rows": 8_000, "shards": 8, "split": 8_000 * row + 8 * shard}
    one = {"rows": 500, "shards": 500, "split": 500 * (row + shard)}
    costs = Costs.of(many, one, "split")
    assert costs == pytest.approx((row, shard))
    assert costs.of_job(1e6, 200) == pytest.approx(1e6 * row + 200 * shard)


def test_the_report_shows_measured_calculated_and_simulated_figures():
    steps = dict.fromkeys(("split", "load", "run", "again", "status", "merge"), 1.0)
    files = {**steps, "answers_bytes": 1e6, "merge_memory": 2e6, "manifest_bytes": 60_000, "source_bytes": 1e6}
    job = replace(PLAIN, rows=500)
    tables = scale_tables(
        [
            {"what": "commands", "limits": "tokens", "calls": 100, "commands": 201},
            {"what": "redis", "sharers": 100, "state_bytes": 2_340, "reserve": 60e-6, "correct": 40e-6},
            {"what": "split", **files, "rows": 1_000, "shards": 10},
            {"what": "rows", **files, "rows": 1_000, "shards": 10},
            {"what": "shards", **files, "rows": 1_000, "shards": 1_000},
            {"what": "names", "rows": 1_000, "memory": 25_000},
            {"what": "shard size", "life": "never", **simulated(job)},
            {"what": "hosts", **simulated(job)},
            {
                "what": "calls",
                **simulated(job),
                "sends": 510,
                "fewest_answers": 1,
                "most_answers": 1,
                "fullest_minute": 7,
            },
        ]
    )
    cells = {table.title: table.rows for table in tables}
    assert cells["Redis: commands for each call"][0][-1] == "2.01"
    assert cells["Redis: CPU of one limit"][0][4] == "10,000"
    assert cells["Shards: by their size"][0][:3] == ["500", "1", "4"]
    assert cells["A small job, call by call"][-1][1] == "7"


def test_a_job_of_ones_own_is_simulated_by_the_command_line(capsys):
    main(["--rows", "5e3", "--shard-rows", "500", "--hosts", "10", "--requests-per-minute", "600"])
    printed = capsys.readouterr().out
    assert printed.startswith("10 shards; quota 9.")
    assert "0 hosts died, 0 shards taken over, 0 rows sent again" in printed


def test_half_a_host_is_refused_by_the_command_line(capsys):
    with pytest.raises(SystemExit):
        main(["--hosts", "2.5"])
    assert "a whole number of at least 1 is needed, got 2.5" in capsys.readouterr().err
