"""Candidates that get slower as they get hot, on a clock that only they move."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from mmedge.errors import UsageError
from mmedge.profiling.load.soak import soak, sustained
from mmedge.profiling.messages import Answered
from mmedge.profiling.run import Host, Minute


class Board:
    """It has 40 degrees, gains 5 a minute, and halves its clock from 60 on; one answer takes 1 s at full clock."""

    def __init__(self, candidates: int) -> None:
        self.now = 0
        self.turns: list[int] = []
        self.awake = [self._awake(c) for c in range(candidates)]

    @property
    def celsius(self) -> float:
        return 40 + self.now / 12e9

    def look(self) -> Host:
        hot = self.celsius >= 60
        return Host(0, self.now, celsius=self.celsius, mhz=1000.0 if hot else 2000.0, throttled=hot)

    def _awake(self, c: int):
        def ask(which: int) -> Answered:
            took = 2_000_000_000 if self.celsius >= 60 else 1_000_000_000
            start, self.now = self.now, self.now + took
            return Answered("a", (), start, took, {}, ())

        @contextmanager
        def awake():
            self.turns.append(c)
            yield ask

        return awake


def soaked(candidates: int, minutes: float, **more) -> tuple[Board, list[Minute]]:
    board = Board(candidates)
    return board, soak(board.awake, 3, minutes * 60, board.look, clock=lambda: board.now, **more)


def test_candidates_take_turns_by_the_minute():
    board, minutes = soaked(2, 6)
    assert board.turns == [0, 1, 0, 1, 0, 1]
    assert [(minute.c, minute.minute, minute.answers) for minute in minutes[:2]] == [(0, 0, 60), (1, 1, 60)]


def test_a_board_that_throttles_shows_in_the_last_minute():
    _, minutes = soaked(2, 20)
    for found in sustained(minutes):
        assert found.throughput == 0.5 and found.throttled is True
        assert (found.celsius, found.mhz) == (pytest.approx(90), -1000)
        assert (found.first.median_ms, found.last.median_ms) == (1000, 2000)


def test_how_warm_a_minute_begins_is_told():
    """Whoever comes second begins where the first one ended."""
    _, minutes = soaked(2, 6)
    assert [minute.celsius_before for minute in minutes[:3]] == [40, 45, 50]
    assert [minute.celsius for minute in minutes[:3]] == [45, 50, 55]


def test_what_a_machine_does_not_tell_is_null():
    board = Board(1)
    minutes = soak(board.awake, 3, 120, lambda: Host(0, board.now), clock=lambda: board.now)
    [found] = sustained(minutes)
    assert (found.celsius, found.mhz, found.throttled) == (None, None, None)


def test_every_answer_is_kept():
    told = []
    soaked(2, 4, keep=lambda c, minute, which, answered: told.append((c, minute, which)))
    assert len(told) == 240 and told[60] == (1, 1, 0) and told[61] == (1, 1, 1)


def test_a_minute_has_at_least_one_answer():
    _, minutes = soaked(1, 4, minute_s=0.001)
    assert all(minute.answers == 1 for minute in minutes[:100])


@pytest.mark.parametrize("minutes", [0.5, 2, 4.9])
def test_too_short_a_soak_is_refused(minutes):
    with pytest.raises(UsageError, match="too few for a first and a last one") as error:
        soaked(3, minutes - 0.5)
    assert error.value.hint.startswith("at least 6 minutes for 3 candidates")
