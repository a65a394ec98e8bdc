"""The profiler's own checks of its numbers, those that need no quiet machine, at their smallest."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

CHECKS = Path(__file__).parents[2] / "benchmarks/profiler_checks"


def loaded(name: str) -> ModuleType:
    spec = spec_from_file_location(name, CHECKS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(name: str) -> dict[str, object]:
    return loaded(name).check(quick=True)


@pytest.mark.parametrize("name", ["p04_percentiles", "p12_quality"])
def test_the_check_passes(name):
    found = check(name)
    assert found["passed"], json.dumps(found)


def test_seeing_a_difference_and_calling_it_are_told_beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(CHECKS)
    module = loaded("p02_power")
    told = {name: {"seen": 0.97, "slower_than_the_margin": 0.12} for name in ("5%", "3%", "1%")}
    assert module.headline(told)[0] == "+5%: interval leaves out 1 in 97%, called slower in 12%"


@pytest.mark.slow
def test_intervals_hold_what_they_promise():
    found = check("p03_coverage")
    assert found["passed"], json.dumps(found)
