import json
from pathlib import Path

import pytest

from mmedge.core import find

slow = pytest.mark.slow


@pytest.fixture
def small_target(tmp_path) -> Path:
    """A device with memory for next to nothing."""
    own = tmp_path / "small.toml"
    text = (find.PACKAGE / "targets" / "cpu.toml").read_text()
    own.write_text(text.replace("memory_mb = 8192", "memory_mb = 1"))
    return own


@slow
def test_components_and_memory_are_shown(mmedge, checkpoints):
    shown = mmedge("check", checkpoints[0])
    assert (shown.code, shown.err) == (0, "")
    assert all(word in shown.out for word in ("decoder", "GFLOP/run", "to run", "to build"))


@slow
def test_json_tells_the_target_and_the_costs(mmedge, checkpoints):
    found = json.loads(mmedge("check", checkpoints[0], "--json", "--target", "jetson").out)
    assert found["target"]["name"] == "jetson-orin-nano" and found["refused"] is None
    assert {cost["component"] for cost in found["estimate"]["costs"]} >= {"decoder"}


@slow
def test_a_target_that_is_too_small_exits_6_after_the_costs(mmedge, checkpoints, small_target):
    shown = mmedge("check", checkpoints[0], "--target", small_target)
    assert shown.code == 6 and "decoder" in shown.out and "has 1" in shown.err


@slow
def test_a_target_that_is_too_small_is_one_json_object(mmedge, checkpoints, small_target):
    shown = mmedge("check", checkpoints[0], "--target", small_target, "--json")
    assert shown.code == 6 and "has 1" in json.loads(shown.out)["refused"]


@slow
def test_an_unknown_target_is_a_usage_error(mmedge, checkpoints):
    shown = mmedge("check", checkpoints[0], "--target", "jetsom")
    assert shown.code == 2 and "did you mean `jetson`?" in shown.err
