import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.profiling.run import Absolute, Ratio, Results

ROOT = Path(__file__).parents[2]


def module_at(path: Path):
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return module_at(ROOT / "benchmarks" / "readme_numbers.py")


@pytest.fixture
def results(tmp_path):
    exports = {"float16": {"seconds": 494.2, "peak_mb": 4600.0}, "int8": {"seconds": 386.0, "peak_mb": 4096.0}}
    (tmp_path / "export_jetson.json").write_text(json.dumps({"exports": exports}))
    return tmp_path


TABLE = """\
| | float16 | int8 |
| --- | --- | --- |
| time | 494 s | 386 s |
| peak memory | 4.8 GB | 4.3 GB |
"""


def test_tables_between_markers_are_made_anew_and_the_rest_stays(script, results):
    text = "before\n<!-- measured: jetson_export -->\nold\n<!-- end -->\nafter\n"
    wanted = f"before\n<!-- measured: jetson_export -->\n{TABLE}<!-- end -->\nafter\n"
    assert script.filled(text, results) == wanted == script.filled(wanted, results)


@pytest.mark.parametrize("text", ["<!-- measured: nothing -->\n<!-- end -->\n", "<!-- measured: install -->\n"])
def test_unknown_and_open_markers_are_refused(script, results, text):
    with pytest.raises(SystemExit):
        script.filled(text, results)


def test_the_readme_says_what_the_results_say(script):
    text = script.README.read_text()
    assert script.filled(text) == text, "run `python benchmarks/readme_numbers.py`"


def test_ratios_have_their_intervals_and_what_was_not_measured_a_dash(script):
    run = module_at(ROOT / "tests" / "profiling" / "made_up_runs.py").made_up_run(("a", "b"), finished=False)
    medians = (
        Absolute(0, "answer_ms", "median", 1234.5, 1200, 1300, 30),
        Absolute(0, "tpot_ms", "median", 8.1234, 8, 9, 9),
    )
    peak = Absolute(1, "peak_pss", "value", 5e8, None, None, 1)
    ratio = Ratio(1, 0, "answer_ms", 0.5, 0.45, 0.557, "faster")
    results = Results(abs=(*medians, peak), ratios=(ratio,))
    assert script.profiled(replace(run, results=results)).splitlines()[:4] == [
        "| | first token | each further token | whole answer | start to first answer | peak memory |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a | - | 8.12 ms | 1234 ms | - | - |",
        "| b | - | - | x0.50 [0.45, 0.56] | - | 500 MB |",
    ]
