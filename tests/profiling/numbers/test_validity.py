import pytest
from msgspec.structs import replace

from mmedge.profiling.numbers.estimates import results_of
from mmedge.profiling.numbers.validity import validity_of
from mmedge.profiling.run import Resolution, Sentinel, Warmup


@pytest.fixture
def quiet(make_run):
    """A run without any reason to distrust it."""
    return make_run(disturbed=0, changed=0)


def codes(run):
    return [flag.code for flag in validity_of(run).flags]


def of_rounds(run, change):
    return replace(run, samples=tuple(change(s) if s.phase == "round" else s for s in run.samples))


def test_a_quiet_run_is_beyond_doubt(quiet):
    assert (codes(quiet), quiet.validity.ok) == ([], True)


def test_every_flag_says_what_to_do(make_run):
    flags = validity_of(make_run(disturbed=8)).flags
    assert len(flags) == 3 and all(flag.text and flag.advice for flag in flags)


@pytest.mark.parametrize(("off", "told"), [(2, False), (3, True)])
def test_the_sentinel_is_told_of_when_it_is_off_in_more_than_a_twentieth_of_the_rounds(off, told, quiet):
    sentinel = tuple(Sentinel(number, 1_500 if number < off else 1_000) for number in range(40))
    assert ("sentinel" in codes(replace(quiet, sentinel=sentinel))) is told


@pytest.mark.parametrize("name", ["steal", "pressure", "throttled", "swapped"])
def test_a_single_disturbed_round_is_told_of(name, quiet):
    worse = {"steal": 0.2, "pressure": {"cpu": 50.0}, "throttled": True, "swapped": 1}
    host = (replace(quiet.host[0], **{name: worse[name]}), *quiet.host[1:])
    flags = validity_of(replace(quiet, host=host)).flags
    assert [flag.code for flag in flags] == [name]
    assert "in 1 of 40 rounds; without them ratios differ by at most 0.0%" in flags[0].text


def test_a_run_in_which_nothing_was_measured_is_worth_nothing(quiet, make_run):
    found = validity_of(replace(quiet, samples=()))
    assert not found.ok and "nothing" in [flag.code for flag in found.flags]
    under_load = make_run(extras=True).load
    assert "nothing" not in codes(replace(quiet, samples=(), load=under_load))


def test_an_incomplete_run_is_told(quiet):
    assert codes(replace(quiet, complete=False)) == ["incomplete"]


def test_unverified_answers_are_an_error(quiet):
    first, second, twin = quiet.candidates
    found = validity_of(replace(quiet, candidates=(first, replace(second, unverified=True), twin)))
    assert not found.ok and [flag.code for flag in found.flags] == ["unverified"]


def test_another_engine_than_asked_for_is_an_error(quiet):
    first, second, twin = quiet.candidates
    other = replace(second, backend="openvino")
    found = validity_of(replace(quiet, candidates=(first, other, twin)))
    assert not found.ok and "vision runs on onnxruntime" in found.flags[0].text
    free = replace(second, backend=None)
    assert codes(replace(quiet, candidates=(first, free, twin))) == []


def test_a_first_compilation_is_noted(quiet):
    first, second, twin = quiet.candidates
    assert codes(replace(quiet, candidates=(first, replace(second, engine_cache="miss"), twin))) == ["cache_miss"]


@pytest.mark.parametrize(
    ("floor", "verdict", "said"),
    [(0.01, "same", []), (0.05, "inconclusive", ["aa_floor"]), (0.2, "slower", ["aa_differs"])],
)
def test_a_baseline_that_differs_from_itself(floor, verdict, said, quiet):
    aa = Resolution(1.0, 1 / (1 + floor), 1 + floor, floor, verdict)
    run = replace(quiet, results=replace(quiet.results, aa=aa))
    assert codes(run) == said
    assert validity_of(run).ok is (said != ["aa_differs"])


@pytest.mark.parametrize(("processes", "said"), [(5, []), (4, ["few_processes"]), (1, ["few_processes"])])
def test_few_processes(processes, said, make_run):
    assert codes(make_run(processes=processes, disturbed=0, drift=0.0, noise=0.001)) == said


def test_few_rounds(make_run):
    assert codes(make_run(rounds=10, disturbed=0, drift=0.0, noise=0.001)) == ["few_rounds"]


def test_blocks_are_told(quiet):
    assert codes(replace(quiet, protocol=replace(quiet.protocol, interleave="blocks"))) == ["blocks"]


def test_processes_without_a_steady_state(quiet):
    warmups = tuple(Warmup(c, process, 10, 3.0, process != 2 or c == 0) for process in range(5) for c in range(3))
    found = validity_of(replace(quiet, warmups=warmups)).flags
    assert [flag.code for flag in found] == ["no_steady_state"]
    assert found[0].text.startswith("2 of 15 processes had no steady state after warming up: scenes int8 onnxruntime, ")


def test_of_many_names_three_are_told(make_run):
    run = make_run([*"abcdefg"], disturbed=0)
    found = replace(run, warmups=tuple(Warmup(c, 0, 10, 3.0, False) for c in range(8)))
    text = next(flag.text for flag in validity_of(found).flags if flag.code == "no_steady_state")
    assert text.endswith(": a, b, c and 5 more")


def test_slow_first_answers_after_warming_up(make_run):
    quiet = make_run(inputs=3, disturbed=0, noise=0.001)
    firsts = {min(s.round for s in quiet.rounds if s.process == process) for process in range(5)}
    slow = of_rounds(quiet, lambda s: replace(s, answer_ns=s.answer_ns * (2 if s.c == 1 and s.round in firsts else 1)))
    assert "slow_first" in codes(slow) and "slow_first" not in codes(quiet)


def test_a_slow_input_that_is_always_the_first_is_not_a_slow_start(make_run):
    run = make_run(inputs=8, disturbed=0)
    slow = of_rounds(run, lambda s: replace(s, answer_ns=s.answer_ns * (3 if s.input == 0 else 1)))
    assert "slow_first" not in codes(slow)


@pytest.mark.parametrize(("share", "told"), [(0.98, False), (0.96, True)])
def test_stages_that_do_not_add_up(share, told, quiet):
    run = of_rounds(quiet, lambda s: replace(s, stages_ns={"encode": int(share * s.answer_ns)}))
    assert ("other" in codes(run)) is told


def test_answers_that_change_from_time_to_time(quiet):
    again = replace(quiet.answers[0], text="something else")
    flags = validity_of(replace(quiet, answers=(*quiet.answers, again))).flags
    assert [flag.code for flag in flags] == ["changing_answers"] and "picture-0" in flags[0].text


@pytest.mark.parametrize(("tokens", "said"), [(6, []), (7, ["longer_answers"]), (5, ["longer_answers"])])
def test_answers_of_another_length(tokens, said, quiet):
    run = of_rounds(quiet, lambda s: replace(s, token_ns=(1,) * tokens) if s.c == 1 else s)
    assert codes(replace(run, results=results_of(run))) == said


def test_inputs_that_nobody_was_asked(make_run):
    run = make_run(inputs=50, disturbed=0, drift=0.0, noise=0.001, changed=0)
    assert codes(run) == ["left_out"]
    assert "40 of 50 inputs" in run.validity.flags[0].text


def test_how_the_machine_is_set(quiet):
    processor = replace(quiet.machine.processor, governors=("powersave",), smt=True)
    machine = replace(quiet.machine, processor=processor, on_battery=True, virtual="KVM", container="docker")
    flags = validity_of(replace(quiet, machine=machine)).flags
    assert [flag.code for flag in flags] == ["on_battery", "governor", "smt", "virtual_machine", "container"]
    assert [flag.severity for flag in flags] == ["warning", "warning", "note", "note", "note"]
