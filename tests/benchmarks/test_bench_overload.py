"""The benchmark of overload: its table, its servers' configurations, and the model behind them."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

from benchmarks.answer import TEXT
from benchmarks.contenders import CONTENDERS
from benchmarks.overload.fronts import FRONTS, Gateway, Haproxy, Nginx, config, running
from benchmarks.overload.trials import CAP, CHATPOOL, ROWS, counted, measure_trials, trials
from benchmarks.registry import chosen
from chatpool import ChatPool


@pytest.fixture
def gateway():
    """``gateway(share, hint)`` starts one whose model takes no time; a context manager."""
    return lambda share=0.0, hint="": running(Gateway(share, hint), latency=0.0)


def sample(row="limit_req", contender=CHATPOOL, workers=16, wall=20.0, **changed):
    calls = ROWS[row].calls
    usual = {"round": 0, "calls": calls, "answered": calls, "lost": 0, "refused": 10, "ended": True}
    return {**usual, "row": row, "contender": contender, "workers": workers, "wall": wall, **changed}


def tables(*samples):
    return chosen(["overload"])[0].tables(samples)


def test_the_time_behind_a_limiter_is_taken_over_the_ideal():
    bounds, rows = tables(sample(wall=19.4), sample(wall=38.8, round=1))
    assert rows.rows[0][-1] == "1.50 (1.00 - 2.00)"
    assert bounds.rows[0][1:] == ["at most 1.15", "1.50 (1.00 - 2.00)", "**no**"]


def test_the_time_of_random_refusals_is_taken_over_the_same_clients_run_without_in_the_same_round():
    slow = [sample("random-30", wall=12.0), sample("random-30", wall=30.0, round=1)]
    base = [sample("open", wall=4.0), sample("open", wall=6.0, round=1), sample("open", "openai", wall=1.0)]
    bounds, rows = tables(*slow, *base)
    assert [row[0] for row in rows.rows] == ["no refusals"] * 2 + [ROWS["random-30"].title]
    assert [row[-1] for row in rows.rows] == ["-", "-", "4.00 (3.00 - 5.00)"]
    assert bounds.rows[0][1:] == ["at most 3", "4.00 (3.00 - 5.00)", "**no**"]


def test_refusals_are_shown_as_their_mean_and_per_call():
    bounds, rows = tables(sample(refused=50), sample(refused=101, round=1), sample(refused=101, round=2))
    assert rows.rows[0][5:7] == ["84", "0.84"]
    assert bounds.rows[1][1:] == ["at most 100", "101 (50 - 101)", "**no**"]


def test_what_is_lost_in_any_run_breaks_the_last_bound():
    bounds, _ = tables(sample(), sample("queue", lost=2, answered=198), sample(contender="openai", lost=7))
    assert bounds.rows[-1] == ["calls lost in a round", "at most 0", "2 (2 - 2)", "**no**"]


def test_clients_other_than_chatpool_have_rows_and_no_bounds():
    bounds, rows = tables(sample(contender="openai"), sample())
    assert [row[3] for row in rows.rows] == [CONTENDERS[CHATPOOL].title, "openai SDK in threads, 8 retries"]
    assert len(bounds.rows) == 3


def test_a_row_without_its_base_is_shown_without_a_ratio():
    _, rows = tables(sample("random-15"))
    assert rows.rows[0][-1] == "-"


def test_rows_name_a_front_a_base_and_contenders_that_there_are():
    for row in ROWS.values():
        assert row.front in FRONTS
        assert not row.base or ROWS[row.base].calls == row.calls
        assert set(row.others) <= set(CONTENDERS)


def test_a_base_is_measured_for_every_client_whose_time_is_taken_against_it():
    first = {(trial.row, trial.contender, trial.workers) for trial in trials(0, quick=False)}
    for key, contender, workers in first:
        base = ROWS[key].base
        assert not base or (base, contender, workers) in first
    assert {trial.contender for trial in trials(1, quick=False)} == {CHATPOOL}


def test_every_trial_is_made_once_and_reported_in_order(monkeypatch):
    made = []

    def run(trial):
        made.append(trial)
        return trial._asdict(), []

    monkeypatch.setattr("benchmarks.overload.trials.run", run)
    monkeypatch.setattr("benchmarks.overload.trials.installed", list)
    monkeypatch.setattr("benchmarks.overload.trials.APART", 0.0)
    samples = measure_trials(quick=False)
    expected = [{"round": turn, **trial._asdict()} for turn in range(2) for trial in trials(turn, quick=False)]
    assert samples == expected
    assert len(made) == len(expected)


def test_what_is_not_installed_is_not_tried(monkeypatch):
    monkeypatch.setattr("benchmarks.overload.trials.run", lambda trial: ({"contender": trial.contender}, []))
    monkeypatch.setattr("benchmarks.overload.trials.installed", lambda names: ["requests"])
    assert {sample["contender"] for sample in measure_trials(quick=False)} == {CHATPOOL, "requests"}


def test_what_a_client_that_was_ended_has_no_answer_for_is_lost():
    said = [(0.0, 200), (0.1, 503), (0.2, 429), (0.3, 200)]
    assert counted(10, said, {}, CAP) == {"wall": CAP, "answered": 2, "lost": 8, "refused": 2}
    assert counted(10, said, {"wall": 3.0, "lost": 1}, CAP) == {"wall": 3.0, "answered": 9, "lost": 1, "refused": 2}


@pytest.mark.parametrize("name", [name for name, front in FRONTS.items() if not isinstance(front, Gateway)])
def test_a_configuration_has_its_limit_and_its_ports(name, tmp_path):
    front = FRONTS[name]
    text = config(front, tmp_path, 8001, 8002)
    assert all(part in text for part in front)
    assert "127.0.0.1:8001" in text
    assert "127.0.0.1:8002" in text
    assert text.count("{") == text.count("}")


def test_the_status_is_the_servers_default_unless_the_name_says_another():
    for name, front in FRONTS.items():
        if isinstance(front, (Nginx, Haproxy)):
            assert ("429" in " ".join(front)) is name.endswith("-429")


def test_the_model_answers_streams_and_embeds(gateway):
    with gateway() as front, ChatPool("m", base_url=front.base_url) as pool:
        assert pool.chat("ping").text == TEXT
        with pool.stream("ping") as stream:
            assert [chunk.text for chunk in stream if chunk.text] == [" word", " word"]
        assert pool.embed(["a", "four"], progress=False) == [[1.0, 0.5], [4.0, 0.5]]
        assert [status for _, status in front.log()] == [200] * 3


def test_the_gateway_refuses_its_share_with_its_hint(gateway):
    with gateway(1.0, "Retry-After: 7") as front:
        address = urlsplit(front.base_url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
        for _ in range(2):  # on one connection
            connection.request("POST", f"{address.path}/chat/completions", json.dumps({"messages": []}))
            response = connection.getresponse()
            assert (response.status, response.headers["retry-after"]) == (429, "7")
            response.read()
        connection.close()
        assert front.refused() == 2
