import pytest

from mmedge.profiling.numbers.disturbances import flagged_rounds
from mmedge.profiling.run import Host, Sentinel


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (Host(0, 0), ()),
        (Host(0, 0, steal=0.01), ()),
        (Host(0, 0, steal=0.011), ("steal",)),
        (Host(0, 0, pressure={"cpu": 1.0, "io": 5.1}), ("pressure",)),
        (Host(0, 0, throttled=True), ("throttled",)),
        (Host(0, 0, swapped=4096), ("swapped",)),
        (Host(0, 0, steal=0.5, throttled=True), ("steal", "throttled")),
    ],
)
def test_what_the_machine_tells_flags_a_round(host, said):
    assert flagged_rounds([host], []).get(0, ()) == said


@pytest.mark.parametrize(("ns", "flagged"), [(1_099, False), (1_111, True), (889, True), (901, False)])
def test_a_sentinel_that_is_a_tenth_off_flags_its_round(ns, flagged):
    usual = [Sentinel(number, 1_000) for number in range(9)]
    assert flagged_rounds([], [*usual, Sentinel(9, ns)]) == ({9: ("sentinel",)} if flagged else {})


def test_nothing_measured_flags_nothing():
    assert flagged_rounds([], []) == {}
