import pytest

from mmedge.profiling.warmup import enough, steady

FLAT = [1.0, 1.01, 1.0, 0.99, 1.0, 1.01, 1.0, 1.0, 0.99, 1.0]


def test_a_pace_that_stays_is_steady():
    assert steady(FLAT)


@pytest.mark.parametrize(
    "times",
    [
        FLAT[:8],
        [2 - 0.02 * index for index in range(10)],
        [1.0, 1.0, 1.3, 1.3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    ],
    ids=["too few", "still falling", "an outlier"],
)
def test_what_is_not_steady(times):
    assert not steady(times)


def test_a_steady_pace_ends_the_warm_up():
    assert not enough(FLAT[:9], seconds=100, answers=10, most_s=1000)
    assert enough(FLAT, seconds=100, answers=10, most_s=1000)


@pytest.mark.parametrize(
    ("count", "seconds", "answers", "most_s"),
    [(40, 100, 10, 1000), (12, 3, 10, 1000), (5, 100, 10, 5), (1, 3, 10, 0.5)],
)
def test_patience_ends(count, seconds, answers, most_s):
    rising = [1.0 + 0.5 * index / count for index in range(count)]
    assert enough(rising, seconds, answers, most_s)


def test_nothing_was_warmed_up_without_an_answer():
    assert not enough([], seconds=0, answers=1, most_s=0)
