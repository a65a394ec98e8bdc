"""Checks of the profiler that take no time, and one that takes seconds."""

from importlib import import_module
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "benchmarks" / "profiler_checks"


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKS))
    return import_module


def test_a_stalling_server_shows_in_an_open_loop_and_hides_in_a_closed_one(check):
    found = check("p07_open_loop").check(quick=True)
    assert found["passed"] and found["open_p99_ms"] > 400
    assert found["closed_p99_ms"] == 10 and found["closed_loop_hides_it"]


@pytest.mark.slow
def test_a_killed_run_leaves_a_whole_file_and_no_process(check):
    p11 = check("p11_kill")
    assert p11.right(p11.killed_after(0.5))
