import msgspec
import pytest
from msgspec.structs import replace

from mmedge.core.board import Board, Clock
from mmedge.profiling import statistics
from mmedge.profiling.doubts import doubts_of
from mmedge.profiling.meters import State
from mmedge.profiling.power import Power
from mmedge.profiling.report import Profile
from mmedge.profiling.results import results_of
from mmedge.profiling.show import WIDTH, lines


def noisy(candidate: int, index: int) -> float:
    return 10.0 * (candidate + 1) * (1 + (index * 7 + candidate * 3) % 5 / 10)


@pytest.fixture(scope="module")
def worst(made_up):
    """Long names, many candidates, large numbers, every doubt that can be had together."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(statistics, "RESAMPLES", 100)
    names = [f"{name}-of-a-very-long-model-name-{'x' * 60} onnxruntime+openvino" for name in "abcdef"]
    found = made_up(
        lambda candidate, index: 1e4 * noisy(candidate, index),
        rounds=1003,
        names=names,
        pictures=2000,
        expected="a picture",
        text=lambda candidate, index: f"{index % 1000} cats",
        tokens=lambda candidate: 200 * (candidate + 1),
        state=State(123.4, ("powersave", "schedutil"), True, 12345.0),
    )
    monkeypatch.undo()
    return replace(found, doubts=doubts_of(found))


def test_no_line_is_wider_than_a_terminal(worst):
    assert len(worst.doubts) > 12
    assert [line for line in lines(worst) if len(line) > WIDTH] == []


def test_no_line_ends_in_space(worst):
    assert [line for line in lines(worst) if line != line.rstrip()] == []


def test_numbers_stand_in_columns_of_their_own(worst):
    """No two cells run into each other, whatever they hold."""
    rows = [line.split() for line in lines(worst) if line[14:16].strip().isdigit() and " .. " in line]
    assert rows and {len(row) for row in rows if row[0].isdigit()} == {8}
    costs = [line.split() for line in lines(worst) if line.endswith("/1003")]
    assert len(costs) == 7 and {len(row) for row in costs} == {9}


def test_a_row_tells_time_spread_ratio_interval_and_verdict(made_up):
    found = made_up(lambda candidate, index: 5.0 if candidate == 1 else 10.0)
    shown = list(lines(found))
    start = next(index for index, line in enumerate(shown) if "median ms" in line) + 1
    assert shown[start : start + 3] == [
        "answer         1      10.00     0.000",
        "               2       5.00     0.000   x0.50    0.500 .. 0.500  faster",
        "               =      10.00     0.000   x1.00    1.000 .. 1.000  same",
    ]


def test_a_row_tells_what_a_candidate_takes_besides_time(made_up):
    found = made_up(expected="a picture", text=lambda candidate, index: "a dog" if candidate == 1 else "a picture")
    shown = list(lines(found))
    start = next(index for index, line in enumerate(shown) if "start s" in line)
    assert shown[start : start + 4] == [
        "    start s  load s  PSS MiB  peak MiB  file MiB  tokens/s      right       as 1",
        " 1    0.600   0.300       50        70       5.0     666.7        3/3        3/3",
        " 2    0.600   0.300       50        70       5.0     666.7        0/3        0/3",
        " =    0.600   0.300        -         -       5.0     666.7        3/3        3/3",
    ]


def test_what_cannot_be_told_is_a_dash(made_up):
    found = made_up(tokens=lambda candidate: 1)
    row = next(line for line in lines(found) if line.startswith(" 1    0.600"))
    assert row.split()[6:8] == ["-", "-"]


@pytest.mark.parametrize(
    ("apart", "said"),
    [
        (1.00, "faster, slower: by more than 3.0%; same: within 3.0%"),
        (1.05, "faster, slower: by more than 5.0%; same: within 5.0%"),
        (1.25, "faster, slower: by more than 25.0%; same: within 10.0%"),
    ],
)
def test_the_bounds_of_the_verdicts_are_told(apart, said, made_up):
    found = made_up(lambda candidate, index: 10.0 * apart if candidate == 2 else 10.0)
    assert said in " ".join(lines(found))


def test_doubts_come_last_with_their_advice(made_up):
    found = made_up(pictures=100)
    shown = list(lines(replace(found, doubts=doubts_of(found))))
    assert shown[-1] == "doubt: 30 of 100 pictures were answered; use --rounds 100"


ORIN = Board(
    model="NVIDIA Jetson Orin Nano Developer Kit",
    l4t="36.4.3",
    jetpack="6.2",
    power_mode="MAXN_SUPER",
    clocks=(Clock("cpu0", 1728.0, 1728.0, 1728.0, 1728.0),),
    temperatures={"cpu-thermal": 45.0, "tj-thermal": 46.0},
)


def on_a_board(found, *, whole="VDD_IN"):
    """The same profile, where the first candidate drew 300 mJ an answer, and the second 150."""
    power = Power(("VDD_IN", "VDD_SOC"), whole)
    after = {"cpu-thermal": 60.0, "tj-thermal": 61.5}
    machine = replace(found.machine, board=ORIN, power=power, temperatures_after=after)
    drawn = {0: 300.0, 1: 150.0, 2: 310.0}
    runs = (replace(run, energy_mj={"VDD_IN": drawn[run.candidate], "VDD_SOC": 20.0}) for run in found.runs)
    measured = replace(found, machine=machine, runs=tuple(runs))
    return replace(measured, results=results_of(measured))


def test_a_board_tells_its_software_power_mode_energy_and_temperature(made_up):
    shown = list(lines(on_a_board(made_up())))
    assert shown[1] == "JetPack 6.2, Jetson Linux 36.4.3, power mode MAXN_SUPER, clocks fixed"
    start = next(index for index, line in enumerate(shown) if "energy" in line)
    assert shown[start:] == [
        " 1  energy, mJ an answer: VDD_IN 300.0, VDD_SOC 20.00",
        " 2  energy, mJ an answer: VDD_IN 150.0, VDD_SOC 20.00",
        " =  energy, mJ an answer: VDD_IN 310.0, VDD_SOC 20.00",
        "energy: through supply rails, idle power included; VDD_IN carries all that is",
        "measured",
        "temperature of tj-thermal, degrees C: 46.0 before, 61.5 after",
    ]


def test_rails_that_carry_only_a_part_are_not_passed_off_as_the_board(made_up):
    assert "no one of them carries all that is measured" in " ".join(lines(on_a_board(made_up(), whole="")))


def test_energy_that_cannot_be_measured_is_said_once(made_up):
    found = made_up()
    missing = replace(found, machine=replace(found.machine, power=Power(missing="there is no monitor")))
    assert [line for line in lines(missing) if "energy" in line] == ["energy: not measurable here: there is no monitor"]


def test_a_profile_that_is_older_than_energy_is_shown_as_it_was(made_up):
    values = msgspec.to_builtins(made_up())
    for name in ("board", "power", "temperatures_after"):
        del values["machine"][name]
    for run in values["runs"]:
        del run["energy_mj"]
    old = msgspec.convert(values, Profile)
    assert not [line for line in lines(old) if "energy" in line or "temperature" in line]


def test_too_few_rounds_are_shown_without_ratios(made_up):
    shown = list(lines(made_up(rounds=3)))
    assert any(line.split() == ["answer", "1", "10.00", "0.000"] for line in shown)
    assert any(line.endswith("unclear") for line in shown)
