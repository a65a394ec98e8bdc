"""Trees as boards show them: every file name and unit is the kernel's, the numbers are made up."""

import time
from pathlib import Path

import pytest

from mmedge.profiling.machine.power import FEWEST, INTERVAL_S, Meter, rails, zones

INA = "sys/bus/i2c/drivers"


def channels(folder: str, *rails: tuple[str, int, int]) -> dict[str, str]:
    """A chip of hwmon's `ina3221`: label, millivolts and milliamperes by channel, and the sum that is no rail."""
    files = {f"{folder}/name": "ina3221", f"{folder}/in7_label": "sum of shunt voltages", f"{folder}/in7_input": "310"}
    for number, (label, millivolts, milliamperes) in enumerate(rails, 1):
        files[f"{folder}/in{number}_label"] = label
        files[f"{folder}/in{number}_input"] = str(millivolts)
        files[f"{folder}/curr{number}_input"] = str(milliamperes)
    return files


NOT_CONNECTED = ("NC", 0, 0)
BOARDS = {
    "Orin Nano": channels(
        f"{INA}/ina3221/1-0040/hwmon/hwmon1",
        ("VDD_IN", 5_000, 1_000),
        ("VDD_CPU_GPU_CV", 5_000, 200),
        ("VDD_SOC", 5_000, 300),
    ),
    "AGX Orin": channels(
        f"{INA}/ina3221/1-0040/hwmon/hwmon3",
        ("VDD_GPU_SOC", 20_000, 150),
        ("VDD_CPU_CV", 20_000, 50),
        ("VIN_SYS_5V0", 5_000, 900),
    )
    | channels(f"{INA}/ina3221/1-0041/hwmon/hwmon4", NOT_CONNECTED, ("VDDQ_VDD2_1V8AO", 5_000, 200), NOT_CONNECTED),
    "Thor": channels(
        f"{INA}/ina3221/2-0040/hwmon/hwmon5",
        ("VDD_GPU", 20_000, 300),
        ("VDD_CPU_SOC_MSS", 20_000, 200),
        ("VIN_SYS_5V0", 5_000, 1_300),
    )
    | {
        f"{INA}/ina238/2-0044/hwmon/hwmon6/name": "ina238",
        f"{INA}/ina238/2-0044/hwmon/hwmon6/label": "VIN",
        f"{INA}/ina238/2-0044/hwmon/hwmon6/power1_input": "23000000",
        f"{INA}/ina238/2-0044/hwmon/hwmon6/in1_input": "20000",
    },
    "Nano with JetPack 4": {
        f"{INA}/ina3221x/6-0040/iio:device0/rail_name_{number}": name
        for number, name in enumerate(("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"))
    }
    | {f"{INA}/ina3221x/6-0040/iio:device0/in_power{number}_input": str(1000 + number) for number in range(3)},
    "Raspberry Pi": {"sys/class/hwmon/hwmon0/name": "cpu_thermal", "sys/class/hwmon/hwmon1/name": "rpi_volt"},
    "PC": {f"{INA}/spd5118/0-0051/hwmon/hwmon2/name": "spd5118"},
}


def make(root: Path, board: str) -> Path:
    for name, content in BOARDS[board].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


@pytest.mark.parametrize(
    ("board", "whole", "milliwatts"),
    [
        ("Orin Nano", "VDD_IN", {"VDD_IN": 5000, "VDD_CPU_GPU_CV": 1000, "VDD_SOC": 1500}),
        ("AGX Orin", "", {"VDD_GPU_SOC": 3000, "VDD_CPU_CV": 1000, "VIN_SYS_5V0": 4500, "VDDQ_VDD2_1V8AO": 1000}),
        ("Thor", "VIN", {"VIN": 23000, "VDD_GPU": 6000, "VDD_CPU_SOC_MSS": 4000, "VIN_SYS_5V0": 6500}),
        ("Nano with JetPack 4", "POM_5V_IN", {"POM_5V_IN": 1000, "POM_5V_GPU": 1001, "POM_5V_CPU": 1002}),
        ("Raspberry Pi", "", {}),
        ("PC", "", {}),
    ],
)
def test_rails_are_found_with_their_power(board, whole, milliwatts, tmp_path):
    root = make(tmp_path, board)
    assert {rail.name: rail.read() for rail in rails(root)} == pytest.approx(milliwatts)
    energy = Meter(root).energy
    assert (set(energy.rails), energy.whole) == (set(milliwatts), whole)
    assert energy.method == ("INA3221" if milliwatts else None)
    assert bool(energy.reason) is not bool(milliwatts)


def test_a_machine_without_monitors_says_so(tmp_path):
    energy = Meter(make(tmp_path, "Raspberry Pi")).energy
    assert energy.reason == "this machine has no power monitor that the kernel knows (INA3221, INA238 or RAPL)"
    assert (energy.method, energy.rails, energy.idle_w) == (None, (), {})


def test_a_monitor_that_does_not_answer_is_told_apart_from_none(tmp_path):
    root = make(tmp_path, "Orin Nano")
    for file in root.rglob("curr*_input"):
        file.write_text("")
    assert Meter(root).energy.reason.startswith("the power monitor 1-0040 answers nothing")


def test_energy_is_the_area_under_the_readings(tmp_path):
    rail = rails(make(tmp_path, "Orin Nano"))[0]
    assert rail.energy_mj([(0.0, 1000.0), (1.0, 3000.0), (1.5, 3000.0)]) == pytest.approx(2000 + 1500)
    assert rail.energy_mj([(0.0, 1000.0)]) is None


def ticks(*moments: float):
    return iter(moments).__next__


def test_a_window_has_the_energy_of_every_rail_between_its_ends(tmp_path):
    """Two readings of three rails, at its ends; the thread takes none, the window being shorter than the interval."""
    clock = ticks(0.0, 0.0, 0.0, 0.5, 0.5, 0.5)
    with Meter(make(tmp_path, "Orin Nano"), interval_s=60, clock=clock).window() as window:
        pass
    assert window.energy_mj == pytest.approx({"VDD_IN": 2500, "VDD_CPU_GPU_CV": 500, "VDD_SOC": 750})
    assert window.seconds == 0.5


@pytest.mark.parametrize(("board", "shortest"), [("Orin Nano", FEWEST * INTERVAL_S), ("desktop", FEWEST / 1e3)])
def test_a_window_of_too_few_readings_tells_no_energy_but_its_length(board, shortest, tmp_path):
    for seconds, told in ((0.9 * shortest, False), (1.1 * shortest, True)):
        root = make(tmp_path, board)
        moments = iter([0.0] * len(Meter(root).energy.rails) + [seconds] * 9)
        with Meter(root, interval_s=60, clock=moments.__next__).window() as window:
            for counter in root.rglob("energy_uj"):
                counter.write_text("950000\n")
        assert window.seconds == seconds and bool(window.energy_mj) is told


def test_power_that_changes_meanwhile_is_seen(tmp_path):
    root = make(tmp_path, "Orin Nano")
    current = root / f"{INA}/ina3221/1-0040/hwmon/hwmon1/curr1_input"
    with Meter(root, interval_s=0.001).window() as window:
        current.write_text("3000\n")
        deadline = time.monotonic() + 30
        while len(window.samples["VDD_IN"]) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
    powers = [power for _, power in window.samples["VDD_IN"]]
    assert (powers[0], powers[-1]) == (5000.0, 15000.0) and len(powers) > 5


def test_a_rail_that_falls_silent_leaves_the_others(tmp_path):
    root = make(tmp_path, "Orin Nano")
    with Meter(root, interval_s=60, clock=ticks(*3 * [0.0], *2 * [1.0])).window() as window:
        (root / f"{INA}/ina3221/1-0040/hwmon/hwmon1/curr3_input").unlink()
    assert set(window.energy_mj) == {"VDD_IN", "VDD_CPU_GPU_CV"}


def test_nothing_is_measured_and_no_thread_is_started_where_there_are_no_rails(tmp_path, monkeypatch):
    monkeypatch.setattr("threading.Thread", None)
    with Meter(make(tmp_path, "PC")).window() as window:
        pass
    assert window.energy_mj == {}


def zone(folder: str, name: str, microjoules: int | str, most: int = 1_000_000) -> dict[str, str]:
    path = f"sys/class/powercap/{folder}"
    told = {"name": name, "energy_uj": microjoules, "max_energy_range_uj": most}
    return {f"{path}/{file}": str(content) for file, content in told.items()}


DESKTOP = (
    zone("intel-rapl:0", "package-0", 900_000)
    | zone("intel-rapl:0:0", "core", 10)
    | {
        "sys/class/powercap/intel-rapl/enabled": "1",
        **zone("intel-rapl-mmio:0", "package-0", 900_000),
    }
)
BOARDS |= {
    "desktop": DESKTOP,
    "server": zone("intel-rapl:0", "package-0", 1)
    | zone("intel-rapl:0:0", "dram", 2)
    | zone("intel-rapl:1", "package-1", 3),
    "with memory": zone("intel-rapl:0", "package-0", 1) | zone("intel-rapl:0:0", "dram", 2),
    "laptop": DESKTOP | zone("intel-rapl:1", "psys", 5),
    "for root alone": zone("intel-rapl:0", "package-0", ""),
}


@pytest.mark.parametrize(
    ("board", "whole", "names"),
    [
        ("desktop", "package-0", {"package-0", "package-0/core"}),
        ("server", "", {"package-0", "package-0/dram", "package-1"}),
        ("with memory", "", {"package-0", "package-0/dram"}),
        ("laptop", "psys", {"package-0", "package-0/core", "psys"}),
    ],
)
def test_zones_of_processors_are_found(board, whole, names, tmp_path):
    energy = Meter(make(tmp_path, board)).energy
    assert (energy.method, energy.reason, energy.whole, set(energy.rails)) == ("RAPL", "", whole, names)


def test_counters_that_may_not_be_read_are_told(tmp_path):
    energy = Meter(make(tmp_path, "for root alone")).energy
    assert energy.method is None and "only root" in energy.reason and "chmod" in energy.reason


def test_a_counter_that_starts_again_goes_on(tmp_path):
    """It had 100,000 uJ to go, and has 150,000 since."""
    root = make(tmp_path, "desktop")
    with Meter(root, interval_s=60, clock=ticks(0.0, 0.0, 1.0, 1.0)).window() as window:
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("150000\n")
    assert window.energy_mj == {"package-0": 250.0}


def test_a_counter_that_stood_still_has_not_measured_nothing(tmp_path):
    with Meter(make(tmp_path, "desktop"), interval_s=60, clock=ticks(0.0, 0.0, 1.0, 1.0)).window() as window:
        pass
    assert window.energy_mj == {} and len(zones(tmp_path)) == 2


def test_idle_power_is_the_energy_of_a_stretch_of_time_by_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    clock = ticks(*3 * [0.0], *3 * [10.0])
    meter = Meter(make(tmp_path, "Orin Nano"), interval_s=60, clock=clock)
    before = meter.idle()
    assert before == {"VDD_IN": 5.0, "VDD_CPU_GPU_CV": 1.0, "VDD_SOC": 1.5}
    energy = meter.energy_with(before, {"VDD_IN": 6.0})
    assert energy.idle_w == {"VDD_IN": 5.5, "VDD_CPU_GPU_CV": 1.0, "VDD_SOC": 1.5}
    assert (energy.method, energy.whole) == ("INA3221", "VDD_IN")


def test_where_nothing_can_be_measured_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", None)
    meter = Meter(make(tmp_path, "PC"))
    assert meter.idle() == {} and meter.energy_with({}, {}) == meter.energy


def test_this_machine_can_be_asked():
    energy = Meter().energy
    assert bool(energy.rails) is (energy.method is not None) is not bool(energy.reason)
