"""What the pacing benchmark makes of its measurements."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.contenders import CONTENDERS, RIVALS
from benchmarks.pacing.live import Trial, measure_live, run
from benchmarks.pacing.live import trials as live_trials
from benchmarks.pacing.live_client import _CLIENTS
from benchmarks.pacing.plot import draw, write_plots
from benchmarks.pacing.report import pacing_tables
from benchmarks.pacing.scenarios import SCENARIOS, tokens_of
from benchmarks.pacing.servers import Bucket, Cap, FixedWindow, Shaper, SlidingWindow, stated
from benchmarks.pacing.simulation import ideal
from benchmarks.pacing.sweep import TARGETS, quantile
from benchmarks.pacing.worlds import KINDS, random_scene


def live(scenario="A", wall=19.6, **other):
    sample = {"what": "live", "round": 0, "scenario": scenario, "client": "chatpool", "hint": "exact", "headers": False}
    counted = {"ideal": 19.0, "calls": 1000, "refused": 30, "wall": wall, "cpu": 1.0, "lost": 0}
    return {**sample, **counted, **other}


def sweep(kind="rate", over=(1.0, 1.0, 1.2), lost=0):
    found = {"over": list(over), "refused": [0.0] * len(over), "lost": lost}
    return {"what": "sweep", "round": 0, "kind": kind, "seeds": "s", **found}


def test_ideal_times_are_what_the_limits_allow():
    assert SCENARIOS["A"].ideal() == pytest.approx(19.05, abs=0.01)
    assert SCENARIOS["B"].ideal() == pytest.approx(25.05, abs=0.01)
    assert SCENARIOS["C"].ideal() == pytest.approx(20.0, abs=0.01)
    assert SCENARIOS["D"].ideal() == pytest.approx(20.05, abs=0.01)
    assert SCENARIOS["E"].ideal() == pytest.approx(20.05, abs=0.01)


def test_somebody_who_lets_no_minute_exceed_the_limit_takes_longer():
    assert SCENARIOS["A"].ideal_within_windows() == pytest.approx(0.05 + 950 / (2951 / 60), abs=0.05)
    assert SCENARIOS["E"].ideal_within_windows() == pytest.approx(0.05 + 1580 / (1181 / 60), abs=0.05)


def test_calls_are_of_very_different_size_and_always_the_same():
    sizes = tokens_of(600)
    assert sizes == tokens_of(600)
    assert max(sizes) > 20 * min(sizes)


class TestServers:
    def test_a_bucket_changes_its_rate_when_it_is_time(self):
        bucket = Bucket(10, 1, [(5.0, 1.0)])
        bucket.free_in(4.95, 0, 1)
        bucket.accept(4.95, 1)
        assert bucket.free_in(4.95, 0, 1) == pytest.approx(0.1)
        assert bucket.free_in(5.0, 0, 1) == pytest.approx(0.5)

    def test_a_window_that_is_fixed_begins_anew_at_once(self):
        window = FixedWindow(2, 10.0)
        for _ in range(2):
            assert window.free_in(9.0, 0, 1) == 0
            window.accept(9.0, 1)
        assert window.free_in(9.0, 0, 1) == pytest.approx(1.0)
        assert window.free_in(10.0, 0, 1) == 0

    def test_a_window_that_slides_frees_one_after_the_other(self):
        window = SlidingWindow(2, 10.0)
        window.accept(0.0, 1)
        window.accept(4.0, 1)
        assert window.free_in(5.0, 0, 1) == pytest.approx(5.0)
        assert window.free_in(10.0, 0, 1) == 0

    def test_a_cap_frees_when_something_ends(self):
        assert Cap(2).free_in(0.0, 1, 1) == 0
        assert Cap(2).free_in(0.0, 2, 1) == float("inf")

    def test_hints_are_exact_or_whole_seconds_or_none(self):
        assert stated("exact", 0.4, 9.0) == 0.4
        assert stated("whole", 0.4, 9.0) == 1.0
        assert stated("exact", float("inf"), 9.0) == 9.0
        assert stated(None, 0.4, 9.0) is None


class TestRandomServers:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_kind_has_a_target_and_always_the_same_servers(self, kind):
        assert TARGETS[kind].median <= TARGETS[kind].nearly_all
        scene = random_scene(kind, 7)
        assert random_scene(kind, 7).description == scene.description
        assert scene.description.startswith(f"{kind} #7: ")
        assert scene.client(None).calls == scene.calls

    def test_the_largest_call_fits_into_the_burst_of_a_limit_of_tokens(self):
        for seed in range(20):
            scene = random_scene("tokens", seed)
            draw = random.Random(seed)
            assert max(scene.weight(draw) for _ in range(1000)) < scene.world.server().burst

    def test_a_queue_makes_calls_wait_for_longer_than_they_are_waited_for(self):
        for seed in range(20):
            scene = random_scene("queue until given up", seed)
            draw = random.Random(seed)
            service = sum(scene.world.service(draw) for _ in range(200)) / 200
            assert service < scene.world.gives_up / 2
            assert scene.workers / scene.world.slots * service > 0.8 * scene.world.gives_up

    def test_the_ideal_knows_nothing_of_rejections_at_random(self):
        scene = random_scene("random refusals", 3)
        without = replace(scene.world, chance=0.0)
        assert ideal(scene.world, scene.client(None), 3) == ideal(without, scene.client(None), 3)

    def test_a_shaper_holds_back_what_comes_too_early_and_rejects_the_rest(self):
        shaper = Shaper(5, 2)
        assert [shaper.accept(0.0, 1) for _ in range(3)] == pytest.approx([0.0, 0.2, 0.4])
        assert shaper.free_in(0.0, 3, 1) == pytest.approx(0.2)


class TestTrials:
    def test_each_rival_is_tried_once_on_each_of_the_six_servers(self):
        tried = live_trials(quick=False)
        for name in RIVALS:
            found = [trial for trial in tried if trial.client == CONTENDERS[name].title]
            assert [(trial.scenario, trial.rounds, trial.hint) for trial in found] == [
                (s, 1, "exact") for s in "ABCDEF"
            ]

    def test_the_order_of_the_report_begins_with_chatpool(self, monkeypatch):
        monkeypatch.setattr("benchmarks.pacing.live.run", lambda trial: {"client": trial.client})
        monkeypatch.setattr("benchmarks.pacing.live.installed", list)
        monkeypatch.setattr("benchmarks.pacing.live.APART", 0.0)
        first, *_, last = dict.fromkeys(sample["client"] for sample in measure_live(quick=False))
        assert (first, last) == ("chatpool", CONTENDERS["async-batch-llm, patient"].title)

    def test_a_client_that_is_not_done_in_time_is_ended_and_has_lost_what_the_server_did_not_accept(self, monkeypatch):
        monkeypatch.setattr("benchmarks.pacing.live.run_capped", lambda *_: {})
        sample = run(Trial("B"), cap=3.0)
        assert (sample["wall"], sample["lost"], sample["ended"]) == (3.0, 250, False)

    def test_every_client_has_its_code(self):
        assert {trial.client for trial in live_trials(quick=False)} <= set(_CLIENTS)


class TestReport:
    def test_a_bound_that_is_kept(self):
        bounds, _, _ = pacing_tables([live(wall=19.1), sweep()])
        assert [row[-1] for row in bounds.rows] == ["yes"] * len(bounds.rows)

    def test_a_bound_that_is_not(self):
        bounds, _, _ = pacing_tables([live(wall=30.0, lost=1), sweep(over=(1.0, 5.0, 6.0), lost=2)])
        broken = [row[0] for row in bounds.rows if row[-1] != "yes"]
        assert len(broken) == 5

    def test_each_way_of_saying_something_has_its_row(self):
        samples = [live(), live(hint=None), live(hint="whole"), live(headers=True), live(client="another")]
        _, sockets, _ = pacing_tables(samples)
        assert [row[2] for row in sockets.rows] == ["exact", "none", "whole seconds", "in headers", "exact"]

    def test_two_pools_are_compared_with_each_other(self):
        bounds, sockets, _ = pacing_tables([live(), live(pools=2, walls=[19.0, 26.6])])
        assert [row[2:] for row in bounds.rows if "two pools" in row[0]] == [["1.40 (1.40 - 1.40)", "**no**"]]
        assert len(sockets.rows) == 1

    def test_a_share_of_values(self):
        assert quantile([3, 1, 2], 0.5) == 2
        assert quantile([3, 1, 2], 1.0) == 3


class TestPlot:
    TIMELINE = {"accepted": [50, 25, 25, 24], "refused": [6, 1, 0, 1]}

    def test_it_is_a_drawing_with_a_bar_for_each_count(self):
        drawing = draw("50/s", self.TIMELINE)
        assert drawing.count("<rect") == 7
        assert drawing.startswith("<svg")
        assert drawing.endswith("</svg>\n")

    def test_one_is_written_per_server(self, tmp_path):
        samples = [live(timeline=self.TIMELINE), live("D", timeline=self.TIMELINE), live("D"), live("E")]
        assert [path.name for path in write_plots(samples, tmp_path)] == ["pacing-A.svg", "pacing-D.svg"]
