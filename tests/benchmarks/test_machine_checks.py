"""The profiler's own checks of what it tells of machines, at their smallest."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from mmedge.profiling.run import Memory

CHECKS = Path(__file__).parents[2] / "benchmarks/profiler_checks"


def loaded(name: str) -> ModuleType:
    spec = spec_from_file_location(name, CHECKS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["p09_idle", "p13_sensors"])
def test_the_check_passes(name):
    found = loaded(name).check(quick=True)
    assert found["passed"], json.dumps(found)


def test_the_sum_of_both_parts_may_change_by_the_libraries_that_are_shared_and_no_more():
    check, mib = loaded("p06_memory"), 1 << 20
    rows = {}
    for kind in check.STAGES:
        rows["before " + kind] = Memory(0, kind, 14 * mib, 10 * mib, 4 * mib, 30 * mib)
        rows[kind] = Memory(0, kind, 78 * mib, 74 * mib, 68 * mib, 94 * mib)
    assert all(each["passed"] for each in check.errors_of(rows, 64 * mib))
    for more, passed in ((21, True), (23, False)):
        rows["anon"] = Memory(0, "anon", (78 + more) * mib, 74 * mib, 4 * mib, 94 * mib)
        (found,) = [e for e in check.errors_of(rows, 64 * mib) if (e["kind"], e["field"]) == ("anon", "pss")]
        assert found["passed"] is passed and found["bound_mib"] == 22
