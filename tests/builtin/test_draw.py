"""The generator behind `builtin:scenes`; scenes without digits, so that scikit-learn is not needed."""

import re
from itertools import pairwise

import numpy as np
import pytest

from mmedge.builtin.scenes import draw
from mmedge.builtin.scenes.draw import PICTURE, SPLITS, Scene, Thing

SEEDS = range(100)


def thing(words: str, x: float, y: float, sample: int = -1) -> Thing:
    size, colour, shape = words.split()
    return Thing(shape, colour, size, x, y, 10, 0, draw.COLOURS[colour], sample)


def scene(*things: Thing) -> Scene:
    return Scene(0, draw.in_caption_order(things))


def shapes(seed: int) -> Scene:
    return draw.imagine(seed, draw.KINDS | {"digit": 0})


def test_a_seed_is_the_whole_drawing():
    one, same = draw.draw(7, digits=False), draw.draw(7, digits=False)
    assert one.image.tobytes() == same.image.tobytes()
    assert one[1:] == same[1:]


def test_seeds_differ():
    assert len({draw.draw(seed, digits=False).image.tobytes() for seed in SEEDS[:20]}) == 20


def test_pictures_are_rgb_and_of_one_size():
    images = [draw.draw(seed, digits=False).image for seed in SEEDS[:20]]
    assert {(image.size, image.mode) for image in images} == {((PICTURE, PICTURE), "RGB")}


def test_no_seed_is_in_two_splits():
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(before.stop <= after.start for before, after in pairwise(ranges))
    assert {draw.split_of(seeds[-1]) for seeds in ranges} == set(SPLITS)


def test_a_seed_outside_every_split_is_refused():
    with pytest.raises(ValueError, match="seed -1 is outside every split"):
        draw.split_of(-1)


def test_no_handwritten_digit_is_in_two_splits():
    pytest.importorskip("sklearn")
    shares = [set(draw._samples(split)) for split in SPLITS]
    assert sum(map(len, shares)) == len(set.union(*shares)) == len(draw._handwriting()[0])


def test_every_split_shows_every_digit():
    pytest.importorskip("sklearn")
    numbers = draw._handwriting()[1]
    assert all({int(numbers[sample]) for sample in draw._samples(split)} == set(range(10)) for split in SPLITS)


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        ([thing("big orange ring", 50, 50)], "a big orange ring"),
        ([thing("small red star", 80, 50), thing("big blue ring", 20, 40)], "a big blue ring left of a small red star"),
        ([thing("small red star", 50, 80), thing("big blue ring", 40, 20)], "a big blue ring above a small red star"),
        (
            [thing("small red star", 80, 50), thing("big blue ring", 20, 40), thing("big pink heart", 50, 80)],
            "a big blue ring, a big pink heart and a small red star",
        ),
        ([thing("big white seven", 50, 50, sample=3)], "the digit seven"),
    ],
)
def test_the_caption_says_what_the_scene_shows(things, expected):
    assert draw.caption(scene(*things)) == expected


def test_captions_are_never_a_close_call():
    for seed in SEEDS:
        things = shapes(seed).things
        if len(things) == 2:
            one, other = things
            assert abs(abs(one.x - other.x) - abs(one.y - other.y)) >= draw.MARGIN
        else:
            assert all(after.x - before.x >= draw.MARGIN for before, after in pairwise(things))


def test_nothing_hides_or_leaves_the_picture():
    for seed in SEEDS[:30]:
        masks = [draw.mask(thing) for thing in shapes(seed).things]
        assert np.sum(masks, axis=0).max() <= 1
        assert all(cover[0].max() == cover[-1].max() == cover[:, 0].max() == cover[:, -1].max() == 0 for cover in masks)


def test_big_is_clearly_bigger_than_small():
    for shape in draw.SHAPES:
        small, big = (
            draw.mask(Thing(shape, "red", size, 48, 48, radius, 0, (0, 0, 0))).sum()
            for size, radius in (("small", draw.RADII["small"][1]), ("big", draw.RADII["big"][0]))
        )
        assert big > 1.8 * small


def test_articles_are_english():
    texts = [" ".join((draw.caption(shapes(seed)), *sum(draw.questions(shapes(seed)), ()))) for seed in SEEDS]
    words = re.findall(r"\b(an?) (\w)", " ".join(texts))
    assert {("an", "o"), ("a", "r")} <= set(words)
    assert all((article == "an") == (letter in "aeiou") for article, letter in words)


def test_no_question_has_two_answers():
    for seed in SEEDS:
        asked = dict(draw.questions(shapes(seed)))
        assert all(asked[question] == answer for question, answer in draw.questions(shapes(seed)))


def test_what_is_not_there_shares_its_colour_or_shape_with_what_is():
    for seed in SEEDS:
        present = {(thing.colour, thing.shape) for thing in shapes(seed).things}
        colours, kinds = zip(*present, strict=True)
        for question, answer in draw.questions(shapes(seed)):
            if draw.question_kind(question) == "presence":
                colour, shape = question.rstrip("?").split()[-2:]
                assert ((colour, shape) in present) == (answer == "yes")
                assert colour in colours or shape in kinds


def test_half_of_the_presence_questions_are_answered_no():
    answers = [answer for seed in SEEDS for _, answer in draw.questions(shapes(seed))]
    assert answers.count("yes") == answers.count("no") > 0


def test_neighbours_are_asked_for_where_there_is_one():
    row = scene(thing("small red star", 20, 50), thing("big blue ring", 50, 50), thing("big red ring", 80, 50))
    assert set(draw.questions(row)[-2:]) == {
        ("what is left of the blue ring?", "a small red star"),
        ("what is right of the blue ring?", "a big red ring"),
    }


def test_every_question_has_its_kind():
    kinds = {draw.question_kind(question) for seed in SEEDS for question, _ in draw.questions(shapes(seed))}
    assert kinds == {"colour", "shape", "size", "presence", "count", "place"}
