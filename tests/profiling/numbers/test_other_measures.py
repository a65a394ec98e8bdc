import pytest
from msgspec.structs import replace

from mmedge.profiling.numbers.other_measures import others_of
from mmedge.profiling.run import Cold, Energy, Load, Memory, Minute


def measures(run, c=0):
    return {row.metric: row for row in others_of(run) if row.c == c}


def test_memory_is_the_highest_stage_and_what_stays(make_run):
    rows = (
        Memory(0, "load", 300, 200, 100, 350),
        Memory(0, "encode", 200, 150, 50, 400),
        Memory(0, "steady", 100, 80, 20, None),
    )
    found = measures(replace(make_run(finished=False), memory=rows))
    assert {name: found[name].value for name in ("peak_pss", "steady_pss", "peak_hwm")} == {
        "peak_pss": 300,
        "steady_pss": 100,
        "peak_hwm": 400,
    }


def test_what_a_gpu_holds_of_the_same_memory_counts(make_run):
    unified, own = (Memory(0, "load", 300, 0, 0, 350, gpu=50, unified=value) for value in (True, False))
    run = make_run(finished=False)
    assert measures(replace(run, memory=(unified,)))["peak_pss"].value == 350
    assert measures(replace(run, memory=(own,)))["peak_pss"].value == 300


def test_memory_that_was_not_measured_is_absent(make_run):
    run = replace(make_run(finished=False), memory=(Memory(0, "load", None, None, None, None),))
    assert not {"peak_pss", "steady_pss", "peak_hwm", "peak_gpu"} & measures(run).keys()


def test_starts_with_cold_and_warm_files_are_told_apart(make_run):
    cold = tuple(
        Cold(0, pages, "none", 0.1, 0.2, 0.0, 0.0, load, 0.1, 0.4 + load)
        for pages, load in (("cold", 1.0), ("cold", 1.1), ("cold", 1.2), ("warm", 0.3))
    )
    found = measures(replace(make_run(finished=False), cold=cold))
    assert found["cold_ms"].value == pytest.approx(1_500) and found["cold_ms"].n == 3
    assert (found["cold_ms"].low, found["cold_ms"].high) == (pytest.approx(1_400), pytest.approx(1_600))
    assert found["cold_load_ms"].value == pytest.approx(1_100)
    assert (found["warm_ms"].value, found["warm_ms"].low, found["warm_ms"].valid) == (pytest.approx(700), None, False)


def test_starts_that_had_to_compile_are_told_apart(make_run):
    cold = tuple(
        Cold(0, "cold", compiled, 0.1, 0.2, 0.0, wait, 0.5, 0.1, 0.9 + wait)
        for compiled, wait in (("miss", 60.0), ("hit", 0.0), ("hit", 0.1), ("miss", 70.0), ("hit", 4.0))
    )
    found = measures(replace(make_run(finished=False), cold=cold))
    assert (found["cold_ms"].value, found["cold_ms"].n) == (pytest.approx(1_000), 3)
    assert found["cold_compile_ms"].value == pytest.approx(100)
    assert (found["cold_miss_ms"].value, found["cold_miss_ms"].low) == (pytest.approx(65_900), None)


def test_energy_is_of_the_rail_that_carries_all_or_of_each_by_name(make_run):
    run = make_run(finished=False)
    drawn = {"A": 10.0, "B": 4.0}
    run = replace(run, samples=tuple(replace(s, answer_ns=2_000_000, energy_mj=drawn) for s in run.samples))
    whole = measures(replace(run, energy=Energy("INA3221", whole="A", rails=("A", "B"), idle_w={"A": 1.5})))
    assert (whole["answer_mj"].value, whole["watts_above_idle"].value) == pytest.approx((10.0, 3.5))
    parts = measures(replace(run, energy=Energy("INA3221", rails=("A", "B"))))
    assert (parts["answer_mj:A"].value, parts["answer_mj:B"].value) == pytest.approx((10.0, 4.0))
    assert "answer_mj" not in parts and "watts_above_idle:A" not in parts


def test_energy_that_cannot_be_measured_is_absent(make_run):
    assert not [name for name in measures(make_run(finished=False)) if "mj" in name or "watts" in name]


def test_the_highest_rate_that_holds_is_told_and_none_is_null(make_run):
    def loads(*held):
        return tuple(Load(0, float(rate), 700, "answer_ms<200", held=each) for rate, each in enumerate(held, 1))

    run = make_run(finished=False)
    assert measures(replace(run, load=loads(True, True, False)))["max_rate"].value == 2.0
    found = measures(replace(run, load=loads(False, None)))["max_rate"]
    assert (found.value, found.valid, found.note) == (None, False, "answer_ms<200: kept at no rate that was tried")


def test_a_soak_is_its_last_minute_by_its_first(make_run):
    minutes = (Minute(0, 0, 100, 10.0), Minute(0, 1, 90, 11.0), Minute(0, 2, 80, 12.5))
    assert measures(replace(make_run(finished=False), minutes=minutes))["soak_slowdown"].value == 1.25


def test_quality_is_a_measure_too(make_run):
    run = make_run()
    found = measures(run, 1)
    assert (found["exact"].value, found["agreement"].value) == (7 / 8, 7 / 8)
