import pytest
from msgspec.structs import replace

from mmedge.profiling.doubts import doubts_of
from mmedge.profiling.meters import State


def doubts(profile) -> list[tuple[str, str]]:
    return [(doubt.what, doubt.advice) for doubt in doubts_of(profile)]


def test_a_quiet_measurement_raises_none(made_up):
    assert doubts(made_up()) == []


def test_too_few_rounds_for_an_interval(made_up):
    assert doubts(made_up(rounds=5)) == [
        ("5 rounds are too few for a confidence interval", "use --rounds 30"),
    ]


def test_rounds_that_are_no_whole_block(made_up):
    assert doubts(made_up(rounds=32)) == [("in 32 rounds not everyone had every place", "use --rounds 36")]


def test_a_first_candidate_that_differs_from_itself(made_up):
    found = doubts(made_up(lambda candidate, index: 11.0 if candidate == 2 else 10.0))
    assert found == [
        (
            "the first candidate against itself came out as x1.100 to x1.100: smaller differences mean nothing here",
            "close other programs, or use more --rounds or --sittings",
        )
    ]


def test_one_program_that_takes_another_time_in_every_round(made_up):
    def times(candidate: int, index: int) -> float:
        return 10.0 * (1.5 if (candidate == 2) == bool(index % 2) else 1.0)

    whats = [what for what, _ in doubts(made_up(times))]
    assert "the same program is 81% slower or faster from one round to the next" in whats


def test_a_cold_first_run_in_most_sittings(made_up):
    """Sittings are six rounds long."""
    found = made_up(lambda candidate, index: 90.0 if candidate == 1 and index % 6 == 0 else 10.0)
    assert doubts(found) == [("the first run of int8 onnxruntime took 9.0x the median", "use --warmup 10")]


def test_a_first_picture_that_takes_longer_is_no_cold_start(made_up):
    """Each sitting begins with the same one of three pictures."""
    assert doubts(made_up(lambda candidate, index: 10.0 if index % 3 else 40.0)) == []


def test_one_bad_moment_is_no_cold_start(made_up):
    assert doubts(made_up(lambda candidate, index: 90.0 if candidate == 1 and index == 0 else 10.0)) == []


def test_answers_that_change_from_round_to_round(made_up):
    found = made_up(text=lambda candidate, index: f"{index % 2} cats" if candidate == 1 else "a cat")
    assert [what for what, _ in doubts(found)] == [
        "int8 onnxruntime answers differently from round to round (3 pictures, first 0)"
    ]


@pytest.mark.parametrize(("tokens", "said"), [(6, "20% more"), (4, "20% fewer")])
def test_answers_of_another_length(tokens, said, made_up):
    found = made_up(tokens=lambda candidate: tokens if candidate == 1 else 5)
    assert doubts(found) == [
        (
            f"int8 onnxruntime writes {said} tokens than float32 onnxruntime",
            "compare first token and tokens/s rather than the whole answer",
        )
    ]


def test_pictures_that_were_left_out(made_up):
    assert doubts(made_up(pictures=100)) == [("30 of 100 pictures were answered", "use --rounds 100")]


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (State(4.7, (), False, 0.0), "4.7 processes wanted the 4 cores before it began"),
        (State(0.0, ("powersave",), False, 0.0), "the clock rate varies (governor powersave)"),
        (State(0.0, (), True, 0.0), "the machine runs on its battery"),
        (State(0.0, (), False, 12.0), "12 MiB of memory were swapped out"),
    ],
    ids=["busy", "clock", "battery", "swap"],
)
def test_a_machine_in_a_bad_state(state, what, made_up):
    assert [found for found, _ in doubts(made_up(state=state))] == [what]


def test_swapping_that_began_meanwhile(made_up):
    found = made_up()
    after = replace(found, machine=replace(found.machine, after=State(0.0, (), False, 100.0)))
    assert [what for what, _ in doubts(after)] == ["100 MiB of memory were swapped out"]
