import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from mmedge.profiling.numbers.quality import METRICS, scores_of

COUNT = 200


@pytest.fixture
def scored(make_run):
    """Scores of the second candidate, where the first and it answer some of the inputs wrongly."""

    def score(*, wrong=(), base_wrong=(), count=COUNT, task="ask", margin=1.0, expected=("yes",)):
        run = make_run(inputs=count, rounds=count, task=task, finished=False)
        items = tuple(replace(item, expected=expected) for item in run.inputs.items)
        answers = tuple(
            replace(each, text="no" if each.input in (wrong if each.c == 1 else base_wrong) else "yes", tokens=())
            for each in run.answers
        )
        run = replace(run, inputs=replace(run.inputs, items=items), answers=answers)
        return {each.c: each for each in scores_of(run, margin)}

    return score


def test_planted_wrong_answers_are_found(scored):
    planted = (3, 50, 99, 100, 199)
    found = scored(wrong=planted)[1]
    assert tuple(at for at, value in enumerate(found.per_input) if value == 0.0) == planted
    assert tuple(at for at, value in enumerate(found.agree) if value == 0.0) == planted
    assert (found.metric, found.mean, found.agreement) == ("exact", 195 / 200, 195 / 200)
    assert found.lost == pytest.approx(2.5)


def test_difference_and_interval_are_those_of_scipy(scored):
    wrong, base_wrong = range(0, 30), range(20, 40)
    found = scored(wrong=wrong, base_wrong=base_wrong)[1]
    lost = np.array([100.0 * ((at in wrong) - (at in base_wrong)) for at in range(COUNT)])
    expected = stats.bootstrap((lost,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1))
    assert found.lost == pytest.approx(lost.mean())
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval, abs=0.3)


def test_mcnemars_p_is_that_of_scipy(scored):
    found = scored(wrong=range(0, 12), base_wrong=range(10, 15))[1]
    assert found.mcnemar == pytest.approx(stats.binomtest(3, 13).pvalue)


@pytest.mark.parametrize(
    ("wrong", "margin", "verdict"), [(0, 5.0, "accepted"), (5, 10.0, "accepted"), (40, 1.0, "worse"), (5, 1.0, None)]
)
def test_the_verdict_is_what_the_whole_interval_agrees_on(wrong, margin, verdict, scored):
    assert scored(wrong=range(wrong), margin=margin)[1].verdict == (verdict or "inconclusive")


def test_a_handful_of_equal_answers_is_no_proof(scored):
    few, many = scored(count=8)[1], scored(count=1_000)[1]
    assert (few.lost, few.verdict) == (0.0, "inconclusive") and few.high > 30
    assert (many.lost, many.verdict) == (0.0, "accepted")


def test_the_baseline_is_compared_with_nobody(scored):
    assert (scored()[0].lost, scored()[0].verdict, scored()[0].agreement) == (None, None, 1.0)


def test_the_twin_agrees_with_the_baseline(scored):
    assert (scored(wrong=(1,))[2].agreement, scored(wrong=(1,))[2].lost) == (1.0, 0.0)


def test_without_right_answers_agreement_is_judged(scored):
    found = scored(wrong=range(4), expected=())[1]
    assert (found.metric, found.mean, found.mcnemar) == ("", None, None)
    assert found.lost == pytest.approx(2.0)


def test_a_baseline_that_knows_nothing_has_nothing_to_lose(scored):
    assert scored(base_wrong=range(COUNT), wrong=range(COUNT), margin=50.0)[1].verdict == "inconclusive"


def test_several_right_answers_of_people_are_judged_as_vqa_has_it(scored):
    found = scored(expected=("yes", "yes", "no"))[0]
    assert (found.metric, found.mean) == ("vqa", pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("expected", "metric"),
    [(("yes",), "exact"), (("a red cat", "one cat"), "exact"), (("a cat on a mat", "a cat"), "cider")],
)
def test_captions_of_a_few_words_are_right_or_wrong_others_more_or_less_alike(expected, metric, scored):
    assert scored(task="caption", expected=expected)[1].metric == metric
    assert scored(task="caption", expected=expected, base_wrong=range(COUNT))[1].metric == metric


def test_a_metric_of_likeness_has_no_wrong_answers_to_count(scored):
    assert scored(task="caption", expected=("a yes it is",))[1].mcnemar is None


def test_one_metric_judges_all_candidates_whatever_they_answered(make_run):
    run = make_run(inputs=8, finished=False)
    items = (replace(run.inputs.items[0], expected=("a long and winding caption",)), *run.inputs.items[1:])
    answers = tuple(each for each in run.answers if (each.c, each.input) != (1, 0))
    found = scores_of(replace(run, inputs=replace(run.inputs, items=items), answers=answers))
    assert {each.metric for each in found} == {"cider"}


def of_precisions(run, *precisions):
    """Without right answers; the second candidate answers the first input otherwise."""
    pairs = zip(run.candidates, precisions, strict=True)
    items = tuple(replace(item, expected=()) for item in run.inputs.items)
    candidates = tuple(replace(each, precisions=dict.fromkeys(each.precisions, said)) for each, said in pairs)
    return replace(run, candidates=candidates, inputs=replace(run.inputs, items=items))


def test_answers_agree_or_not_with_the_first_in_float32(make_run):
    run = of_precisions(make_run(finished=False), "int8", "float32", "int8")
    first, full, twin = scores_of(run)
    assert {each.reference for each in (first, full, twin)} == {1}
    assert (first.agreement, full.agreement, first.lost, full.lost) == (7 / 8, 1.0, pytest.approx(12.5), None)


def test_without_a_candidate_in_float32_they_agree_or_not_with_the_baseline(make_run):
    first, other, _ = scores_of(of_precisions(make_run(finished=False), "int8", "int4", "int8"))
    assert (other.reference, first.agreement, other.agreement) == (0, 1.0, 7 / 8)


def test_without_right_answers_others_differ_rather_than_being_worse(scored):
    assert scored(wrong=range(40), expected=())[1].verdict == "differs"


def test_a_few_inputs_tell_nothing_of_all_others(scored):
    found = scored(wrong=range(4), count=4)[1]
    assert (found.lost, found.verdict) == (100.0, "inconclusive")


def test_a_task_without_a_metric_is_judged_by_agreement(scored):
    assert "chat" not in METRICS
    assert scored(task="chat")[1].metric == ""


def test_two_tasks_have_two_scores(make_run):
    run = make_run(inputs=8, finished=False)
    items = tuple(replace(item, task="ask" if at % 2 else "caption") for at, item in enumerate(run.inputs.items))
    found = [each for each in scores_of(replace(run, inputs=replace(run.inputs, items=items))) if each.c == 1]
    assert [[value is not None for value in each.per_input] for each in found] == [[True, False] * 4, [False, True] * 4]


def test_inputs_that_only_one_of_them_answered_are_not_compared(make_run):
    run = make_run(inputs=4, finished=False)
    run = replace(run, answers=tuple(each for each in run.answers if (each.c, each.input) != (1, 2)))
    found = next(each for each in scores_of(run) if each.c == 1)
    assert found.per_input[2] is None and found.agree[2] is None


def test_a_candidate_that_answered_nothing_has_no_score(make_run):
    run = make_run(finished=False)
    run = replace(run, answers=tuple(each for each in run.answers if each.c != 1))
    assert {each.c for each in scores_of(run)} == {0, 2}


def test_edits_are_of_tokens_where_they_are_known_else_of_words(make_run):
    run = make_run(inputs=1, changed=0, finished=False)

    def edit(text: str, tokens: tuple[int, ...]) -> float:
        said = [replace(each, text="a b c d", tokens=(1, 2, 3)) for each in run.answers]
        said[1] = replace(said[1], text=text, tokens=tokens)
        return next(each.edit for each in scores_of(replace(run, answers=tuple(said))) if each.c == 1)

    assert edit("a b c e", (1, 2, 4)) == pytest.approx(1 / 3)
    assert edit("a b c e", ()) == pytest.approx(1 / 4)
