"""Candidates under load, on a clock that moves only when they answer or their client sleeps."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from mmedge.profiling.load.load import Trial, highest_rate, kept, kept_in, under_load
from mmedge.profiling.load.scenario import scenario_of
from mmedge.profiling.messages import Answered

MS = 1_000_000


class Machine:
    """One that candidates of constant speed share."""

    def __init__(self, *ms: float) -> None:
        self.now = 0
        self.ms = ms
        self.turns: list[int] = []
        self.kept: list[tuple[int, int]] = []

    def trial(self, budget_s: float, seed: int = 1) -> Trial:
        return Trial(
            awake=[self._awake(c) for c in range(len(self.ms))],
            service_s=[ms / 1e3 for ms in self.ms],
            inputs=3,
            budget_s=budget_s,
            seed=seed,
            keep=lambda c, load, request: self.kept.append((c, load)),
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def _awake(self, c: int):
        def ask(which: int) -> Answered:
            start, took = self.now, round(self.ms[c] * MS)
            self.now += took
            return Answered("a", (1,), start, took, {"encode": took}, (took // 2,))

        @contextmanager
        def awake():
            self.turns.append(c)
            yield ask

        return awake


def test_candidates_take_turns_in_an_order_and_its_reverse():
    machine = Machine(10.0, 20.0)
    under_load(scenario_of("server:5"), machine.trial(40.0))
    assert machine.turns == [0, 1, 1, 0]


def test_at_the_same_rate_all_have_as_many_requests_and_each_is_kept():
    machine = Machine(10.0, 20.0)
    loads = under_load(scenario_of("server:5"), machine.trial(40.0))
    assert [load.c for load in loads] == [0, 1]
    assert all(load.answered == load.offered == machine.kept.count((load.c, load.c)) for load in loads)
    assert loads[0].offered == pytest.approx(100, abs=35)


def test_goodput_counts_answers_within_the_objective():
    machine = Machine(100.0)
    [load] = under_load(scenario_of("server:20,slo=answer<150"), machine.trial(60.0))
    assert load.slo == "answer_ms<150" and load.held is False
    assert load.goodput < 1 and load.throughput == pytest.approx(10, rel=0.05)
    assert load.answered < load.offered, "twice as many come as can be answered"
    assert load.response_ms["median"] > 1000 and load.service_ms["median"] == 100


def test_the_highest_rate_that_holds_is_found():
    """It is below what could be answered at all, and a little more is known not to hold."""
    machine = Machine(10.0, 40.0)
    loads = under_load(scenario_of("server:slo=answer<100"), machine.trial(6000.0))
    assert [load.c for load in loads] == [0, 1] * 6
    fast, slow = highest_rate(loads, 0), highest_rate(loads, 1)
    assert 65 < fast < 90
    assert 1 < slow < 8, "2.5 service times are used up sooner"
    for c, found in ((0, fast), (1, slow)):
        above = [load for load in loads if load.c == c and load.rate > found]
        assert above and not any(load.held for load in above)
        assert min(load.rate for load in above) < 1.5 * found


def test_too_few_requests_say_nothing_about_the_rate():
    machine = Machine(10.0)
    loads = under_load(scenario_of("server:slo=answer<1000"), machine.trial(6.0))
    assert all(load.held is None for load in loads) and highest_rate(loads, 0) is None
    assert all("p99" not in load.response_ms for load in loads)


@pytest.mark.parametrize(("count", "slow", "verdict"), [(0, 0, None), (458, 0, None), (459, 0, True), (459, 1, None)])
def test_99_of_100_must_be_known_to_be_in_time(count, slow, verdict):
    assert kept(count, slow) is verdict


@pytest.mark.parametrize(
    ("count", "slow", "verdict"), [(662, 1, True), (662, 13, None), (662, 14, False), (2, 2, False)]
)
def test_and_known_not_to_be(count, slow, verdict):
    assert kept(count, slow) is verdict


@pytest.mark.parametrize(
    ("blocks", "verdict"),
    [
        ([(331, 1), (331, 0)], True),
        ([(331, 7), (331, 7)], False),
        ([(331, 14), (331, 0)], None),
        ([(331, 0), (0, 0), (331, 0)], True),
        ([(600, 0), (40, 1)], None),
        ([(0, 0)], None),
    ],
)
def test_both_blocks_of_time_must_say_so(blocks, verdict):
    """One stall makes many requests slow that wait behind each other."""
    assert kept_in(blocks) is verdict


def test_offline_all_come_at_once():
    machine = Machine(10.0)
    [load] = under_load(scenario_of("offline"), machine.trial(20.0))
    assert (load.rate, load.offered, load.answered) == (0.0, 2000, 2000)
    assert load.throughput == pytest.approx(100)
    assert load.response_ms["max"] == pytest.approx(10_000), "the last of a block waits for all others"


def test_a_stream_comes_evenly():
    machine = Machine(10.0)
    [load] = under_load(scenario_of("stream:25"), machine.trial(8.0))
    assert load.offered == 200 and load.response_ms == load.service_ms
    assert load.service_ms["p99"] == 10 if "p99" in load.service_ms else load.service_ms["p95"] == 10


def test_without_rate_and_objective_several_shares_of_what_is_possible_are_tried():
    machine = Machine(10.0, 50.0)
    loads = under_load(scenario_of("server"), machine.trial(300.0))
    assert [load.rate for load in loads] == [20, 4, 40, 8, 60, 12, 80, 16, 90, 18]
    waits = [load.response_ms["p90"] for load in loads if load.c == 0]
    assert waits[0] < waits[1] < waits[2] < waits[3], "the more come, the longer they wait"


def test_the_same_seed_gives_the_same_load():
    first, again, other = (under_load(scenario_of("server:30"), Machine(10.0).trial(20.0, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_with_little_time_fewer_rates_are_tried():
    machine = Machine(10.0)
    assert len(under_load(scenario_of("server:slo=answer<100"), machine.trial(30.0))) == 3
    assert len(under_load(scenario_of("server:slo=answer<100"), machine.trial(60.0))) == 4
