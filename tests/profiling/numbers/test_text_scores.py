import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.profiling.numbers.text_scores import cider, edit_distance, right, vqa

PICTURES = (
    ("a man rides a brown horse on the beach", "a person riding a horse by the sea"),
    ("two dogs play with a red ball", "a pair of dogs chase a ball on grass"),
    ("a plate of food with a fork", "some food on a white plate"),
)


def test_case_and_white_space_do_not_make_an_answer_wrong():
    assert right("  A red\n square ", ["a red square"]) == 1.0
    assert right("a red square.", ["a red square"]) == 0.0
    assert right("two", ["2", "two"]) == 1.0


@pytest.mark.parametrize(("same", "score"), [(0, 0.0), (1, 1 / 3), (2, 2 / 3), (3, 1.0), (9, 1.0)])
def test_an_answer_that_three_people_gave_is_wholly_right(same, score):
    assert vqa("Red", ["red"] * same + ["blue"] * (10 - same)) == pytest.approx(score)


def test_articles_and_punctuation_do_not_count():
    assert vqa("The red ball.", ["a red ball"] * 10) == 1.0


def test_with_few_right_answers_any_of_them_will_do():
    assert vqa("sofa", ["couch", "sofa"]) == 1.0
    assert vqa("chair", ["couch", "sofa"]) == 0.0


def test_a_caption_equal_to_its_only_reference_scores_ten():
    references = [(each[0],) for each in PICTURES]
    assert cider([each[0] for each in PICTURES], references) == pytest.approx([10.0] * 3)


def test_a_caption_of_another_picture_scores_little():
    references = [(each[0],) for each in PICTURES]
    good, bad = cider([PICTURES[0][0], PICTURES[0][0], ""], references)[:2]
    assert good > 20 * bad


def test_better_captions_score_more():
    candidates = ("a man rides a brown horse on the beach", "a man on a horse", "a horse", "a plate")
    scores = [cider([each, "two dogs", "food"], PICTURES)[0] for each in candidates]
    assert scores == sorted(scores, reverse=True) and scores[-1] < 0.5


def test_words_that_every_picture_has_are_worth_nothing():
    references = [("a cat",), ("a dog",), ("a cow",)]
    assert cider(["a", "a", "a"], references) == [0.0, 0.0, 0.0]


def test_repeating_a_word_gains_nothing():
    once, often = (cider([each, "x", "y"], PICTURES)[0] for each in ("brown horse", "brown horse " * 4))
    assert often < once


def test_the_formula_by_hand():
    """Two pictures of one word each: only phrases of one word count, each a quarter of the score."""
    assert cider(["cat", "cat"], [("cat",), ("dog",)]) == pytest.approx([10 / 4, 0.0])


@pytest.mark.parametrize(
    ("one", "two", "share"),
    [("", "", 0.0), ("abc", "abc", 0.0), ("abc", "", 1.0), ("kitten", "sitting", 3 / 7), ("ab", "ba", 1.0)],
)
def test_the_edit_distance_is_a_share_of_the_longer_one(one, two, share):
    assert edit_distance(one, two) == pytest.approx(share)


@given(st.text("ab", max_size=6), st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_edits_are_a_distance(one, two, three):
    def edits(a: str, b: str) -> int:
        return round(edit_distance(a, b) * max(len(a), len(b), 1))

    assert edits(one, two) == edits(two, one)
    assert (edits(one, two) == 0) == (one == two)
    assert edits(one, three) <= edits(one, two) + edits(two, three)
