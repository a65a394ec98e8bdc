from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from mmedge.errors import UsageError
from mmedge.profiling.judging.compare import compare
from mmedge.profiling.judging.gate import outcome
from mmedge.profiling.judging.rules import load_rules
from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.run import Absolute, Flag, Ratio, Score, Validity

EXAMPLE = Path(__file__).parents[3] / "benchmarks" / "workloads" / "gate.toml"
CANDIDATE = 1


@pytest.fixture
def judge(make_run, tmp_path):
    """Judge a made-up run by one rule, after its rows have been changed."""

    def run_of(rule: str, *rows: Absolute | Ratio | Score, run=None, against=None, **accepted: bool):
        (tmp_path / "gate.toml").write_text(f"[[rule]]\n{rule}")
        found = run or make_run()
        if any(isinstance(row, Score) for row in rows):
            found = replace(found, quality=())
        for row in rows:
            found = _with(found, row)
        return outcome(found, load_rules(tmp_path / "gate.toml"), against=against, **accepted)

    return run_of


def _with(run, row):
    if isinstance(row, Score):
        return replace(run, quality=(*run.quality, row))
    name = "ratios" if isinstance(row, Ratio) else "abs"
    others = [
        each
        for each in getattr(run.results, name)
        if (each.c, each.metric) != (row.c, row.metric) or getattr(each, "stat", "") != getattr(row, "stat", "")
    ]
    return replace(run, results=replace(run.results, **{name: (*others, row)}))


def ratio(low: float, high: float, c: int = CANDIDATE) -> Ratio:
    return Ratio(c, 0, "answer_ms", (low + high) / 2, low, high, "inconclusive")


def score(low: float | None, high: float | None, metric: str = "exact") -> Score:
    lost = None if low is None else (low + high) / 2
    return Score(CANDIDATE, metric, (1.0,) * 8, 1.0, (1.0,) * 8, 1.0, 0.0, lost, low, high)


SLOWER = 'metric = "answer_ms"\nstat = "ratio_median"\nvs = "baseline"\nmax = 1.05'


@pytest.mark.parametrize(
    ("low", "high", "word", "code"),
    [
        (0.90, 1.04, "holds", 0),
        (0.90, 1.05, "holds", 0),
        (1.04, 1.06, "inconclusive", 9),
        (0.50, 2.00, "inconclusive", 9),
        (1.06, 1.07, "broken", 8),
    ],
)
def test_the_interval_decides_rather_than_its_middle(judge, low, high, word, code):
    found = judge(SLOWER, ratio(low, high))
    assert ([each.outcome for each in found.findings], found.exit_code) == ([word], code)


@pytest.mark.parametrize(("low", "high", "code"), [(1.9, 2.1, 0), (0.9, 1.1, 9), (0.5, 0.9, 8)])
def test_a_lower_bound(judge, low, high, code):
    rule = 'metric = "answer_ms"\nvs = "baseline"\nmin = 1'
    assert judge(rule, ratio(low, high)).exit_code == code


def test_an_inconclusive_rule_may_only_warn(judge):
    found = judge(SLOWER + '\ninconclusive = "warn"', ratio(1.04, 1.06))
    assert found.exit_code == 0 and found.findings[0].outcome == "inconclusive" and found.undecided


@pytest.mark.parametrize(("bound", "code"), [("min = 1.7", 0), ("max = 1.7", 8)])
def test_the_ratio_of_rates_is_that_of_times_turned_round(judge, bound, code):
    found = judge(f'metric = "tokens_per_s"\nvs = "baseline"\n{bound}', run=None)
    assert found.exit_code == code and found.findings[0].value == pytest.approx(1 / 0.56, rel=0.02)


@pytest.mark.parametrize(
    ("low", "high", "code"), [(-0.2, 0.9, 0), (-0.2, 1.0, 0), (0.5, 1.5, 9), (1.1, 3.0, 7), (None, None, 9)]
)
def test_answers_may_lose_some_points(judge, low, high, code):
    assert judge('metric = "exact"\nnoninferior = 1.0', score(low, high)).exit_code == code


def test_worse_answers_come_before_slower_ones(make_run, tmp_path):
    (tmp_path / "gate.toml").write_text(f'[[rule]]\n{SLOWER}\n[[rule]]\nmetric = "exact"\nnoninferior = 1.0')
    run = _with(_with(replace(make_run(), quality=()), ratio(1.2, 1.3)), score(2, 3))
    assert outcome(run, load_rules(tmp_path / "gate.toml")).exit_code == 7


def test_of_two_tasks_the_one_that_certainly_lost_counts(judge):
    found = judge('metric = "exact"\nnoninferior = 1.0', score(-10, 10), score(2, 3))
    assert (found.findings[0].low, found.exit_code) == (2, 7)


def test_a_few_equal_answers_are_no_proof(judge):
    (found,) = judge('metric = "agreement"\nnoninferior = 1.0', score(0, 0)).findings
    assert (found.value, found.outcome) == (0, "inconclusive") and found.high > 30
    (found,) = judge('metric = "exact"\nmin = 0.99', score(0, 0)).findings
    assert (found.value, found.outcome) == (1, "inconclusive") and found.low < 0.7


@pytest.mark.parametrize(("bound", "code"), [("100MiB", 8), ("900MiB", 0)])
def test_a_size_is_judged_as_it_is(judge, bound, code):
    row = Absolute(CANDIDATE, "peak_pss", "value", 500 << 20, None, None, 1)
    assert judge(f'metric = "peak_pss"\nmax = "{bound}"', row).exit_code == code


def test_the_ratio_of_sizes(judge):
    assert judge('metric = "bundle_bytes"\nvs = "baseline"\nmax = 0.31').exit_code == 0
    assert judge('metric = "bundle_bytes"\nvs = "baseline"\nmax = 0.29').exit_code == 8


@pytest.mark.parametrize(
    "row",
    [
        Absolute(CANDIDATE, "answer_ms", "p99", None, None, None, 40),
        Absolute(CANDIDATE, "answer_ms", "p99", None, None, 1.0, 40, False, "n=40: bound, 33 % conf."),
        Absolute(CANDIDATE, "answer_ms", "p99", 1.0, None, 1.0, 40, False),
    ],
)
def test_too_few_samples_never_pass(judge, row):
    found = judge('metric = "answer_ms"\nstat = "p99"\nmax = "10 s"', row)
    assert (found.findings[0].outcome, found.exit_code) == ("inconclusive", 9) and found.findings[0].reason


@pytest.mark.parametrize(("bound", "code"), [("50 ms", 0), ("45 ms", 9), ("15 ms", 8)])
def test_a_percentile_lies_between_the_median_and_its_bound(judge, bound, code):
    """The median of the made-up candidate is 22 ms."""
    row = Absolute(CANDIDATE, "answer_ms", "p90", 40, None, 48, 400)
    assert judge(f'metric = "answer_ms"\nstat = "p90"\nmax = "{bound}"', row).exit_code == code


def test_the_slowest_that_was_seen_says_nothing_of_the_slowest(judge):
    row = Absolute(CANDIDATE, "answer_ms", "max", 40, None, None, 400)
    assert judge('metric = "answer_ms"\nstat = "max"\nmax = "50 ms"', row).exit_code == 9
    assert judge('metric = "answer_ms"\nstat = "max"\nmax = "30 ms"', row).exit_code == 8


def test_a_value_without_an_interval_is_inconclusive(judge):
    found = judge(
        'metric = "answer_ms"\nstat = "mean"\nmax = "9 s"', Absolute(CANDIDATE, "answer_ms", "mean", 1, None, None, 9)
    )
    assert found.exit_code == 9 and found.findings[0].reason == "it has no interval"


def test_what_was_not_measured_is_inconclusive(judge):
    found = judge('metric = "cold_ms"\nmax = "1 s"')
    assert found.exit_code == 9 and found.findings[0].reason == "`cold_ms` was not measured"


def test_a_start_that_compiles_may_have_a_rule_where_none_was_measured(judge):
    (found,) = judge('metric = "cold_miss_ms"\nmax = "90 s"').findings
    assert found.reason == "`cold_miss_ms` was not measured"


def test_a_difference_that_the_machine_cannot_see_breaks_nothing(judge, make_run):
    found = judge(SLOWER, ratio(1.06, 1.15), ratio(1.01, 1.2, c=2))
    assert (found.exit_code, found.findings[0].reason) == (9, "the baseline differs from itself by up to 20.0%")
    assert judge(SLOWER, ratio(1.06, 1.15)).exit_code == 8
    assert judge(SLOWER, ratio(1.06, 1.15), ratio(0.9, 1.2, c=2)).exit_code == 8  # chance, which its interval holds too


def test_one_group_of_processes_allows_no_claim(judge, make_run):
    run = make_run(processes=1)
    assert judge(SLOWER, ratio(0.5, 0.6), run=run).exit_code == 9


def test_everyone_but_the_baseline_and_its_twin_is_judged(judge, make_run):
    run = make_run(("a", "b onnxruntime", "c onnxruntime"))
    found = judge('metric = "answer_ms"\nmax = "9 s"', run=run)
    assert [each.candidate for each in found.findings] == ["b onnxruntime", "c onnxruntime"]
    found = judge('metric = "answer_ms"\nmax = "9 s"\ncandidate = "c*"', run=run)
    assert [each.candidate for each in found.findings] == ["c onnxruntime"]
    found = judge('metric = "answer_ms"\nmax = "9 s"\ncandidate = "a"', run=run)
    assert [each.candidate for each in found.findings] == ["a"]


def test_a_baseline_that_is_alone_is_judged_by_rules_that_compare_nothing(judge, make_run):
    run = make_run(("alone",))
    assert [each.candidate for each in judge('metric = "answer_ms"\nmax = "9 s"', run=run).findings] == ["alone"]
    with pytest.raises(UsageError, match="rule 1 compares with the baseline, which is alone"):
        judge(SLOWER, run=run)


def test_a_rule_about_nobody_is_refused(judge):
    with pytest.raises(UsageError, match=r"rule 1 is about `int4\*`, and no candidate is") as caught:
        judge(SLOWER + '\ncandidate = "int4*"')
    assert "scenes int8 onnxruntime" in caught.value.hint


def test_an_unknown_metric_is_refused_with_the_one_that_was_meant(judge):
    with pytest.raises(UsageError, match="no metric is called `answer`") as caught:
        judge('metric = "answer"\nmax = 1')
    assert caught.value.hint == "did you mean `answer_ms`?"


def test_times_cannot_be_non_inferior(judge):
    with pytest.raises(UsageError, match="`noninferior` is for metrics of answers"):
        judge('metric = "answer_ms"\nnoninferior = 1.0')


def test_a_run_that_was_not_completed_decides_nothing(judge, make_run):
    found = judge(SLOWER, ratio(1.2, 1.3), run=make_run(complete=False))
    assert found.exit_code == 9 and "was not completed" in found.doubts[0] and not found.undecided


def test_a_run_that_is_not_valid_decides_nothing(judge, make_run):
    flag = Flag("aa_differs", "error", "the baseline came out as slower than itself")
    found = judge(SLOWER, run=replace(make_run(), validity=Validity(False, (flag,))))
    assert found.exit_code == 9 and "slower than itself" in found.doubts[0]
    assert judge(SLOWER, run=replace(make_run(), validity=Validity(False))).exit_code == 9


def test_no_time_is_spent_on_a_run_that_decides_nothing_whatever_is_measured(judge, make_run):
    assert judge(SLOWER, ratio(1.04, 1.06)).undecided
    assert not judge(SLOWER, ratio(1.04, 1.06), run=replace(make_run(), validity=Validity(False))).undecided


def test_a_run_in_which_the_processor_was_throttled_decides_nothing(judge, make_run):
    run = make_run()
    samples = tuple(replace(each, flags=("throttled",)) if each.round % 10 == 0 else each for each in run.samples)
    found = judge(SLOWER, run=replace(run, samples=samples))
    assert found.exit_code == 9 and "throttled in 4 of 40 rounds" in found.doubts[0]


def test_an_unverified_candidate_is_refused_unless_it_is_accepted_and_marked(judge, make_run):
    run = make_run(finished=False)
    first, second, twin = run.candidates
    run = finished(replace(run, candidates=(first, replace(second, unverified=True), twin)))
    with pytest.raises(UsageError, match="is not verified") as caught:
        judge(SLOWER, run=run)
    assert "--unverified" in caught.value.hint
    found = judge(SLOWER, run=run, unverified=True)
    assert (found.exit_code, found.marks) == (0, ("UNVERIFIED",))


def test_candidates_measured_in_blocks_are_not_compared_unless_that_is_accepted(judge, make_run):
    run = make_run()
    run = replace(run, protocol=replace(run.protocol, interleave="blocks"))
    with pytest.raises(UsageError, match="measured in blocks"):
        judge(SLOWER, run=run)
    assert judge(SLOWER, run=run, unpaired=True).marks == ("UNPAIRED",)
    assert judge('metric = "peak_pss"\nmax = "9GiB"', run=run).marks == ()


@pytest.fixture
def beside(make_run, judge):
    """Judge a run by an earlier one."""

    def run_of(rule: str, speed: float, change=lambda run: run, **accepted: bool):
        earlier, now = (
            finished(make_run(finished=False, speeds=(1.0, each), seed=seed, rounds=60, noise=0.01, disturbed=0))
            for seed, each in ((1, 0.56), (2, speed))
        )
        earlier = change(replace(earlier, started="2025-12-31T12:00:00+00:00"))
        found = compare(earlier, now, ("earlier.json", "now.json"), unpaired=True)
        return judge(rule, run=now, against=found, **accepted)

    return run_of


@pytest.mark.parametrize(("speed", "code"), [(0.56, 0), (0.7, 8)])
def test_an_earlier_run_may_be_the_baseline(beside, speed, code):
    found = beside(SLOWER.replace("1.05", "1.1"), speed)
    assert (found.exit_code, found.marks) == (code, ("UNPAIRED",))
    assert [each.candidate for each in found.findings] == ["scenes float32 onnxruntime", "scenes int8 onnxruntime"]
    assert beside('metric = "bundle_bytes"\nvs = "baseline"\nmax = 1', speed).exit_code == 0
    assert beside('metric = "exact"\nnoninferior = 90', speed).exit_code == 0
    assert beside('metric = "agreement"\nnoninferior = 90', speed).exit_code == 0


def test_drift_since_an_earlier_run_leaves_it_open(beside):
    def drifted(run):
        return replace(run, sentinel=tuple(replace(each, ns=int(each.ns * 1.4)) for each in run.sentinel))

    assert beside(SLOWER, 0.7, drifted).exit_code == 9
    assert beside(SLOWER, 0.56, drifted).exit_code == 9
    assert beside(SLOWER, 1.2, drifted).exit_code == 8


def test_an_earlier_run_of_another_machine_decides_nothing(beside):
    found = beside(SLOWER, 2.0, lambda run: replace(run, machine=replace(run.machine, id="6" * 64)))
    assert found.exit_code == 9 and {each.reason for each in found.findings} == {"the machines differ"}


def test_an_earlier_run_that_is_not_complete_or_valid_decides_nothing(beside):
    assert beside(SLOWER, 2.0, lambda run: replace(run, complete=False)).doubts == ("`earlier.json` was not completed",)
    found = beside(SLOWER, 2.0, lambda run: replace(run, validity=Validity(False)))
    assert (found.exit_code, found.doubts) == (9, ("`earlier.json` is not valid: it says so itself",))


def test_an_earlier_run_that_is_not_verified_is_refused(beside):
    def unverified(run):
        first, *others = run.candidates
        return replace(run, candidates=(replace(first, unverified=True), *others))

    with pytest.raises(UsageError, match="is not verified"):
        beside(SLOWER, 0.56, unverified)
    assert beside(SLOWER, 0.56, unverified, unverified=True).marks == ("UNVERIFIED", "UNPAIRED")


def test_what_is_measured_after_the_rounds_does_not_prolong_them(judge):
    assert not judge('metric = "cold_ms"\nmax = "1 s"').undecided


def test_the_reference_agrees_with_itself(judge):
    rule = 'metric = "agreement"\nnoninferior = 1.0'
    assert judge(rule, replace(score(None, None), reference=CANDIDATE)).exit_code == 0


def test_measuring_longer_helps_times_alone(judge):
    assert judge(SLOWER, ratio(1.04, 1.06)).undecided
    assert not judge(SLOWER, ratio(0.9, 1.0)).undecided
    assert not judge('metric = "exact"\nnoninferior = 1.0', score(0.5, 1.5)).undecided


def test_the_example_judges_a_run(make_run):
    run = finished(make_run(finished=False, rounds=60))
    found = outcome(run, load_rules(EXAMPLE))
    assert found.exit_code == 0 and [each.outcome for each in found.findings].count("holds") >= 3
    slower = finished(make_run(finished=False, rounds=60, speeds=(1.0, 1.4)))
    assert outcome(slower, load_rules(EXAMPLE)).exit_code == 8


def test_a_planted_five_percent_is_told_from_none(make_run, judge):
    rule = SLOWER.replace("1.05", "1.03")
    for speed, code in ((1.0, 0), (1.06, 8)):
        run = finished(make_run(finished=False, rounds=200, noise=0.01, drift=0.002, disturbed=0, speeds=(1.0, speed)))
        assert judge(rule, run=run).exit_code == code


def test_an_outcome_is_json(judge):
    found = judge(SLOWER)
    assert msgspec.json.decode(msgspec.json.encode(found))["findings"][0]["outcome"] == "holds"
