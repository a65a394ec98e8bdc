"""Files of five machines, written after their documentation and reports of users; none was recorded on a device."""

from __future__ import annotations

from pathlib import Path

_MODULE = "usr/lib/python{}/dist-packages/tensorrt/__init__.py"
_LIBRARY = "usr/lib/aarch64-linux-gnu/libnvinfer.so"


def _memory(total_mb: int, free_mb: int, swap_mb: int) -> str:
    return (
        f"MemTotal:       {total_mb * 1024} kB\nMemFree:          {free_mb * 512} kB\n"
        f"MemAvailable:    {free_mb * 1024} kB\nSwapTotal:       {swap_mb * 1024} kB\nHugePages_Total:       0\n"
    )


def _clock(folder: str, now: int, lowest: int, highest: int, names: str) -> dict[str, str]:
    files = {names.format("cur"): now, names.format("min"): lowest, names.format("max"): highest}
    return {f"{folder}/{name}": f"{value}\n" for name, value in files.items()}


def _cpu(policy: int, now: int, lowest: int, highest: int) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpufreq/policy{policy}"
    return _clock(folder, now, lowest, highest, "scaling_{}_freq") | {f"{folder}/cpuinfo_max_freq": f"{highest}\n"}


def _zones(**temperatures: int) -> dict[str, str]:
    folder = "sys/class/thermal/thermal_zone{}"
    files = {}
    for number, (name, value) in enumerate(temperatures.items()):
        files[f"{folder.format(number)}/type"] = f"{name.replace('_', '-')}\n"
        files[f"{folder.format(number)}/temp"] = f"{value}\n"
    return files


ORIN_NANO = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: x\n",
    "etc/nvpmodel.conf": (
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n"
    ),
    "var/lib/nvpmodel/status": "pmode:0001",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/meminfo": _memory(7620, 5100, 3810),
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    f"{_LIBRARY}.10": "",
    f"{_LIBRARY}.10.3.0": "",
    _MODULE.format("3.10"): "",
    "usr/bin/python3.10": "",
    "usr/src/tensorrt/bin/trtexec": "",
    **_cpu(0, 729600, 729600, 1728000),
    **_clock("sys/class/devfreq/17000000.gpu", 306000000, 306000000, 1020000000, "{}_freq"),
    **_zones(cpu_thermal=48718, gpu_thermal=49281, cv0_thermal=-256000),
}

ORIN_7_2 = {
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: x\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=50W >\n",
    "var/lib/nvpmodel/status": "pmode:0000",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/meminfo": _memory(62841, 55000, 31420),
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.2.1"}}',
    f"{_LIBRARY}.10.16.2": "",
    _MODULE.format("3"): "",
    "usr/bin/python3.12": "",
    "usr/bin/python3.12-config": "",
    **_cpu(0, 2201600, 2201600, 2201600),
    **_clock("sys/class/devfreq/17000000.gpu", 1300500000, 1300500000, 1300500000, "{}_freq"),
    **_zones(cpu_thermal=84031),
}

THOR_7_1 = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: x\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/meminfo": _memory(125772, 120000, 0),
    "usr/bin/python3.12": "",
    **_clock("sys/class/devfreq/gpu-gpc-0", 315000000, 315000000, 1575000000, "{}_freq"),
}

RASPBERRY_PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": _memory(8063, 7000, 199),
    **_cpu(0, 1500000, 1500000, 2400000),
    **_zones(cpu_thermal=51250),
}

PC = {"proc/meminfo": _memory(32000, 20000, 2047), **_cpu(0, 2900000, 800000, 4900000)}


def write(files: dict[str, str], root: Path) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
