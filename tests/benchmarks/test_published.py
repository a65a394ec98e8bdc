import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.profiling.keep import encode_run

ROOT = Path(__file__).parents[2]


def module_at(path: Path):
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return module_at(ROOT / "benchmarks" / "published.py")


@pytest.fixture(scope="module")
def run():
    return module_at(ROOT / "tests" / "profiling" / "made_up_runs.py").made_up_run(("a", "b"), rounds=60)


def test_a_run_that_fits_stays_as_it_is(script, run):
    assert script.shortened(run, 10**9) == run


def test_a_long_run_keeps_whole_rounds_and_says_so(script, run):
    size = len(encode_run(run))
    short = script.shortened(run, size // 2)
    assert len(encode_run(short)) <= size // 2
    assert short.results == run.results and short.answers == run.answers
    assert short.notes[script.SHORTENED].startswith("1 of ")
    per_round = {sample.round: 0 for sample in short.rounds}
    for sample in short.rounds:
        per_round[sample.round] += 1
    assert set(per_round.values()) == {len(run.candidates)}


def test_a_run_that_cannot_be_made_small_enough_is_not_written(script, run):
    with pytest.raises(SystemExit, match="without samples"):
        script.shortened(run, 100)


def test_no_folder_of_this_machine_is_in_it(script, run):
    items = tuple(replace(item, file=f"{ROOT}/pictures/{item.id}.png") for item in run.inputs.items)
    candidates = tuple(
        replace(each, bundle=f"{ROOT}/x.bundle", command=(f"{ROOT}/bin/python", "a.py")) for each in run.candidates
    )
    inputs = replace(run.inputs, items=items, source=f"{ROOT}/list.jsonl")
    portable = script.without_folders(replace(run, candidates=candidates, inputs=inputs), ROOT)
    assert portable.candidates[0].bundle == "x.bundle" and portable.candidates[0].command == ("bin/python", "a.py")
    assert portable.inputs.source == "list.jsonl"
    assert str(ROOT) not in encode_run(portable).decode()
