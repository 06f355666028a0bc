"""Sequential tests on the share of calls that is rejected."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._policy.adaptive.sequential_tests import (
    OVERLIMIT_SHARE,
    BackgroundRate,
    ShareTest,
    SurgeTest,
    possible_share,
)

USUAL, OTHER = 0.1, 0.8
OUTCOMES = st.lists(st.booleans(), max_size=60)  # of each call: whether it was rejected


def rejections(count, share, rng):
    """The numbers of the calls that are rejected, of so many."""
    return [number for number in range(count) if rng.random() < share]


@pytest.mark.parametrize(("share", "possible"), [(0.0, 0.03), (0.03, 0.03), (0.2, 0.2), (0.4, 0.4), (1.0, 0.4)])
def test_what_a_server_may_reject_by_chance_has_bounds(share, possible):
    assert possible_share(share) == possible


class TestShareTest:
    @given(OUTCOMES)
    def test_its_log_odds_are_the_likelihood_ratio_of_what_was_seen(self, outcomes):
        test = ShareTest(USUAL, OTHER, 0)
        for number, rejected in enumerate(outcomes):
            if rejected:
                test.reject(number)
        test.accepted_before(len(outcomes))
        rejected, accepted = outcomes.count(True), outcomes.count(False)
        expected = rejected * math.log(OTHER / USUAL) + accepted * math.log((1 - OTHER) / (1 - USUAL))
        assert test.log_odds == pytest.approx(expected)
        assert (test.seen, test.rejected) == (len(outcomes), rejected)

    @given(OUTCOMES, st.randoms(use_true_random=False), st.lists(st.integers(0, 80), max_size=5))
    def test_the_order_in_which_rejections_come_back_does_not_matter_once_all_are_there(self, outcomes, rng, looks):
        tests = ShareTest(USUAL, OTHER, 0), ShareTest(USUAL, OTHER, 0)
        numbers = [number for number, rejected in enumerate(outcomes) if rejected]
        mixed = rng.sample(numbers, len(numbers))
        for number in numbers:
            tests[0].reject(number)
        for number in mixed:
            tests[1].reject(number)
            for look in looks:  # what is still on its way may have been taken for accepted meanwhile
                tests[1].accepted_before(min(look, len(outcomes)))
        for test in tests:
            test.accepted_before(len(outcomes))
        assert tests[1].log_odds == pytest.approx(tests[0].log_odds)
        assert (tests[1].seen, tests[1].rejected) == (tests[0].seen, tests[0].rejected)

    def test_a_call_is_accepted_as_soon_as_a_later_one_is_rejected(self):
        test = ShareTest(USUAL, OTHER, 0)
        test.reject(9)
        assert (test.seen, test.rejected) == (10, 1)
        assert test.share == 0.1

    def test_calls_count_as_accepted_once_only(self):
        test = ShareTest(USUAL, OTHER, 0)
        for number in (10, 5, 10):
            test.accepted_before(number)
        assert test.seen == 10
        assert test.log_odds == pytest.approx(10 * math.log((1 - OTHER) / (1 - USUAL)))

    def test_calls_before_the_first_do_not_count(self):
        test = ShareTest(USUAL, OTHER, 100)
        test.reject(99)
        test.accepted_before(100)
        assert (test.log_odds, test.seen, test.rejected) == (0.0, 0, 0)
        test.reject(100)
        assert (test.seen, test.rejected) == (1, 1)

    def test_nothing_seen_is_no_share(self):
        assert ShareTest(USUAL, OTHER, 0).share == 0.0

    @pytest.mark.parametrize("seed", range(5))
    def test_it_tells_the_two_shares_apart_after_some_dozen_calls(self, seed):
        for share, sign in ((USUAL, -1), (OTHER, 1)):
            test = ShareTest(USUAL, OTHER, 0)
            for number in rejections(40, share, random.Random(seed)):
                test.reject(number)
            test.accepted_before(40)
            assert sign * test.log_odds > 5


class TestSurgeTest:
    @given(OUTCOMES, st.randoms(use_true_random=False))
    def test_its_log_odds_are_that_of_the_latest_calls_that_speak_most_for_a_surge_in_whatever_order_they_come(
        self, outcomes, rng
    ):
        test, back = SurgeTest(USUAL, OTHER, 0), []
        numbers = [number for number, rejected in enumerate(outcomes) if rejected][-32:]
        for number in rng.sample(numbers, len(numbers)):
            test.reject(number)
            back.append(number)
            best = value = 0.0
            for call in range(max(back), -1, -1):
                value += math.log(OTHER / USUAL) if call in back else math.log((1 - OTHER) / (1 - USUAL))
                best = max(best, value)
            assert test.log_odds == pytest.approx(best)

    @given(OUTCOMES, st.randoms(use_true_random=False))
    def test_its_best_log_odds_are_those_of_any_stretch(self, outcomes, rng):
        test = SurgeTest(USUAL, OTHER, 0)
        numbers = [number for number, rejected in enumerate(outcomes) if rejected][-32:]
        for number in rng.sample(numbers, len(numbers)):
            test.reject(number)
        steps = [
            math.log(OTHER / USUAL) if n in numbers else math.log((1 - OTHER) / (1 - USUAL))
            for n in range(len(outcomes))
        ]
        stretches = [sum(steps[start:end]) for start in range(len(steps)) for end in range(start + 1, len(steps) + 1)]
        in_sight = [sum(steps[start:end]) for start in numbers for end in range(start + 1, len(steps) + 1)]
        assert test.best_log_odds == pytest.approx(max(in_sight, default=0.0))
        assert test.log_odds - 1e-9 <= test.best_log_odds <= max([0.0, *stretches]) + 1e-9

    def test_calls_in_flight_after_a_surge_do_not_hide_it_from_the_best(self):
        test = SurgeTest(USUAL, OTHER, 0)
        for number in (*range(9), 60):  # those between are not back yet
            test.reject(number)
        assert test.log_odds == pytest.approx(math.log(OTHER / USUAL))
        assert test.best_log_odds == pytest.approx(9 * math.log(OTHER / USUAL))

    def test_what_was_accepted_long_ago_does_not_hide_a_surge(self):
        patient, alert = ShareTest(USUAL, OTHER, 0), SurgeTest(USUAL, OTHER, 0)
        for test in (patient, alert):
            for number in range(10_000, 10_005):
                test.reject(number)
        assert alert.log_odds == pytest.approx(5 * math.log(OTHER / USUAL))
        assert patient.log_odds < 0

    def test_what_was_rejected_long_ago_is_no_part_of_one(self):
        test = SurgeTest(USUAL, OTHER, 0)
        for number in (*range(3), 10_000):
            test.reject(number)
        assert test.log_odds == pytest.approx(math.log(OTHER / USUAL))

    @pytest.mark.parametrize("jitter", [0, 10, 60])
    def test_rejections_at_random_that_overtake_each_other_are_none(self, jitter):
        rng, surges = random.Random(5), 0
        test = SurgeTest(0.2, 0.8, 0)
        for number in sorted(rejections(20_000, 0.2, rng), key=lambda number: number + jitter * rng.random()):
            test.reject(number)
            if test.log_odds >= 8:
                surges += 1
                test.restart()
        assert surges <= 4  # one in thousands of calls

    def test_it_counts_what_it_has_seen_from_its_first_call_on(self):
        test = SurgeTest(USUAL, OTHER, 100)
        test.reject(99)
        assert (test.seen, test.rejected) == (0, 0)
        test.reject(104)
        test.reject(102)
        assert (test.seen, test.rejected) == (5, 2)
        test.accepted_before(110)
        test.accepted_before(105)
        assert test.share == 0.2

    def test_a_new_start_forgets_all_that_was_sent_until_then(self):
        test = SurgeTest(USUAL, OTHER, 0)
        for number in range(5):
            test.reject(number)
        test.restart()
        test.reject(4)
        assert (test.log_odds, test.seen, test.rejected) == (0.0, 0, 0)
        test.reject(5)
        assert test.log_odds == pytest.approx(math.log(OTHER / USUAL))

    def test_it_remembers_a_few_dozen_rejections_however_many_there_are(self):
        test = SurgeTest(USUAL, OTHER, 0)
        for number in range(1000):
            test.reject(number)
        assert test.log_odds == pytest.approx(32 * math.log(OTHER / USUAL))
        assert test.rejected == 1000


class TestBackground:
    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
    def test_nearly_all_rejections_at_the_known_share_are_explained(self, share):
        background = BackgroundRate(share, 0)
        numbers = rejections(5000, share, random.Random(3))
        unexplained = sum(not background.explains(number) for number in numbers)
        assert unexplained <= 0.2 * len(numbers)

    @pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
    def test_when_most_calls_are_rejected_it_is_noticed_within_a_dozen_and_again_and_again(self, share):
        background = BackgroundRate(share, 0)
        overloaded = [background.explains(number) for number in rejections(100, OVERLIMIT_SHARE, random.Random(3))]
        assert False in overloaded[:12]
        assert overloaded.count(False) >= 4

    def test_what_was_rejected_before_it_began_is_explained(self):
        background = BackgroundRate(0.1, 1000)
        assert all(background.explains(number) for number in range(100))

    def test_where_less_is_rejected_than_was_thought_the_share_falls_and_what_is_more_stands_out(self):
        background, other = BackgroundRate(0.4, 0), BackgroundRate(0.4, 2000)
        assert all(background.explains(number) for number in range(0, 2000, 20))
        every_third = range(2000, 2300, 3)
        assert all(other.explains(number) for number in every_third)
        assert not all(background.explains(number) for number in every_third)

    def test_after_few_rejections_by_luck_it_rises_again(self):
        background = BackgroundRate(0.3, 0)
        numbers = [*range(0, 1000, 50), *(1000 + number for number in rejections(3000, 0.3, random.Random(3)))]
        unexplained = sum(not background.explains(number) for number in numbers)
        assert unexplained <= 0.2 * len(numbers)

    def test_it_never_rises_beyond_what_was_given_so_that_a_limit_is_not_learned_as_chance(self):
        background = BackgroundRate(0.1, 0)
        early, late = [
            sum(not background.explains(begin + number) for number in rejections(1000, 0.5, random.Random(3)))
            for begin in (0, 1000)
        ]
        assert late > 0.7 * early > 10

    def test_the_share_it_was_given_stays_known(self):
        background = BackgroundRate(0.4, 0)
        for number in rejections(2000, 0.05, random.Random(3)):
            background.explains(number)
        assert background.share == 0.4
