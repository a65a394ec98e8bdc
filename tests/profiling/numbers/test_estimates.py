import math

import numpy as np
import pytest
from msgspec.structs import replace

from mmedge.profiling.numbers.estimates import finished, half_width, results_of, stages_of
from mmedge.profiling.run import STAGES, Energy


def of_rounds(run, change):
    """The run with every answer in a round changed."""
    return replace(run, samples=tuple(change(s) if s.phase == "round" else s for s in run.samples))


def test_a_planted_ratio_is_found_with_its_verdict(make_run):
    run = make_run(("a", "b", "c"), speeds=(1.0, 0.5, 1.2), noise=0.01, drift=0.002)
    found = {c: run.ratio(c) for c in (1, 2, 3)}
    assert [found[c].verdict for c in (1, 2, 3)] == ["faster", "slower", "same"]
    assert [found[c].ratio for c in (1, 2, 3)] == pytest.approx([0.5, 1.2, 1.0], rel=0.02)
    assert all(each.low <= each.ratio <= each.high for each in found.values())
    assert all(each.n == 40 for each in found.values())


def test_the_noise_floor_is_how_far_the_baseline_may_be_from_itself(make_run):
    aa = make_run().results.aa
    assert aa.floor == pytest.approx(max(aa.high, 1 / aa.low) - 1)
    assert aa.verdict == "same"


def test_a_large_difference_is_seen_on_a_noisy_machine(make_run):
    run = make_run(speeds=(1.0, 0.4), drift=0.15)
    assert run.results.aa.floor > 0.1 and run.ratio(1).verdict == "faster"


def test_a_baseline_that_certainly_differs_from_itself_mutes_smaller_differences(make_run):
    run = make_run(("a", "b"), speeds=(1.0, 0.9), noise=0.005, drift=0.001, disturbed=0, finished=False)
    biased = of_rounds(run, lambda s: replace(s, answer_ns=int(s.answer_ns * 1.2)) if s.c == 2 else s)
    assert (finished(run).ratio(1).verdict, finished(biased).ratio(1).verdict) == ("faster", "inconclusive")
    assert [flag.code for flag in finished(biased).validity.flags if flag.severity == "error"] == ["aa_differs"]


def test_a_processor_that_is_throttled_in_more_than_a_few_rounds_decides_nothing(make_run):
    run = make_run(("a", "b"), speeds=(1.0, 0.5), finished=False)
    often, seldom = (
        finished(replace(run, host=tuple(replace(host, throttled=host.round % each == 0) for host in run.host)))
        for each in (10, 40)
    )
    assert (often.ratio(1).verdict, seldom.ratio(1).verdict) == ("inconclusive", "faster")


def test_a_lone_candidate_has_its_twin(make_run):
    run = make_run(("a",))
    assert [ratio.c for ratio in run.results.ratios if ratio.metric == "answer_ms"] == [1]


def test_every_stage_has_a_median_and_a_ratio(make_run):
    run = make_run()
    metrics = {f"{stage}_ms" for stage in stages_of(run)} | {"other_ms"}
    assert metrics <= {row.metric for row in run.results.abs} and metrics <= {row.metric for row in run.results.ratios}


def test_no_ratio_is_better_when_it_is_higher(make_run):
    metrics = {row.metric for row in make_run().results.ratios}
    assert "tokens_per_s" not in metrics and "tpot_ms" in metrics


def test_means_of_stages_add_up_to_the_mean_answer(make_run):
    run = make_run()
    parts = [run.absolute(0, f"{stage}_ms", "mean").value for stage in (*stages_of(run), "other")]
    assert sum(parts) == pytest.approx(run.absolute(0, "answer_ms", "mean").value)


def test_stages_come_in_the_order_they_run_and_new_ones_last(make_run):
    run = of_rounds(make_run(finished=False), lambda s: replace(s, stages_ns={"new": 1, "prefill": 1, "decode": 1}))
    assert stages_of(run) == ("decode", "prefill", "new")
    assert "new" not in STAGES


def test_time_per_token_is_taken_after_the_first(make_run):
    run = make_run(finished=False)
    run = of_rounds(run, lambda s: replace(s, token_ns=(10_000_000, 12_000_000, 16_000_000)))
    found = finished(run)
    assert found.absolute(0, "ttft_ms").value == pytest.approx(10.0)
    assert found.absolute(0, "tpot_ms").value == pytest.approx(3.0)
    assert found.absolute(0, "tokens_per_s").value == pytest.approx(1e3 / 3)
    assert found.absolute(0, "itl_ms", "max").value == pytest.approx(4.0)
    assert found.absolute(0, "itl_ms", "mean").n == 80


def test_tokens_a_second_are_their_time_upside_down(make_run):
    run = make_run(noise=0.3)
    time, rate = run.absolute(1, "tpot_ms"), run.absolute(1, "tokens_per_s")
    assert (rate.value, rate.low, rate.high) == pytest.approx((1e3 / time.value, 1e3 / time.high, 1e3 / time.low))


def two_tasks(run):
    """Answers to every other input take ten times as long."""
    items = tuple(replace(item, task="ask" if at % 2 else "caption") for at, item in enumerate(run.inputs.items))
    run = of_rounds(run, lambda s: replace(s, answer_ns=s.answer_ns * 10 if s.input % 2 else s.answer_ns))
    return finished(replace(run, inputs=replace(run.inputs, items=items)))


def test_each_of_several_tasks_has_its_own_absolutes(make_run):
    run = two_tasks(make_run(finished=False, disturbed=0))
    caption, all_, ask = (run.absolute(0, f"{name}answer_ms") for name in ("caption.", "", "ask."))
    assert caption.high < all_.value < ask.low and caption.n + ask.n == all_.n
    assert {"ask.ttft_ms", "ask.tokens_per_s"} <= {row.metric for row in run.results.abs}
    assert run.absolute(0, "ask.answer_ms", "p90").high
    assert not [row for row in make_run().results.abs if "." in row.metric]


def test_no_interval_of_a_time_reaches_below_zero_and_few_processes_have_none(make_run):
    run = make_run(processes=3, rounds=9, noise=1.0, drift=2.0)
    assert 0 < run.absolute(0, "answer_ms").low < run.absolute(0, "answer_ms").value
    few = make_run(processes=2).absolute(0, "answer_ms")
    assert (few.low, few.high, few.valid) == (None, None, False) and few.value


def test_one_token_has_no_rate(make_run):
    run = make_run(tokens=1)
    metrics = {row.metric for row in run.results.abs}
    assert "ttft_ms" in metrics and not {"tpot_ms", "itl_ms", "tokens_per_s"} & metrics


def test_tasks_without_tokens_have_no_first_one(make_run):
    assert not {"ttft_ms", "tpot_ms"} & {row.metric for row in make_run(tokens=0).results.abs}


def test_percentiles_are_bounds_that_say_how_sure_they_are(make_run):
    p99 = make_run(rounds=120).absolute(0, "answer_ms", "p99")
    assert (p99.value, p99.valid, p99.note) == (None, False, "n=120: bound, 70 % conf.")
    p90 = make_run(rounds=120).absolute(0, "answer_ms", "p90")
    assert p90.valid and p90.value <= p90.high and p90.note == ""


def test_flagged_rounds_count_in_the_ratio_and_not_in_the_clean_one(make_run):
    run = make_run(disturbed=10, noise=0.001, drift=0.0, finished=False)
    slow = {s.round for s in run.rounds if s.flags}
    run = of_rounds(run, lambda s: replace(s, answer_ns=s.answer_ns * (3 if s.round in slow and s.c == 1 else 1)))
    ratio = finished(run).ratio(1)
    assert ratio.n == 40 and len(slow) == 10
    assert ratio.clean == pytest.approx(0.56, rel=0.01)


def test_without_a_clean_round_there_is_no_clean_ratio(make_run):
    run = of_rounds(make_run(finished=False), lambda s: replace(s, flags=("steal",)))
    assert results_of(run).ratios[0].clean is None


def test_rounds_get_the_flags_that_host_and_sentinel_tell_of(make_run):
    run = make_run(disturbed=0, finished=False)
    host = tuple(replace(each, steal=0.2 if each.round == 3 else 0.0) for each in run.host)
    found = finished(replace(run, host=host))
    assert {s.round for s in found.rounds if s.flags == ("steal",)} == {3}


def test_the_half_width_is_that_of_the_widest_answer_ratio(make_run):
    run = make_run(("a", "b", "c"))
    widest = max(math.sqrt(r.high / r.low) - 1 for r in run.results.ratios if r.metric == "answer_ms")
    assert half_width(run.samples, run.candidates) == pytest.approx(widest)


@pytest.mark.parametrize("processes", [0, 1])
def test_with_less_than_two_processes_nothing_is_precise(processes, make_run):
    run = make_run(processes=1, finished=False)
    samples = run.samples if processes else ()
    assert half_width(samples, run.candidates) == math.inf


def test_a_lone_process_has_ratios_without_verdicts(make_run):
    assert {ratio.verdict for ratio in make_run(processes=1).results.ratios} == {"inconclusive"}


def test_a_run_without_rounds_has_hardly_any_results(make_run):
    run = make_run(finished=False)
    results = results_of(replace(run, samples=()))
    assert (results.ratios, results.aa, results.fits, results.worst) == ((), None, (), ())
    assert {row.metric for row in results.abs} <= {"peak_pss", "steady_pss", "peak_hwm", "bundle_bytes"}


def test_energy_has_a_ratio_where_one_rail_carries_all(make_run):
    run = make_run(finished=False)
    energy = Energy("INA3221", whole="VDD_IN", rails=("VDD_IN",), idle_w={"VDD_IN": 2.0})
    run = of_rounds(replace(run, energy=energy), lambda s: replace(s, energy_mj={"VDD_IN": 5.0 * s.answer_ns / 1e6}))
    found = finished(run)
    assert found.ratio(1, "answer_mj").ratio == pytest.approx(0.56, rel=0.02)
    assert found.absolute(0, "watts_above_idle").value == pytest.approx(3.0)


def test_what_is_made_of_a_run_is_the_same_every_time(make_run):
    run = make_run(finished=False)
    assert finished(run) == finished(run)


def test_numbers_are_plain_floats(make_run):
    for row in make_run(extras=True).results.abs:
        for value in (row.value, row.low, row.high):
            assert value is None or (isinstance(value, (int, float)) and not isinstance(value, np.generic)), row
