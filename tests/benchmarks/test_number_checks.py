"""The profiler's own checks of its numbers, those that need no quiet machine, at their smallest."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "benchmarks/profiler_checks"


def check(name: str) -> dict[str, object]:
    spec = spec_from_file_location(name, CHECKS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check(quick=True)


@pytest.mark.parametrize("name", ["p04_percentiles", "p12_quality"])
def test_the_check_passes(name):
    found = check(name)
    assert found["passed"], json.dumps(found)


@pytest.mark.slow
def test_intervals_hold_what_they_promise():
    found = check("p03_coverage")
    assert found["passed"], json.dumps(found)
