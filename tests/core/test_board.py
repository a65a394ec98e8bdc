"""What a Jetson says of itself, from recorded files."""

from pathlib import Path

import pytest

from mmedge.core.board import Clock, is_jetson, jetpack, l4t, power_modes, queried_power_mode, this_board

RELEASE = "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18 2025\n"
MODES = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def orin(tmp_path) -> Path:
    cpu, gpu = "sys/devices/system/cpu/cpufreq/policy0", "sys/class/devfreq/17000000.gpu"
    files = {
        "etc/nv_tegra_release": RELEASE,
        "etc/nvpmodel.conf": MODES,
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        f"{cpu}/scaling_cur_freq": "1728000",
        f"{cpu}/scaling_min_freq": "1728000",
        f"{cpu}/scaling_max_freq": "1728000",
        f"{cpu}/cpuinfo_max_freq": "1728000",
        f"{gpu}/cur_freq": "306000000",
        f"{gpu}/min_freq": "306000000",
        f"{gpu}/max_freq": "1020000000",
        f"{gpu}/available_frequencies": "306000000 1020000000",
        "sys/class/devfreq/1d40000.dla/cur_freq": "1",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": "48718",
        "sys/class/thermal/thermal_zone1/type": "cv0-thermal",
        "sys/class/thermal/thermal_zone1/temp": "-256000",
    }
    return write(tmp_path, files)


def test_a_jetson_tells_everything(orin):
    board = this_board(orin)
    assert (board.model, board.l4t) == ("NVIDIA Jetson Orin Nano Developer Kit", "36.4.7")
    assert (board.jetpack, board.power_mode) == ("6.2.1", "MAXN_SUPER")
    assert board.clocks == (
        Clock("cpu0", 1728.0, 1728.0, 1728.0, 1728.0),
        Clock("gpu 17000000.gpu", 306.0, 306.0, 1020.0, 1020.0),
    )


def test_clocks_are_fixed_when_every_one_is(orin):
    assert not this_board(orin).clocks_fixed
    write(orin, {"sys/class/devfreq/17000000.gpu/min_freq": "1020000000"})
    assert this_board(orin).clocks_fixed


def test_a_zone_that_is_powered_down_has_no_temperature(orin):
    assert this_board(orin).temperatures == {"cpu-thermal": 48.718}


def test_another_machine_is_a_board_without_a_name(tmp_path):
    board = this_board(tmp_path)
    assert (board.model, board.l4t, board.jetpack, board.power_mode) == ("", "", "", "")
    assert board.clocks == () and not board.clocks_fixed and board.temperatures == {}


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 5.0, GCID: 1", "36.5.0"),
        ("# R39 (release), REVISION: 1, GCID: 1", "39.1"),
        ("# R38 (release), REVISION: 4.0, GCID: 1", "38.4.0"),
        ("Ubuntu", ""),
    ],
)
def test_the_release_is_read_from_its_first_line(text, release, tmp_path):
    assert l4t(write(tmp_path, {"etc/nv_tegra_release": text})) == release


@pytest.mark.parametrize(
    ("release", "name"),
    [("36.4.3", "6.2"), ("38.2.1", "7.0"), ("39.2.0", "7.2"), ("36.9.9", "6"), ("50.1", ""), ("", "")],
)
def test_a_release_belongs_to_a_jetpack(release, name):
    assert jetpack(release) == name


def test_a_mode_without_a_name_keeps_its_number(orin):
    (orin / "etc/nvpmodel.conf").unlink()
    assert this_board(orin).power_mode == "2"


def test_modes_are_listed_with_the_number_that_sets_them(orin):
    assert power_modes(orin) == {"15W": "0", "25W": "1", "MAXN_SUPER": "2"}


@pytest.mark.parametrize(
    ("output", "mode"),
    [("NV Fan Mode:quiet\nNV Power Mode: MODE_15W\n2\n", "MODE_15W"), ("NV Power Mode: 25W\n1\n", "25W"), ("", "")],
)
def test_the_answer_of_nvpmodel_is_read(output, mode):
    assert queried_power_mode(output) == mode


@pytest.mark.parametrize(
    "files",
    [
        {"etc/nv_tegra_release": RELEASE},
        {"proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"},
        {"proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0"},
        {"sys/devices/soc0/family": "Tegra\n"},
    ],
)
def test_one_sign_of_a_jetson_is_enough(files, tmp_path):
    assert is_jetson(write(tmp_path, files)) and this_board(tmp_path).jetson


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"},
        {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0", "sys/devices/soc0/family": "Snapdragon\n"},
    ],
)
def test_another_machine_is_no_jetson(files, tmp_path):
    assert not is_jetson(write(tmp_path, files)) and not this_board(tmp_path).jetson
