import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("jetson_predictions", BENCHMARKS / "jetson_predictions.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_step_takes_the_longer_of_moving_and_computing_and_its_launches(script):
    step = script.Step({"weights": 60.0, "cache": 4.0}, gflop=20.0, kernels=100)
    assumed = script.Assumption(bandwidth=0.64, arithmetic=0.5, launch_us=2.0, host_us=300.0)
    took = script.predict(step, script.Device(bandwidth_gbs=100.0, tflops=10.0), assumed)
    assert (took.moving, took.computing, took.launching) == pytest.approx((1.0, 4.0, 0.5))
    assert took.whole == pytest.approx(4.5)


def test_the_arithmetic_is_shown_with_the_numbers_it_uses(script):
    step = script.Step({"weights": 60.0, "cache": 4.0}, gflop=20.0, kernels=100)
    shown = script.spelled(step, script.Device(100.0, 10.0), script.Assumption(0.64, 0.5, 2.0, 300.0))
    assert shown == {
        "moving": "(60.0 weights + 4.0 cache) MB / (100 GB/s x 0.64) = 1.00 ms",
        "computing": "20 GFLOP / (10 TFLOPS x 0.5) = 4.00 ms",
        "launching": "100 x 2.0 us + 300.0 us = 0.50 ms",
        "whole": "max(moving, computing) + launching = 4.50 ms",
    }


def test_sizes_of_published_models_are_theirs(script):
    """Weights as their makers count them: 0.44 and 1.4 billion without embeddings; 86 million of ViT-B/16."""
    assert script.QWEN3_600M.block_weights == pytest.approx(0.44e9, rel=0.01)
    assert script.QWEN3_2B.block_weights == pytest.approx(1.41e9, rel=0.01)
    vision = script.looking(197)
    assert vision.megabytes["weights"] / script.HALF == pytest.approx(85, rel=0.01)
    assert vision.gflop / 2 == pytest.approx(17.5, rel=0.02)


def test_every_module_has_the_figures_that_predictions_need(script):
    for name in script.MODULES:
        device = script.device_of(script.find.target(name), "int8")
        assert device.bandwidth_gbs > 0 and device.tflops > 0


@pytest.mark.slow
def test_the_smallest_model_is_predicted_from_its_configuration(script):
    steps = script.steps_of("builtin:scenes", None, "jetson-orin-nano", "int8")
    assert [kind for _, kind in steps.values()] == ["int8", "float16", "float16"]
    encode, prefill, token = (step for step, _ in steps.values())
    assert encode.megabytes["weights"] == pytest.approx(1.6, abs=0.1)
    assert prefill.gflop == pytest.approx(script.PROMPT * token.gflop)


def test_published_results_are_predictions_and_fit_a_terminal(script):
    result = json.loads((BENCHMARKS / "results" / "jetson_predictions.json").read_text())
    assert "nothing here was measured" in result["what"]
    lines = list(script.table(result))
    assert max(map(len, lines)) <= 80
    assert "not measured" in lines[0]
