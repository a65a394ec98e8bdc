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


def test_captions_that_the_baseline_gives_word_by_word_are_right_or_wrong(scored):
    assert scored(task="caption")[1].metric == "exact"


def test_other_captions_are_as_good_as_they_are_alike(scored):
    found = scored(task="caption", expected=("yes sir", "a yes"))[1]
    assert (found.metric, found.mcnemar) == ("cider", None)


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
