import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path

import msgspec
import pytest

from mmedge.errors import BackendError, InputError, QualityError, UsageError
from mmedge.profiling.keep import read_run
from mmedge.profiling.machine.power import Meter
from mmedge.profiling.measure import Measurement
from mmedge.profiling.profile import Settings, profile
from mmedge.profiling.run import Run

STAGES = {"decode": 1.0, "encode": 20.0, "prefill": 5.0, "decode_loop": 14.0}
ROUNDS, GROUPS = 40, 5
QUICK = Settings(rounds=ROUNDS, processes=GROUPS, warmup_answers=2, seed=3)


@pytest.fixture(scope="module")
def heard() -> list[str]:
    """What the profiler said it was doing."""
    return []


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "run.json"


@pytest.fixture(scope="module")
def run(make_candidate, stand_in, make_inputs, heard, kept) -> Run:
    """The first, the same program from another place, and one that encodes in half the time and says something else."""
    folder = kept.parent
    candidates = [
        make_candidate(folder, "first", stages=STAGES, noise=0.02, drift=0.005),
        make_candidate(folder, "copy", stages=STAGES, noise=0.02, drift=0.005),
        make_candidate(folder, "quick", stages=STAGES | {"encode": 10.0}, noise=0.02, text="another picture"),
    ]
    inputs = make_inputs(folder, "a picture")
    return profile(candidates, inputs, QUICK, save=kept, say=heard.append, command=stand_in)


def test_identical_code_comes_out_as_the_same(run):
    assert run.ratio(1).verdict == run.ratio(3).verdict == "same"


def test_what_is_faster_is_so_in_the_stage_that_makes_it_so(run):
    assert run.ratio(2).verdict == run.ratio(2, "encode_ms").verdict == "faster"
    assert run.ratio(2, "prefill_ms").verdict == run.ratio(2, "decode_loop_ms").verdict == "same"
    assert run.ratio(2, "encode_ms").ratio == pytest.approx(0.5, rel=0.02)
    assert run.ratio(2).ratio == pytest.approx(0.75, rel=0.02)


def test_stages_add_up(run):
    found = {stage: run.absolute(0, f"{stage}_ms").value for stage in (*STAGES, "other", "answer")}
    assert found.pop("answer") == pytest.approx(sum(found.values()), rel=0.03)
    assert found["encode"] == pytest.approx(20, rel=0.03)


def test_every_candidate_answers_the_same_input_once_a_round(run):
    rounds = [[sample for sample in run.rounds if sample.round == index] for index in range(ROUNDS)]
    assert [sorted(sample.c for sample in each) for each in rounds] == [[0, 1, 2, 3]] * ROUNDS
    assert [{sample.input for sample in each} for each in rounds] == [{index % 4} for index in range(ROUNDS)]


def test_everyone_answers_first_as_often(run):
    firsts = Counter(next(sample.c for sample in run.rounds if sample.round == index) for index in range(ROUNDS))
    assert firsts == {0: 10, 1: 10, 2: 10, 3: 10}


def test_rounds_are_spread_over_groups_of_fresh_processes_that_warm_up(run):
    groups = [sample.process for sample in run.rounds if sample.c == 0]
    assert groups == [group for group in range(GROUPS) for _ in range(ROUNDS // GROUPS)]
    assert {(each.c, each.process) for each in run.warmups} == {(c, group) for c in range(4) for group in range(GROUPS)}
    warming = Counter((sample.c, sample.process) for sample in run.samples if sample.phase == "warmup")
    assert warming == {(each.c, each.process): each.answers for each in run.warmups}


def test_every_start_is_timed_and_its_parts_add_up(run):
    assert Counter(start.c for start in run.cold) == dict.fromkeys(range(4), GROUPS)
    for start in run.cold:
        parts = (start.process_s, start.import_s, start.verify_s, start.compile_s, start.load_s, start.answer_s)
        assert sum(parts) == pytest.approx(start.total_s, abs=1e-4)
        assert (start.pages, start.compiled) == ("warm", "none") and start.import_s > 0


def test_memory_is_weighed_of_a_process_alone(run):
    stages = {row.stage for row in run.memory if row.c == 0}
    assert {"load", "steady", "total"} <= stages and {row.c for row in run.memory} == {0, 1, 2}
    assert all(row.pss > 1 << 20 for row in run.memory if row.stage == "total")


def test_answers_are_kept_once_and_judged(run):
    assert len(run.answers) == 4 * 4
    assert [round(score.agreement) for score in run.quality if score.c < 3] == [1, 1, 0]


def test_the_file_holds_all_that_is_returned(run, kept):
    assert read_run(kept) == run and run.complete and run.protocol.stop_reason == "rounds"
    assert [path.name for path in kept.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_being_done_can_be_heard(heard):
    assert heard[3:6] == ["preparing quick", "alone: first", "alone: copy"] and heard[-1] == "judging"
    assert any(line.startswith(f"processes {GROUPS}, round 8 ({ROUNDS - 1} in all)") for line in heard)


def test_a_slow_first_answer_of_every_process_is_not_counted(candidate, inputs, stand_in):
    found = profile([candidate(first=50.0)], inputs, replace_settings(rounds=6), command=stand_in)
    assert {sample.answer_ns for sample in found.rounds} == {10_000_000}
    assert 500_000_000 in {sample.answer_ns for sample in found.samples if sample.phase == "warmup"}


def test_it_stops_when_the_ratios_are_precise(candidate, inputs, stand_in):
    settings = Settings(budget_s=2.0, processes=2, warmup_answers=2)
    found = profile([candidate()], inputs, settings, command=stand_in)
    assert found.protocol.stop_reason == "precision" and {s.process for s in found.rounds} == {0, 1}


def test_it_stops_when_the_budget_is_spent(candidate, inputs, stand_in):
    settings = Settings(budget_s=1.0, processes=2, warmup_answers=2, precision=1e-9)
    found = profile([candidate(noise=0.5)], inputs, settings, command=stand_in)
    assert found.protocol.stop_reason == "budget" and found.protocol.rounds >= 4


def test_it_goes_on_up_to_three_times_the_budget_while_something_cannot_be_told(candidate, inputs, stand_in):
    asked = []

    def undecided(run: Run) -> bool:
        asked.append(run.complete)
        return len(asked) < 2

    settings = Settings(budget_s=1.0, processes=1, warmup_answers=2, precision=1e-9)
    found = profile([candidate(noise=0.5)], inputs, settings, undecided=undecided, command=stand_in)
    assert asked == [True, True] and len({sample.process for sample in found.rounds}) >= 2


def test_every_candidate_can_answer_every_input(candidate, inputs, stand_in):
    settings = replace_settings(rounds=2, answer_all=True)
    found = profile([candidate(), candidate("second")], inputs, settings, command=stand_in)
    alone = Counter((sample.c, sample.input) for sample in found.samples if sample.phase == "alone")
    assert alone == dict.fromkeys([(c, index) for c in range(2) for index in range(4)], 1)


def test_candidates_that_do_not_fit_into_memory_together_are_opened_in_turn(candidate, inputs, stand_in, monkeypatch):
    monkeypatch.setattr("mmedge.profiling.profile.free_memory", lambda: 1 << 20)
    found = profile([candidate()], inputs, replace_settings(rounds=16, processes=1), command=stand_in)
    assert found.protocol.interleave == "blocks" and found.protocol.rounds == 16
    order = [c for c, _ in groupby(sample.c for sample in found.rounds)]
    assert order in ([0, 1, 0], [1, 0, 1])  # AB, BA: the one in the middle goes on in a fresh process
    assert any(flag.code == "blocks" for flag in found.validity.flags)


def test_a_bundle_that_fails_its_golden_samples_is_refused(candidate, inputs, stand_in):
    with pytest.raises(QualityError, match=r"first does not answer its golden samples as it should: golden/0: tokens"):
        profile([candidate(failed=["golden/0: tokens"])], inputs, QUICK, command=stand_in)


def test_or_measured_all_the_same_and_marked(candidate, inputs, stand_in):
    settings = replace_settings(rounds=6, unverified=True)
    found = profile([candidate(failed=["golden/0: tokens"])], inputs, settings, command=stand_in)
    assert [each.unverified for each in found.candidates] == [True, True]
    assert "unverified" in {flag.code for flag in found.validity.flags}


def test_a_worker_that_dies_leaves_a_whole_file_that_says_it_is_incomplete(candidate, inputs, stand_in, tmp_path):
    file = tmp_path / "run.json"
    with pytest.raises(BackendError, match="the worker of `second` ended with exit code 3"):
        profile([candidate(), candidate("second", die=3)], inputs, QUICK, save=file, command=stand_in)
    assert not read_run(file).complete


def test_what_goes_wrong_besides_does_not_cost_the_rounds(candidate, inputs, stand_in, tmp_path):
    def extra(measurement, say):
        raise InputError("cannot be measured", hint="do something")

    found = profile([candidate()], inputs, replace_settings(rounds=6), [extra], command=stand_in)
    assert found.complete and found.ratio(1)
    assert ("not_measured", "cannot be measured") in {(flag.code, flag.text) for flag in found.validity.flags}


def test_when_it_is_interrupted_besides_the_rounds_are_judged_already(candidate, inputs, stand_in, tmp_path):
    def extra(measurement, say):
        raise KeyboardInterrupt

    file = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        profile([candidate()], inputs, replace_settings(rounds=6), [extra], save=file, command=stand_in)
    assert not read_run(file).complete and read_run(file).ratio(1)


def test_memory_is_that_of_the_largest_input_too(candidate, inputs, stand_in):
    assert Measurement([candidate()], inputs.items, None, stand_in).largest == 3


def test_an_error_of_a_worker_is_passed_on(candidate, inputs, stand_in):
    with pytest.raises(InputError, match="first: cannot go on"):
        profile([candidate(error="InputError")], inputs, command=stand_in)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("rounds", 0, "--rounds is 0, it must be at least 1"),
        ("limit", -1, "--limit is -1, it must be at least 1"),
        ("processes", 0, "--processes is 0, it must be at least 1"),
        ("budget_s", 0.0, "--budget is 0.0, it must be more than 0"),
        ("precision", 0.0, "--ci is 0.0, it must be more than 0"),
    ],
)
def test_a_number_that_is_too_small_is_refused(option, value, message, candidate, inputs):
    with pytest.raises(UsageError, match=message):
        profile([candidate()], inputs, Settings(**{option: value}))


@pytest.mark.parametrize("name", ["none/run.json", ".", "file/run.json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(name, candidate, inputs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        profile([candidate()], inputs, save=tmp_path / name, command=("/no/such/program",))


def replace_settings(**changes) -> Settings:
    return Settings(**({"processes": 1, "warmup_answers": 1, "seed": 3} | changes))


PROGRAM = """
import sys
import msgspec
from pathlib import Path
from mmedge.profiling import profile as module
from mmedge.profiling.run import Candidate, Inputs

module.SAVE_EVERY_S, module.SAVING = 0, 1e9
candidate, inputs = msgspec.json.decode(sys.argv[1], type=tuple[Candidate, Inputs])
settings = module.Settings(rounds=10**6, processes=1, warmup_answers=1)
module.profile([candidate], inputs, settings, save=Path(sys.argv[2]),
               say=lambda line: print(line, flush=True), command=sys.argv[3:])
"""


def workers_of(parent: int, command: tuple[str, ...]) -> list[int]:
    end = f"{command[-1]}\0{parent}\0".encode()
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if read(path).endswith(end)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_profiler_ends_its_workers(number, candidate, inputs, stand_in, wait_for_end, tmp_path):
    file = tmp_path / "run.json"
    asked = msgspec.json.encode((candidate(), inputs)).decode()
    arguments = [sys.executable, "-c", PROGRAM, asked, str(file), *stand_in]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        next(line for line in process.stdout if line.startswith("processes 1, round 30 "))
        workers = workers_of(process.pid, stand_in)
        os.kill(process.pid, number)
        process.stdout.read()
    assert len(workers) == 2 and process.returncode == -number
    for worker in workers:
        wait_for_end(worker)
    found = read_run(file)
    assert not found.complete and len({sample.round for sample in found.rounds}) >= 1


def test_where_rails_are_measured_every_answer_has_its_energy(candidate, inputs, stand_in, tmp_path, monkeypatch):
    chip = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    chip.mkdir(parents=True)
    for name, value in (("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")):
        (chip / name).write_text(f"{value}\n")
    monkeypatch.setattr("mmedge.profiling.profile.Meter", lambda: Meter(tmp_path))
    monkeypatch.setattr("mmedge.profiling.machine.power.INTERVAL_S", 1e-5)  # the stand-in takes no time
    found = profile([candidate()], inputs, replace_settings(rounds=6), command=stand_in)
    for sample in found.rounds:  # 5 V times 1 A
        assert sample.energy_mj["VDD_IN"] == pytest.approx(5000 * sample.energy_s, rel=0.01)
