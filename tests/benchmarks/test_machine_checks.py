"""The profiler's own checks of what it tells of machines, at their smallest."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "benchmarks/profiler_checks"


@pytest.mark.parametrize("name", ["p09_idle", "p13_sensors"])
def test_the_check_passes(name):
    spec = spec_from_file_location(name, CHECKS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.check(quick=True)
    assert found["passed"], json.dumps(found)
