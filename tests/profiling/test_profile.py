import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from mmedge.errors import BackendError, InputError, UsageError
from mmedge.profiling.power import Meter, Power
from mmedge.profiling.profile import choose_rounds, profile
from mmedge.profiling.report import Profile, Run

STAGES = {"read": 1.0, "encode": 20.0, "prefill": 5.0, "decode_loop": 14.0}
ROUNDS, SITTINGS, WARMUP = 24, 2, 2


@pytest.fixture(scope="module")
def heard() -> list[str]:
    """What the profiler said it was doing."""
    return []


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "profile.json"


@pytest.fixture(scope="module")
def measured(make_candidate, stand_in, make_queries, heard, kept) -> Profile:
    """The first, the same program from another place, and one that encodes in half the time."""
    folder = kept.parent
    candidates = [
        make_candidate(folder, "first", stages=STAGES, noise=0.02, drift=0.005),
        make_candidate(folder, "copy", stages=STAGES, noise=0.02, drift=0.005),
        make_candidate(folder, "quick", stages=STAGES | {"encode": 10.0}, noise=0.02, text="another picture"),
    ]
    return profile(
        candidates,
        make_queries(expected="A  picture"),
        rounds=ROUNDS,
        warmup=WARMUP,
        sittings=SITTINGS,
        seed=3,
        save=kept,
        say=heard.append,
        command=stand_in,
    )


def verdicts(measured: Profile, candidate: int) -> dict[str, str | None]:
    return {metric.name: metric.verdict for metric in measured.results[candidate].metrics}


def test_identical_code_comes_out_as_the_same(measured):
    copy, twin = verdicts(measured, 1), verdicts(measured, 3)
    assert set(copy.values()) | set(twin.values()) == {"same", None} or copy["answer"] == twin["answer"] == "same"


def test_what_is_faster_is_so_in_the_stage_that_makes_it_so(measured):
    quick = verdicts(measured, 2)
    assert (quick["answer"], quick["encode"]) == ("faster", "faster")
    assert quick["prefill"] == quick["decode_loop"] == "same"
    assert measured.results[2].metric("encode").ratio.ratio == pytest.approx(0.5, rel=0.02)
    assert measured.results[2].metric("answer").ratio.ratio == pytest.approx(0.75, rel=0.02)


def test_stages_come_in_the_order_they_run_and_add_up(measured):
    metrics = {metric.name: metric.ms.median for metric in measured.results[0].metrics}
    assert [*metrics] == ["answer", "first_token", "read", "encode", "prefill", "decode_loop", "other"]
    assert metrics["encode"] == pytest.approx(20, rel=0.03)
    assert metrics["first_token"] == pytest.approx(26 + 14 / 3, rel=0.03)
    assert metrics["other"] == pytest.approx(0, abs=0.01)


def test_every_candidate_answers_the_same_picture_once_a_round_in_the_recorded_order(measured):
    rounds = [[run for run in measured.rounds if run.round == index] for index in range(ROUNDS)]
    assert tuple(tuple(run.candidate for run in each) for each in rounds) == measured.order
    assert [{run.query for run in each} for each in rounds] == [{index % 4} for index in range(ROUNDS)]


def test_the_rounds_are_spread_over_sittings_of_fresh_processes_that_warm_up(measured):
    sittings = [run.sitting for run in measured.rounds if run.candidate == 0]
    assert sittings == [0] * 12 + [1] * 12
    warming = [(run.candidate, run.sitting) for run in measured.runs if run.round < 0]
    assert all(warming.count((number, sitting)) == WARMUP for number in range(4) for sitting in range(SITTINGS))


def test_every_start_is_timed(measured):
    phases = [start.phase for start in measured.starts if start.candidate == 0]
    assert phases == ["prepare", "alone", "sitting", "sitting"]
    assert all(start.load_s == 0.25 for start in measured.starts)
    assert all(0 < start.started_s <= start.loaded_s <= (start.answered_s or 1e9) for start in measured.starts)
    assert measured.results[0].start_s.count == 3


def test_memory_is_that_of_a_process_alone_with_the_highest_peak(measured):
    first = measured.results[0].memory
    assert first.pss > 1 << 20 and first.peak == max(
        weight.memory.peak for weight in measured.weights if weight.candidate == 0
    )
    assert measured.results[3].memory is None


def test_answers_are_compared_with_what_is_right_and_with_the_first_candidate(measured):
    assert [(result.right.count, result.right.of) for result in measured.results] == [(4, 4), (4, 4), (0, 4), (4, 4)]
    assert [result.equal.value for result in measured.results] == [1, 1, 0, 1]


def test_the_file_holds_all_that_is_returned(measured, kept):
    read = msgspec.json.decode(kept.read_bytes(), type=Profile)
    assert read == measured and read.complete and read.schema == "mmedge.profile/1"
    assert [path.name for path in kept.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_being_done_can_be_heard(measured, heard):
    assert heard[2:5] == ["preparing quick", "starting first", "starting copy"]
    assert heard[-1] == f"round {ROUNDS} of {ROUNDS}"


def test_a_slow_first_answer_of_every_process_is_not_counted(candidate, queries, stand_in):
    found = profile([candidate(first=50.0)], queries, rounds=6, warmup=1, sittings=1, command=stand_in)
    assert {run.answer_ms for run in found.rounds} == {10.0}
    assert {run.answer_ms for run in found.runs if run.round < 0} == {500.0}


def test_a_worker_that_dies_leaves_a_whole_file_that_says_it_is_incomplete(candidate, queries, stand_in, tmp_path):
    file = tmp_path / "profile.json"
    with pytest.raises(BackendError, match="the worker of `second` ended with exit code 3"):
        profile([candidate(), candidate("second", die=3)], queries, rounds=6, save=file, command=stand_in)
    found = msgspec.json.decode(file.read_bytes(), type=Profile)
    assert not found.complete and found.results == ()


def test_an_error_of_a_worker_is_passed_on(candidate, queries, stand_in):
    with pytest.raises(InputError, match="first: cannot go on"):
        profile([candidate(error="InputError")], queries, command=stand_in)


@pytest.mark.parametrize(("option", "value"), [("rounds", 0), ("warmup", 0), ("sittings", 0), ("threads", -1)])
def test_a_number_that_is_too_small_is_refused(option, value, candidate, queries):
    with pytest.raises(UsageError, match=f"--{option} is {value}, it must be at least {value + 1}"):
        profile([candidate()], queries, **{option: value})


@pytest.mark.parametrize("name", ["none/profile.json", ".", "file/profile.json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(name, candidate, queries, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        profile([candidate()], queries, save=tmp_path / name, command=("/no/such/program",))


def alone(candidate: int, ms: float) -> Run:
    return Run(candidate, 0, -1, -1, "", ms, {}, ())


@pytest.mark.parametrize(
    ("ms", "queries", "rounds"),
    [(1.0, 4, 240), (1.0, 1000, 1002), (100.0, 4, 204), (100.0, 1000, 204), (5000.0, 4, 30)],
)
def test_as_many_rounds_as_fit_a_minute_within_bounds(ms, queries, rounds):
    """Two candidates and a twin: a round is three answers, a block six rounds."""
    assert choose_rounds([alone(0, ms), alone(1, ms)], 3, queries) == rounds


PROGRAM = """
import sys
import msgspec
from pathlib import Path
from mmedge.profiling.profile import profile
from mmedge.profiling.report import Candidate, Query

candidate, query = msgspec.json.decode(sys.argv[1], type=tuple[Candidate, Query])
profile([candidate], [query], rounds=10**6, warmup=1, sittings=1, save=Path(sys.argv[2]),
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
def test_whatever_ends_the_profiler_ends_its_workers(number, candidate, queries, stand_in, wait_for_end, tmp_path):
    file = tmp_path / "profile.json"
    asked = msgspec.json.encode((candidate(), queries[0])).decode()
    arguments = [sys.executable, "-c", PROGRAM, asked, str(file), *stand_in]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        next(line for line in process.stdout if line == "round 12 of 1000000\n")
        workers = workers_of(process.pid, stand_in)
        os.kill(process.pid, number)
        process.stdout.read()
    assert len(workers) == 2 and process.returncode == -number
    for worker in workers:
        wait_for_end(worker)
    found = msgspec.json.decode(file.read_bytes(), type=Profile)
    assert not found.complete and len({run.round for run in found.rounds}) == 10


def test_a_single_candidate_is_compared_with_itself(candidate, queries, stand_in):
    found = profile([candidate()], queries, rounds=6, warmup=1, sittings=3, command=stand_in)
    assert [each.name for each in found.candidates] == ["first", "first again"]
    assert found.results[1].metric("answer").verdict == "same"
    assert replace(found.results[1].metric("answer").ratio, ratio=1.0).reach == 1.0


def test_where_rails_are_measured_every_answer_has_its_energy(candidate, queries, stand_in, tmp_path, monkeypatch):
    chip = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    chip.mkdir(parents=True)
    for name, value in (("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")):
        (chip / name).write_text(f"{value}\n")
    monkeypatch.setattr("mmedge.profiling.profile.Meter", lambda: Meter(tmp_path))
    found = profile([candidate()], queries, rounds=6, warmup=1, sittings=1, command=stand_in)
    assert all(run.energy_mj["VDD_IN"] > 0 for run in found.runs)
    assert found.machine.power == Power(("VDD_IN",), "VDD_IN")
    assert found.results[0].energy_mj["VDD_IN"].count == 6
