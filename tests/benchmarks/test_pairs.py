import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.profiling.run import Cold

ROOT = Path(__file__).parents[2]


def module_at(path: Path):
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return module_at(ROOT / "benchmarks" / "pairs.py")


@pytest.fixture(scope="module")
def run():
    """Two peers, then a bundle that answers in half of the first one's time and a quarter of the second one's."""
    made = module_at(ROOT / "tests" / "profiling" / "made_up_runs.py").made_up_run(
        ("slow peer", "slowest peer", "bundle"), speeds=(1.0, 2.0, 0.5), disturbed=0
    )
    peers = tuple(replace(each, command=() if each.name == "bundle" else ("peer",)) for each in made.candidates)
    starts = tuple(Cold(c, "warm", "none", 0, 0, 0, 0, 1.0, 0.5, 1.5) for _ in range(5) for c in range(len(peers)))
    return replace(made, candidates=peers, cold=starts)


def ratios(script, run, measure):
    return {(row["candidate"], row["peer"]): row for row in script.summary(run)["pairs"] if row["measure"] == measure}


def test_a_bundle_is_beside_every_peer_and_never_beside_the_twin(script, run):
    assert [*ratios(script, run, "ttft_ms")] == [("bundle", "slow peer"), ("bundle", "slowest peer")]


def test_times_are_shares_of_the_others_and_rates_are_multiples(script, run):
    for measure, wanted in (("ttft_ms", (0.5, 0.25)), ("tokens_per_s", (2, 4))):
        found = [*ratios(script, run, measure).values()]
        assert [row["ratio"] for row in found] == pytest.approx(wanted, rel=0.03)
        assert all(row["low"] < row["ratio"] < row["high"] for row in found)


def test_a_start_ends_with_the_first_token_of_the_first_answer(script, run):
    c = 0
    first = next(sample for sample in run.samples if sample.c == c and sample.phase == "warmup")
    starts = script.starts_of(run, c)
    assert len(starts) == 5 and starts[0] == pytest.approx(1000 + first.token_ns[0] / 1e6)
    assert not math.isnan(ratios(script, run, "start_to_first_token_ms")["bundle", "slow peer"]["ratio"])


def test_memory_is_one_value_and_has_no_interval(script, run):
    row = ratios(script, run, "peak_pss")["bundle", "slow peer"]
    assert row["ratio"] == pytest.approx(80 / 200) and "low" not in row


def test_without_a_bundle_the_first_peer_is_what_others_are_beside(script, run):
    everyone = tuple(replace(each, command=("peer",)) for each in run.candidates)
    rows = ratios(script, replace(run, candidates=everyone), "ttft_ms")
    assert [*rows] == [("slowest peer", "slow peer"), ("bundle", "slow peer")]
