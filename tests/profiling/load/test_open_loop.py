"""Servers on a clock that moves only when they answer or their client sleeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from mmedge.profiling.load.open_loop import PATIENCE, Request, evenly, poisson, served
from mmedge.profiling.messages import Answered

MS = 1_000_000


class Machine:
    """A server that takes ``ms`` for an answer, its first token half-way, and stalls now and then."""

    def __init__(
        self, ms: float | Callable[[int], float] = 10.0, stall_ms: float = 0.0, every_ms: float = 1e12
    ) -> None:
        self.now = 0
        self.ms = ms if callable(ms) else lambda _: ms
        self.stall, self.every = int(stall_ms * MS), int(every_ms * MS)
        self.asked: list[int] = []

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def ask(self, which: int) -> Answered:
        self.asked.append(which)
        start, took = self.now, round(self.ms(which) * MS)
        if self.now % self.every < self.stall:
            took += self.stall - self.now % self.every
        self.now += took
        return Answered("a", (1,), start, took, {"encode": took}, (took // 2,))


def offered(machine: Machine, rate: float, seconds: float, seed: int) -> list[Request]:
    """What becomes of a Poisson process of ``rate`` arrivals per second."""
    due, patience = poisson(rate, seconds, seed), seconds * PATIENCE
    return served(machine.ask, 5, due, patience, clock=machine.clock, sleep=machine.sleep)


def test_response_times_count_from_when_a_request_was_due():
    machine = Machine(10.0)
    found = served(machine.ask, 3, [0, 0, 4 * MS, 50 * MS], clock=machine.clock, sleep=machine.sleep)
    assert [request.response_ns / MS for request in found] == [10, 20, 26, 10]
    assert [request.first_token_ns / MS for request in found] == [5, 15, 21, 5]
    assert [request.answered.answer_ns / MS for request in found] == [10, 10, 10, 10]
    assert [request.due_ns for request in found] == [0, 0, 4 * MS, 50 * MS]


def test_requests_are_never_made_early_and_inputs_take_turns():
    machine = Machine(1.0)
    found = served(machine.ask, 3, [5 * MS, 6 * MS, 7 * MS, 8 * MS], first=2, clock=machine.clock, sleep=machine.sleep)
    assert all(request.answered.start_ns >= request.due_ns for request in found)
    assert machine.asked == [2, 0, 1, 2]


def test_a_stall_delays_everyone_who_came_meanwhile():
    """A closed loop over the same time sees one slow answer in a thousand, the open one what users would have met."""
    machine = Machine(10.0, stall_ms=500, every_ms=10_000)
    found = offered(machine, 20.0, 600.0, 7)
    responses = sorted(request.response_ns / MS for request in found)
    assert responses[int(len(responses) * 0.99)] > 400
    closed, machine = [], Machine(10.0, stall_ms=500, every_ms=10_000)
    while machine.now < 600e9:
        closed.append(machine.ask(0).answer_ns / MS)
    assert sorted(closed)[int(len(closed) * 0.99)] == 10


def test_who_is_not_served_when_patience_ends_waits_for_ever():
    machine = Machine(100.0)
    found = offered(machine, 50.0, 2.0, 1)
    answered = [request.answered is not None for request in found]
    assert answered == sorted(answered, reverse=True) and 39 <= sum(answered) <= 41 < len(answered)
    assert found[-1].response_ns == found[-1].first_token_ns == math.inf


def test_arrivals_are_the_same_for_the_same_seed():
    assert poisson(20.0, 10.0, 3) == poisson(20.0, 10.0, 3) != poisson(20.0, 10.0, 4)
    assert poisson(20.0, 10.0, 3)[:3] == [13588115, 52876379, 75974594]


def test_arrivals_are_a_poisson_process():
    moments = poisson(50.0, 400.0, 11)
    gaps = [(after - before) / 1e9 for before, after in pairwise(moments)]
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    mean = sum(gaps) / len(gaps)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.05)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.02)


def test_the_mean_wait_is_that_of_a_queue_with_one_server():
    """Poisson arrivals at 60 % of what a server with constant service time can do: Pollaczek and Khinchine."""
    machine = Machine(10.0)
    found = offered(machine, 60.0, 2000.0, 5)
    waits = [request.response_ns / MS - 10 for request in found]
    assert sum(waits) / len(waits) == pytest.approx(10 * 0.6 / (2 * 0.4), rel=0.05)


def test_a_camera_sends_evenly():
    assert evenly(4.0, 1.1) == [0, 250 * MS, 500 * MS, 750 * MS, 1000 * MS]
