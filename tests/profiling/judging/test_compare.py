from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from mmedge.errors import UsageError
from mmedge.profiling.judging.compare import compare
from mmedge.profiling.keep import read_run
from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.run import Flag, Validity

OLDER = Path(__file__).parents[1] / "older" / "mmedge.profile.1.json"
FILES = ("a.json", "b.json")
BASELINE, INT8 = "scenes float32 onnxruntime", "scenes int8 onnxruntime"


@pytest.fixture(scope="module")
def run(make_run):
    """By speed of the second candidate; ``started`` and seed tell two runs apart."""

    def make(speed: float = 0.56, seed: int = 1, **told):
        made = make_run(finished=False, speeds=(1.0, speed), seed=seed, rounds=60, noise=0.01, disturbed=0, **told)
        return finished(replace(made, started=f"2026-01-0{seed}T12:00:00+00:00"))

    return make


def difference(pair, metric="answer_ms"):
    return next(each for each in pair.differences if each.metric == metric)


def test_candidates_of_one_run_are_compared_as_the_run_has_it(run):
    one = run()
    found = compare(one, one, FILES)
    (pair,) = found.pairs
    ratio = one.ratio(1)
    assert (found.paired, found.marks, pair.matched, pair.a, pair.b) == (True, (), "run", BASELINE, INT8)
    told = difference(pair)
    assert (told.ratio, told.low, told.high, told.verdict) == (ratio.ratio, ratio.low, ratio.high, "faster")
    assert difference(pair, "bundle_bytes").ratio == pytest.approx(0.3)
    assert (pair.answered, [each.input for each in pair.changed]) == (8, ["picture-0"])
    assert pair.quality[0].lost == pytest.approx(12.5)


def test_more_tokens_a_second_are_faster(run):
    found = compare(run(0.7), run(seed=2), FILES, unpaired=True)
    told = difference(found.pairs[1], "tokens_per_s")
    assert told.ratio > 1 and told.verdict == "faster"


def test_of_one_run_the_file_that_was_completed_counts(run):
    whole = run()
    draft = replace(whole, complete=False, samples=whole.samples[:100], results=type(whole.results)())
    assert compare(draft, whole, FILES).pairs == compare(whole, whole, FILES).pairs


def test_two_runs_are_refused_unless_that_is_accepted(run):
    with pytest.raises(UsageError, match=r"`a.json` and `b.json` are two runs") as caught:
        compare(run(), run(seed=2), FILES)
    assert "--unpaired" in caught.value.hint


def test_two_runs_of_one_machine_are_labelled(run):
    found = compare(run(), run(0.7, seed=2), FILES, unpaired=True)
    assert (found.paired, found.same_machine, found.marks) == (False, True, ("UNPAIRED",))
    base, int8 = found.pairs
    assert (base.a, base.b, base.matched, base.marks) == (BASELINE, BASELINE, "name", ("UNPAIRED",))
    assert difference(base).verdict == "same"
    told = difference(int8)
    assert told.low < 0.7 / 0.56 < told.high and told.verdict == "slower"
    assert difference(int8, "tokens_per_s").verdict == "slower"


def test_what_the_machine_drifted_by_is_no_difference(run):
    other = run(0.7, seed=2)
    slow = replace(other, sentinel=tuple(replace(each, ns=int(each.ns * 1.4)) for each in other.sentinel))
    found = compare(run(), slow, FILES, unpaired=True)
    assert found.drift == pytest.approx(1.4, abs=0.02)
    assert [difference(pair).verdict for pair in found.pairs] == ["inconclusive", "inconclusive"]


def test_another_machine_is_refused_or_allows_no_verdict(run):
    other = run(0.7, seed=2)
    other = replace(other, machine=replace(other.machine, id="6" * 64, name="Another Board"))
    with pytest.raises(UsageError, match=r"measured on Some Board, `b.json` on Another Board"):
        compare(run(), other, FILES)
    found = compare(run(), other, FILES, unpaired=True)
    assert not found.same_machine and found.marks == ("UNPAIRED",)
    assert {each.verdict for pair in found.pairs for each in pair.differences} == {None}
    assert difference(found.pairs[1]).ratio == pytest.approx(1.25, abs=0.02)


def test_machines_that_nobody_knows_are_not_the_same(run):
    unknown = [replace(each, machine=replace(each.machine, id="")) for each in (run(), run(seed=2))]
    with pytest.raises(UsageError, match="nobody knows which"):
        compare(*unknown, FILES)
    assert not compare(*unknown, FILES, unpaired=True).same_machine


def test_no_common_inputs_are_refused_naming_both(run):
    with pytest.raises(UsageError, match=r"asked different things: caption picture-0, .*; and ask picture-0"):
        compare(run(), run(seed=2, task="ask"), FILES, unpaired=True)


def test_another_picture_by_the_same_name_is_another_input(run):
    other = run(seed=2)
    items = tuple(replace(item, features=item.features | {"bytes": 7.0}) for item in other.inputs.items[:6])
    other = replace(other, inputs=replace(other.inputs, items=(*items, *other.inputs.items[6:])))
    assert compare(run(), other, FILES, unpaired=True).inputs == 2


def test_inputs_of_which_one_run_tells_less_are_the_same(run):
    other = run(seed=2)
    items = tuple(replace(item, features={}) for item in other.inputs.items)
    found = compare(run(), replace(other, inputs=replace(other.inputs, items=items)), FILES, unpaired=True)
    assert found.inputs == 8


def test_inputs_in_another_order_are_found(run):
    """The made-up answers are those of the input's place, so every answer that is compared here differs."""
    one, other = run(changed=0), run(seed=2, changed=0)
    turned = replace(other, inputs=replace(other.inputs, items=tuple(reversed(other.inputs.items))))
    pair = compare(one, turned, FILES, unpaired=True).pairs[0]
    assert pair.answered == 8 and len(pair.changed) > 0


def test_a_candidate_that_was_renamed_is_found_by_its_bundle(run):
    other = run(seed=2)
    first, second, twin = other.candidates
    other = replace(other, candidates=(first, replace(second, name="scenes int8 new"), twin))
    pair = compare(run(), other, FILES, unpaired=True).pairs[1]
    assert (pair.a, pair.b, pair.matched) == (INT8, "scenes int8 new", "bundle")


def test_the_only_candidates_are_compared_whatever_they_are_called(make_run):
    a, b = (finished(make_run((name,), finished=False, seed=seed)) for name, seed in (("old", 1), ("new", 2)))
    b = replace(b, candidates=tuple(replace(each, digest="9" * 64) for each in b.candidates))
    (pair,) = compare(a, b, FILES, unpaired=True).pairs
    assert (pair.a, pair.b, pair.matched) == ("old", "new", "only")


def test_no_common_candidate_is_refused_naming_all(run):
    other = run(seed=2)
    renamed = tuple(replace(each, name=f"x{each.name}", digest="9" * 64) for each in other.candidates)
    with pytest.raises(UsageError, match=f"no candidate in common: {BASELINE}; {INT8}; and x{BASELINE}"):
        compare(run(), replace(other, candidates=renamed), FILES, unpaired=True)


def test_a_lone_candidate_has_nobody_to_be_compared_with(make_run):
    alone = make_run(("alone",))
    with pytest.raises(UsageError, match="no two candidates"):
        compare(alone, alone, FILES)


def test_marks_are_carried(run):
    one, other = run(), replace(run(seed=2), complete=False)
    first, second, twin = one.candidates
    one = replace(one, candidates=(first, replace(second, unverified=True), twin))
    found = compare(one, other, FILES, unpaired=True)
    assert [pair.marks for pair in found.pairs] == [
        ("UNPAIRED", "INCOMPLETE"),
        ("UNPAIRED", "INCOMPLETE", "UNVERIFIED"),
    ]
    assert set(found.marks) == {"UNPAIRED", "INCOMPLETE", "UNVERIFIED"}


def test_a_run_that_is_not_valid_is_marked(run):
    flag = Flag("aa_differs", "error", "the baseline came out as slower than itself")
    one = replace(run(), validity=Validity(False, (flag,)))
    found = compare(one, one, FILES)
    assert found.marks == ("INVALID",) and found.a.doubts == (flag.text,)


def test_nothing_is_told_of_what_is_inconclusive_or_not_valid(run):
    one = run()
    assert compare(one, one, FILES).exit_code == 0
    assert compare(*[replace(one, validity=Validity(False))] * 2, FILES).exit_code == 9
    open_ = tuple(replace(ratio, verdict="inconclusive") for ratio in one.results.ratios)
    assert compare(*[replace(one, results=replace(one.results, ratios=open_))] * 2, FILES).exit_code == 9
    known = (replace(open_[0], verdict="faster"), *open_[1:])
    assert compare(*[replace(one, results=replace(one.results, ratios=known))] * 2, FILES).exit_code == 0


def test_each_task_is_judged_by_itself(run):
    one = run()
    items = (*one.inputs.items[:4], *(replace(item, task="ask", text="what?") for item in one.inputs.items[4:]))
    one = finished(replace(one, inputs=replace(one.inputs, items=items)))
    assert [each.task for each in compare(one, one, FILES).pairs[0].quality] == ["caption", "ask"]
    other = replace(one, started="later")
    quality = compare(one, other, FILES, unpaired=True).pairs[1].quality
    assert [(each.metric, each.task) for each in quality[2:]] == [("agreement", "caption"), ("agreement", "ask")]
    assert {each.task for each in quality[:2]} == {"caption", "ask"}


def test_answers_that_changed_between_two_runs(run):
    """Answers do not depend on when they were given: they are paired by input all the same."""
    found = compare(run(changed=0), run(seed=2, changed=3), FILES, unpaired=True)
    base, int8 = found.pairs
    assert base.changed == () and [each.input for each in int8.changed] == ["picture-0", "picture-1", "picture-2"]
    assert [each.metric for each in int8.quality] == ["exact", "agreement"]
    for quality in int8.quality:
        assert (quality.a, quality.lost) == (1.0, pytest.approx(37.5)) and quality.low < 37.5 < quality.high


def test_a_run_of_the_first_version_compares_with_itself():
    old = read_run(OLDER)
    (pair,) = compare(old, old, FILES).pairs
    assert difference(pair).ratio == old.ratio(1).ratio


def test_versions_and_settings_that_differ_are_told(run):
    other = run(seed=2)
    other = replace(other, protocol=replace(other.protocol, limit=6), software=other.software | {"numpy": "2.4.0"})
    found = compare(run(), other, FILES, unpaired=True)
    assert found.differs == {"limit": (None, "6 tokens"), "numpy": ("2.3.0", "2.4.0")}


def test_a_comparison_is_json(run):
    found = msgspec.json.decode(msgspec.json.encode(compare(run(), run(seed=2), FILES, unpaired=True)))
    assert found["schema"] == "mmedge.compare/1" and found["marks"] == ["UNPAIRED"] and found["paired"] is False
