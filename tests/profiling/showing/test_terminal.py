import pytest
from msgspec.structs import replace

from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.run import Energy
from mmedge.profiling.showing.terminal import lines
from mmedge.profiling.showing.terminal_rows import WIDTH


def text(run) -> str:
    return "\n".join(lines(run))


def line(run, start: str) -> str:
    return next(each for each in lines(run) if each.startswith(start))


def unverified(run, c):
    marked = tuple(replace(each, unverified=at == c) for at, each in enumerate(run.candidates))
    return replace(run, candidates=marked)


@pytest.fixture(scope="module")
def worst(make_run):
    """Long names, many candidates, large numbers, everything that can be measured."""
    names = [f"{name}-of-a-very-long-model-{'x' * 90} onnxruntime+openvino" for name in "abcdefgh"]
    run = make_run(names, base_ms=1e6, rounds=60, inputs=30, changed=30, tokens=200, noise=0.9, extras=True)
    return unverified(run, 3)


def test_no_line_is_wider_than_a_terminal(worst):
    assert [each for each in lines(worst) if len(each) > WIDTH] == []


def test_no_line_ends_in_space(worst, make_run):
    assert [each for run in (worst, make_run()) for each in lines(run) if each != each.rstrip()] == []


def test_columns_do_not_run_into_each_other(worst):
    rows = [each.split() for each in lines(worst) if "[" in each and "x" in each.split("[")[1]]
    assert rows and {len(row) for row in rows} == {6}


def test_a_row_tells_time_interval_ratio_and_verdict(make_run):
    run = make_run(noise=0.0, drift=0.0, disturbed=0, inputs=1, base_ms=10.0)
    first, second, twin = (line(run, f"{mark}  ") for mark in ("1      ", "2      ", "=      "))
    assert first.split() == ["1", "10.0", "[10.0-10.0]", "baseline"]
    assert second.split() == ["2", "5.60", "[5.60-5.60]", "x0.560", "[0.560-0.560]", "faster"]
    assert twin.split() == ["=", "10.0", "[10.0-10.0]", "x1.000", "[1.000-1.000]", "same"]


def test_the_first_line_tells_task_machine_counts_and_noise_floor(make_run):
    found = next(lines(make_run()))
    assert found.startswith("caption  2 of 2 cores  5 processes  40 rounds") and "noise floor 2." in found


def test_stages_are_told_in_order_with_what_they_leave_over(make_run):
    shown = text(make_run()).replace("\n" + " " * 16, " ")
    places = [shown.index(f"{stage} ") for stage in ("decode", "preprocess", "encode", "decode_loop", "other")]
    assert places == sorted(places)


def test_percentiles_are_bounds_or_dashes(make_run):
    shown = " ".join(text(make_run(rounds=120)).split())
    assert "p99 <=" in shown and "(n=120: bound, 70 % conf.) p99.9 -" in shown


def test_energy_that_cannot_be_measured_is_said_once(make_run):
    shown = text(make_run())
    assert shown.count("energy: not measurable: this machine has neither") == 1


def test_energy_is_told_by_rail(make_run):
    run = make_run(finished=False)
    energy = Energy("INA3221", whole="VDD_IN", rails=("VDD_IN",), idle_w={"VDD_IN": 1.0})
    run = replace(run, energy=energy)
    run = finished(replace(run, samples=tuple(replace(s, energy_mj={"VDD_IN": 100.0}) for s in run.samples)))
    assert "energy (INA3221, VDD_IN): 100.0 mJ an answer [100.0-100.0]" in text(run)


def test_quality_has_its_interval_and_verdict(make_run):
    row = next(each for each in lines(make_run(changed=8)) if "+100" in each)
    assert row.split()[-4:] == ["0.000", "+100", "[+100,+100]", "WORSE"]


@pytest.fixture
def two_tasks(make_run):
    """Answers to every other input take ten times as long."""
    run = make_run(finished=False, base_ms=1e5)
    items = tuple(replace(item, task="ask" if at % 2 else "caption") for at, item in enumerate(run.inputs.items))
    samples = tuple(replace(s, answer_ns=s.answer_ns * 10 if s.input % 2 else s.answer_ns) for s in run.samples)
    return finished(replace(run, samples=samples, inputs=replace(run.inputs, items=items)))


def test_each_of_two_tasks_has_its_rows(two_tasks):
    shown = list(lines(two_tasks))
    found = [each.split() for each in shown if "unclear" in each]
    assert [(each[0], each[3]) for each in found] == [("caption", "0.750"), ("ask", "1.00")]
    times = [each.split()[:2] for each in shown if each.startswith("    caption") or each.startswith("    ask")]
    assert len(times) == 6 and float(times[1][1]) > 5 * float(times[0][1])
    assert "1   answers, ms (ask): p90 " in text(two_tasks) and max(map(len, shown)) <= WIDTH


def test_no_time_lies_between_two_tasks(two_tasks):
    middle = f"{two_tasks.absolute(0, 'answer_ms').value:.0f}"
    assert middle not in text(two_tasks) and line(two_tasks, "1   all").split() == ["1", "all", "baseline"]


def test_few_inputs_are_plainly_unclear(make_run):
    row = next(each for each in lines(make_run(inputs=3, changed=3)) if "+100" in each)
    assert row.split()[-1] == "unclear"


def test_without_right_answers_it_is_said_whom_answers_agree_with(make_run):
    run = make_run(changed=8, finished=False)
    items = tuple(replace(item, expected=()) for item in run.inputs.items)
    first, second, twin = (
        replace(each, precisions={"all": precision})
        for each, precision in zip(run.candidates, ("int8", "float32", "int8"), strict=True)
    )
    run = replace(run, candidates=(first, second, twin), inputs=replace(run.inputs, items=items))
    shown = text(finished(run))
    assert "to 2 by agreement" in shown and "1 answers 8 of 8 inputs otherwise than 2" in shown
    rows = [each.split() for each in shown.splitlines() if "reference" in each or "differs" in each]
    assert [(row[0], row[-1]) for row in rows] == [("1", "differs"), ("2", "reference")]


def test_changed_answers_are_counted_and_the_first_three_shown(make_run):
    shown = text(make_run(changed=5))
    assert "2 answers 5 of 8 inputs otherwise than 1" in shown
    assert "picture-2:" in shown and "picture-3:" not in shown


def test_an_unverified_candidate_is_marked_wherever_it_is_named(make_run):
    run = finished(unverified(make_run(extras=True, finished=False), 1))
    shown = text(run)
    assert "UNVERIFIED" in shown
    assert [each for each in lines(run) if each.startswith("2 ")] == []
    assert sum(each.startswith("2!") for each in lines(run)) > 10


def test_everything_that_was_measured_has_its_table(make_run):
    shown = text(make_run(extras=True))
    for heading in ("start ms", "rate/s", "minute", "roof: ", "memory limit: works with 200.0 MiB, not with 100.0 MiB"):
        assert heading in shown


def test_a_roof_says_where_the_cache_holds_all(make_run):
    run = make_run(extras=True)
    first, *others = run.roofline
    shown = text(replace(run, roofline=(replace(first, in_cache=True), *others)))
    assert "encode 61% of GEMM peak in cache, decode_loop 74% of bandwidth" in shown


def test_the_highest_share_of_memory_stands_beside_what_was_resident(make_run):
    assert "1   peak, MiB: PSS 320.0 | VmHWM 352.0" in text(make_run())


def test_what_was_not_measured_has_none(make_run):
    shown = text(make_run())
    for heading in ("start ms", "rate/s", "minute", "roof: ", "memory limit"):
        assert heading not in shown


def test_warnings_come_last_with_their_advice(make_run):
    run = make_run(inputs=50, disturbed=0)
    assert list(lines(run))[-1] == "note: 40 of 50 inputs were asked; give it more time: --budget"


def test_an_answer_cannot_command_the_terminal(make_run):
    run = make_run(finished=False)
    answers = tuple(replace(each, text="\x1b[2J\nnew") if each.c == 1 else each for each in run.answers)
    items = tuple(replace(item, id="\x1b]0;title\x07") for item in run.inputs.items)
    shown = text(finished(replace(run, answers=answers, inputs=replace(run.inputs, items=items))))
    assert "\x1b" not in shown and "\x07" not in shown


def test_a_run_that_was_ended_is_marked_and_shows_what_there_is(make_run):
    shown = text(make_run(complete=False, finished=False))
    assert "INCOMPLETE" in shown and "PSS, MiB: load 320.0" in shown


def test_a_run_in_which_nothing_was_measured_is_told_as_such(make_run):
    run = make_run(finished=False)
    shown = text(finished(replace(run, samples=(), answers=(), host=(), sentinel=(), memory=())))
    assert "noise floor unknown" in shown and "error: nothing was measured" in shown
    assert line(replace(run, samples=()), "1      ").split()[1:3] == ["-", "-"]
