"""A budget that shards share without a counter of theirs."""

from __future__ import annotations

import random

import pytest

from chatpool import Budget
from chatpool.contrib.dask.shard_progress import ShardProgress
from chatpool.contrib.dask.shared_budget import SharedBudget, amounts_of
from chatpool.prices import Bill, prices_of
from chatpool.types import Usage


def shared(budget, rows, spent=None):
    name = "tokens" if budget.tokens is not None else "cost"
    before = {index: {name: (spent or {}).get(index, 0.0)} for index in rows}
    return SharedBudget(budget, rows, before)


class TestParts:
    def test_each_shard_gets_its_part_by_its_rows(self):
        budget = shared(Budget(tokens=1000), {0: 100, 1: 300})
        assert budget.allow(0) == {"tokens": 250}
        assert budget.allow(1) == {"tokens": 750}

    def test_what_earlier_runs_have_spent_counts(self):
        budget = shared(Budget(tokens=1000), {0: 10, 1: 10}, {0: 400, 1: 200})
        assert budget.allow(0) == {"tokens": 400 + 200}
        assert budget.allow(1) == {"tokens": 200 + 200}

    def test_a_shard_whose_end_is_not_known_is_allowed_nothing_more(self):
        budget = shared(Budget(tokens=1000), {0: 10, 1: 10})
        assert budget.allow(0) == budget.allow(0) == {"tokens": 500}
        assert budget.allow(1) == {"tokens": 500}

    def test_what_a_shard_leaves_over_goes_to_the_others(self):
        budget = shared(Budget(tokens=1000), {0: 10, 1: 10})
        budget.allow(0), budget.allow(1)
        budget.settle(0, {"tokens": 100.0}, 0)
        budget.settle(1, {"tokens": 500.0}, 3)
        assert budget.allow(1) == {"tokens": 500 + 400}

    def test_nothing_is_allowed_when_all_is_given_out(self):
        budget = shared(Budget(tokens=100), {0: 10, 1: 10})
        budget.allow(0), budget.allow(1)
        budget.settle(0, {"tokens": 60.0}, 5)  # its calls in flight took more than it had
        assert budget.allow(0) is None

    def test_tokens_and_money_are_both_limits(self):
        limits = Budget(tokens=100, cost=8, prices=(1, 1))
        budget = SharedBudget(limits, {0: 1, 1: 3}, {index: {"tokens": 0.0, "cost": 0.0} for index in (0, 1)})
        assert budget.allow(0) == {"tokens": 25, "cost": 2}

    def test_a_part_does_for_some_rows_or_is_all_there_is(self):
        budget = shared(Budget(tokens=300), dict.fromkeys(range(30), 10))
        for index in range(30):
            budget.allow(index)
        for index in range(30):
            budget.settle(index, {"tokens": 5.0}, 9)  # a row took 5 of its 10 tokens; the next one did not fit
        assert budget.allow(0) == {"tokens": 5 + 100}
        assert budget.allow(1) == {"tokens": 5 + 50}
        assert budget.allow(2) is None

    def test_the_next_one_may_be_given_all(self):
        budget = shared(Budget(tokens=100), {0: 10, 1: 10})
        budget.gives_all = True
        assert budget.allow(0) == {"tokens": 100}


@pytest.mark.parametrize("seed", range(20))
def test_shards_never_spend_more_than_the_budget_whatever_their_ends(seed):
    chance = random.Random(seed)
    rows = {index: chance.randint(1, 50) for index in range(8)}
    budget, spent = shared(Budget(tokens=1000), dict(rows)), dict.fromkeys(rows, 0.0)
    running = {}
    for _ in range(300):
        index = chance.choice(list(rows))
        if index not in running:
            allowed = budget.allow(index)
            if allowed is not None:
                running[index] = allowed["tokens"]
        else:
            spent[index] += (running[index] - spent[index]) * chance.random()
            if chance.random() < 0.7:  # otherwise its worker is killed, and it starts again with what it was allowed
                budget.settle(index, {"tokens": spent[index]}, chance.randint(0, rows[index]))
                del running[index]
    assert sum(spent.values()) <= 1000 + 1e-6
    assert sum(spent.values()) > 300


def test_amounts_are_those_that_the_budget_limits():
    bill = Bill(prices_of((10, 20)))
    bill.add(Usage(100_000, 50_000, 150_000), "m")
    assert amounts_of(Budget(tokens=5), bill) == {"tokens": 150_000}
    assert amounts_of(Budget(cost=5, prices=(10, 20)), bill) == {"cost": pytest.approx(2.0)}
    assert amounts_of(Budget(tokens=1, cost=5, prices=(10, 20)), Bill(None)) == {"tokens": 0, "cost": 0}


class TestProgress:
    def facts(self, shard, attempt, succeeded, failed=0, done_before=0, tokens=0, cost=None):
        return {
            "shard": shard,
            "attempt": attempt,
            "succeeded": succeeded,
            "failed": failed,
            "done_before": done_before,
            "tokens": tokens,
            "cost": cost,
        }

    def test_a_function_hears_of_the_rows_of_all_shards(self):
        heard = []
        with ShardProgress(heard.append, 300) as progress:
            progress.update(self.facts(0, 1, 40, 10, tokens=500, cost=0.5))
            progress.update(self.facts(1, 2, 70, done_before=60, tokens=100))
        assert [facts["succeeded"] for facts in heard[:1]] == [0]
        last = heard[-1]
        del last["elapsed"]
        assert last == {
            "total": 300,
            "succeeded": 110,
            "failed": 10,
            "done_before": 60,
            "tokens": 600,
            "cost": 0.5,
        }

    def test_a_shard_that_starts_again_counts_once_and_its_tokens_twice(self):
        progress = ShardProgress(False, 100)
        progress.update(self.facts(0, 1, 50, tokens=300))
        progress.update(self.facts(0, 1, 46, done_before=45, tokens=6))  # the same task, on another worker
        progress.update(self.facts(0, 2, 100, done_before=60, tokens=240))
        facts = progress.facts()
        assert (facts["succeeded"], facts["tokens"]) == (100, 300 + 6 + 240)

    def test_a_task_that_was_given_up_is_not_heard_any_more(self):
        progress = ShardProgress(False, 100)
        progress.update(self.facts(0, 2, 50, tokens=300))
        progress.update(self.facts(0, 1, 80, tokens=900))
        assert progress.facts()["succeeded"] == 50

    def test_the_bar_has_all_rows_and_tells_those_that_had_ended_before(self, capsys):
        with ShardProgress({"mininterval": 0}, 100) as progress:
            progress.update(self.facts(0, 1, 30, 5, done_before=20))
            progress.update(self.facts(1, 2, 65))
        assert "100/100" in capsys.readouterr().err.splitlines()[-1]
        assert progress.facts()["done_before"] == 20

    def test_bad_progress_is_refused(self):
        with pytest.raises(TypeError, match="progress"):
            ShardProgress("yes", 100)
