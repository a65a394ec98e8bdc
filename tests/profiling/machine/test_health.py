"""Rounds on machines that are written as files: every name and unit is the kernel's, the numbers are made up."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from mmedge.profiling.machine.health import Health
from mmedge.profiling.machine.machines import machine_of

PAGE = os.sysconf("SC_PAGE_SIZE")


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def round_after(root: Path, before: dict[str, object], after: dict[str, object], pids=()):
    health = Health(write(root, before), pids)
    write(root, after)
    return health.round(3, 77, pids)


def test_what_a_machine_does_not_tell_is_null(tmp_path):
    host = Health(tmp_path).round(0, 5, [4711])
    told = msgspec.to_builtins(host)
    assert (told.pop("round"), told.pop("t_ns"), told.pop("pressure")) == (0, 5, {})
    assert set(told.values()) == {None}


def test_steal_is_a_share_of_all_time_that_passed(tmp_path):
    host = round_after(
        tmp_path,
        {"proc/stat": "cpu  100 0 50 1000 5 0 1 10 40 0\ncpu0 1 2 3 4 5 6 7 8 9 10"},
        {"proc/stat": "cpu  160 0 60 1010 5 0 1 30 90 0\ncpu0 1 2 3 4 5 6 7 8 9 10"},
    )
    assert host.steal == pytest.approx(20 / 100)


def test_a_round_too_short_for_a_tick_tells_nothing_of_steal(tmp_path):
    assert round_after(tmp_path, {"proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10"}, {}).steal is None


def waits(**microseconds: int) -> dict[str, object]:
    some = "some avg10=88.00 avg60=9.00 avg300=0.00 total={0}\nfull avg10=77.00 avg60=0.00 avg300=0.00 total=1"
    return {f"proc/pressure/{name}": some.format(total) for name, total in microseconds.items()}


def test_pressure_is_the_share_of_the_round_in_which_some_waited(tmp_path):
    """What candidates waited for while they were opened is in the averages of the kernel, and in no round."""
    moments = iter((0, 10_000_000_000, 12_000_000_000))
    health = Health(write(tmp_path, waits(cpu=100, io=7, memory=0)), clock=moments.__next__)
    write(tmp_path, waits(cpu=9_000_100, io=7, memory=0))
    health.begin()
    write(tmp_path, waits(cpu=9_500_100, io=7, memory=3_000_000))
    assert health.round(0, 0).pressure == {"cpu": 25.0, "io": 0.0, "memory": 100.0}


def test_a_kernel_that_tells_no_total_tells_an_average(tmp_path):
    files = {"proc/pressure/cpu": "some avg10=2.50 avg60=9.00 avg300=0.00"}
    assert round_after(tmp_path, files, {}).pressure == {"cpu": 2.5}


def test_swapping_is_bytes_in_both_directions_since_the_last_round(tmp_path):
    health = Health(write(tmp_path, {"proc/vmstat": "nr_free_pages 1\npswpin 10\npswpout 20"}))
    write(tmp_path, {"proc/vmstat": "nr_free_pages 1\npswpin 11\npswpout 23"})
    assert [health.round(index, 0).swapped for index in range(2)] == [4 * PAGE, 0]


def test_the_hottest_zone_counts_and_one_that_is_off_does_not(tmp_path):
    zones = {f"sys/class/thermal/thermal_zone{n}/temp": value for n, value in enumerate((45500, 61250, -256000))}
    assert round_after(tmp_path, zones, {}).celsius == 61.25


def test_where_there_are_no_zones_the_sensors_of_the_processor_count(tmp_path):
    files = {
        "sys/class/hwmon/hwmon0/name": "nvme",
        "sys/class/hwmon/hwmon0/temp1_input": 90_000,
        "sys/class/hwmon/hwmon1/name": "k10temp",
        "sys/class/hwmon/hwmon1/temp1_input": 52_375,
    }
    assert round_after(tmp_path, files, {}).celsius == 52.375


def test_the_clock_is_the_mean_of_the_policies(tmp_path):
    files = {f"sys/devices/system/cpu/cpufreq/policy{n}/scaling_cur_freq": khz for n, khz in enumerate((1e6, 2e6))}
    assert round_after(tmp_path, {name: int(khz) for name, khz in files.items()}, {}).mhz == 1500.0


def test_a_machine_with_hundreds_of_cores_is_read_in_part(tmp_path):
    policy = "sys/devices/system/cpu/cpufreq/policy{:03}/scaling_cur_freq"
    write(tmp_path, {policy.format(cpu): 1_000_000 + 1000 * (cpu < 150) for cpu in range(300)})
    opened = len(os.listdir("/proc/self/fd"))
    health = Health(tmp_path)
    assert len(os.listdir("/proc/self/fd")) - opened <= 64
    assert health.round(0, 0).mhz == pytest.approx(1000.5, abs=0.1)
    del health
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_virtual_machine_tells_its_clock_elsewhere(tmp_path):
    host = round_after(tmp_path, {"proc/cpuinfo": "processor : 0\ncpu MHz\t\t: 2600.5\n\ncpu MHz\t\t: 2600.7"}, {})
    assert host.mhz == 2600.6


V1 = {
    "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/job",
    "sys/fs/cgroup/cpu/cgroup.procs": "",
    "sys/fs/cgroup/cpu/job/cgroup.procs": "",
}
V2 = {"proc/self/cgroup": "0::/user/job", "sys/fs/cgroup/user/cgroup.procs": "", "sys/fs/cgroup/cgroup.procs": ""}
HEAT = "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
COOLER = "sys/class/thermal/cooling_device0"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
CASES = {
    "quota, version 1": (V1, "sys/fs/cgroup/cpu/job/cpu.stat", "nr_periods 9\nnr_throttled 1", "nr_throttled 2", True),
    "quota, version 2": (V2, "sys/fs/cgroup/user/cpu.stat", "usage_usec 5\nnr_throttled 0", "nr_throttled 4", True),
    "a quota alone says nothing of heat": (V2, "sys/fs/cgroup/user/cpu.stat", "nr_throttled 4", "nr_throttled 4", None),
    "Intel's counter": ({}, HEAT, "7", "8", True),
    "Intel's counter at rest": ({}, HEAT, "7", "7", False),
    "Jetson's events": ({}, "sys/class/hwmon/hwmon2/oc1_event_cnt", "0", "1", True),
    "a Jetson's cooling": ({f"{COOLER}/type": "gpu-throttle-alert"}, f"{COOLER}/cur_state", "0", "1", True),
    "slower clocks": ({f"{COOLER}/type": "cpufreq-cpu0"}, f"{COOLER}/cur_state", "0", "2", True),
    "cool": ({f"{COOLER}/type": "cpufreq-cpu0"}, f"{COOLER}/cur_state", "0", "0", False),
    "a fan": ({f"{COOLER}/type": "pwm-fan"}, f"{COOLER}/cur_state", "0", "3", None),
    "Raspberry Pi now": ({}, FIRMWARE, "0", "50004", True),
    "Raspberry Pi meanwhile": ({}, FIRMWARE, "0", "40000", True),
    "Raspberry Pi long ago": ({}, FIRMWARE, "50000", "50000", False),
    "Raspberry Pi 5": ({}, FIRMWARE.replace("/soc/soc:", "/soc@107c000000/soc@107c000000:"), "0", "8", True),
}


@pytest.mark.parametrize("case", CASES)
def test_throttling_is_told_by_whoever_knows_of_it(case, tmp_path):
    files, name, before, after, throttled = CASES[case]
    assert round_after(tmp_path, files | {name: before}, {name: after}).throttled is throttled


def worker(pid: int, faults: int, **switches: int) -> dict[str, object]:
    threads = {
        f"proc/{pid}/task/{name[1:]}/status": f"Name:\tpython\nnonvoluntary_ctxt_switches:\t{count}\nFeatures:\tx"
        for name, count in switches.items()
    }
    return {f"proc/{pid}/stat": f"{pid} (a (b) c) S 1 1 1 0 -1 4194304 500 0 {faults} 0 3 4", **threads}


def test_faults_and_switches_are_those_of_the_workers_since_the_last_round(tmp_path):
    before = worker(7, 3, t7=10, t8=5) | worker(9, 0, t9=1)
    after = worker(7, 5, t7=12, t8=5, t10=1) | worker(9, 1, t9=2)
    host = round_after(tmp_path, before, after, [7, 9])
    assert (host.major_faults, host.switches) == (3, 4)


def test_a_worker_that_is_new_counts_from_the_next_round_on(tmp_path):
    health = Health(tmp_path)
    write(tmp_path, worker(7, 300, t7=1000))
    first = health.round(0, 0, [7])
    write(tmp_path, worker(7, 301, t7=1002))
    second = health.round(1, 1, [7])
    assert (first.major_faults, first.switches) == (None, None)
    assert (second.major_faults, second.switches) == (1, 2)


def test_what_lies_before_the_first_round_of_a_group_is_in_none(tmp_path):
    health = Health(write(tmp_path, {"proc/vmstat": "pswpin 0\npswpout 0"}))
    write(tmp_path, worker(7, 300, t7=1000) | {"proc/vmstat": "pswpin 50\npswpout 0"})
    health.begin([7])
    write(tmp_path, worker(7, 301, t7=1002))
    host = health.round(0, 0, [7])
    assert (host.swapped, host.major_faults, host.switches) == (0, 1, 2)


def test_a_worker_that_has_ended_is_left_out(tmp_path):
    write(tmp_path, worker(7, 1, t7=1) | worker(9, 1, t9=1))
    health = Health(tmp_path, [7, 9])
    for file in (tmp_path / "proc/9").rglob("*"):
        if file.is_file():
            file.unlink()
    assert health.round(0, 0, [7, 9]).switches == 0


def test_this_machine_can_be_asked():
    health = Health(pids=[os.getpid()])
    time.sleep(0.02)
    host = health.round(0, 1, [os.getpid()])
    assert host.major_faults is not None and host.switches is not None
    assert host.steal is None or 0 <= host.steal <= 1


def machine(root: Path, *files: dict[str, object]):
    for each in ({"proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal: 1000 kB"}, *files):
        write(root, each)
    return machine_of(root)


def cpu(number: int, siblings: str) -> dict[str, object]:
    return {f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": siblings}


LAPTOP = {
    "proc/cpuinfo": "processor: 0\nmodel name\t: Intel(R) Core(TM) Ultra 7\nflags\t\t: fpu avx2 avx_vnni fma",
    "proc/sys/kernel/osrelease": "6.12.1",
    "proc/sys/kernel/arch": "x86_64",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"',
    "etc/machine-id": "0123456789abcdef0123456789abcdef",
    "sys/class/dmi/id/sys_vendor": "Microsoft Corporation",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_min_freq": 400_000,
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": 4_800_000,
    "sys/class/drm/card1/device/uevent": "DRIVER=xe\nPCI_ID=8086:7D55",
    "sys/class/drm/card1/device/vendor": "0x8086",
    "sys/class/drm/card1/device/device": "0x7d55",
    "sys/class/drm/card1-DP-1/device/uevent": "DRIVER=xe",
    **cpu(0, "0-1"),
    **cpu(1, "0-1"),
}


def test_a_laptop_is_described(tmp_path):
    found = machine(tmp_path, LAPTOP)
    assert found.processor.flags == ("fma", "avx2", "avx_vnni")
    assert (found.processor.smt, found.processor.governors, found.processor.mhz) == (True, ("powersave",), (400, 4800))
    assert (found.virtual, found.container, found.on_battery, found.gpus) == ("", "", True, ("xe 8086:7d55",))
    assert (found.memory, found.swap, found.kernel) == (8_000_000 << 10, 1000 << 10, "6.12.1")
    assert found.system == "Debian GNU/Linux 13 (trixie)" and found.board is None


def test_a_jetson_is_named_by_its_board(tmp_path):
    found = machine(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp asimdhp\nCPU part\t: 0xd42",
            "proc/sys/kernel/arch": "aarch64",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
            "sys/class/power_supply/usb/status": "Full",
        },
    )
    assert found.board and found.name == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (found.processor.model, found.processor.arch) == ("Cortex-A78AE", "aarch64")
    assert found.processor.flags == ("asimd", "asimdhp", "asimddp")
    assert (found.virtual, found.on_battery) == ("", False)


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({"sys/class/dmi/id/sys_vendor": "QEMU"}, "QEMU"),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "Amazon EC2"),
        ({"sys/class/dmi/id/sys_vendor": "Microsoft Corporation"}, "Hyper-V"),
        ({"sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc kvm-clock acpi_pm"}, "KVM"),
        ({"sys/hypervisor/type": "xen"}, "xen"),
        ({}, "unknown"),
    ],
)
def test_a_virtual_machine_is_known(files, virtual, tmp_path):
    flags = {"proc/cpuinfo": "model name: x\nflags : avx2 hypervisor"}
    assert machine(tmp_path, flags, files).virtual == virtual


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"run/systemd/container": "lxc"}, "lxc"),
        ({"proc/1/cgroup": "0::/kubepods/burstable/pod1"}, "kubepods"),
        ({"proc/1/cgroup": "0::/init.scope"}, ""),
    ],
)
def test_a_container_is_known(files, container, tmp_path):
    assert machine(tmp_path, files).container == container


def test_the_identity_is_the_machines_and_tells_nothing_else(tmp_path):
    first = machine(tmp_path / "first", LAPTOP)
    busy = {"sys/class/power_supply/BAT0/status": "Charging", "proc/sys/kernel/osrelease": "6.13"}
    again = machine(tmp_path / "again", LAPTOP, busy)
    other = machine(tmp_path / "other", LAPTOP, {"etc/machine-id": "f" * 32})
    assert first.id == again.id != other.id
    assert len(first.id) == 16 and "0123456789abcdef" not in msgspec.json.encode(first).decode()


def test_a_machine_that_nothing_identifies_has_no_identity(tmp_path):
    assert machine(tmp_path, {"proc/cpuinfo": "model name: x", ".dockerenv": ""}).id == ""


def test_this_machine_has_a_name_and_memory():
    found = machine_of()
    assert found.name and found.processor.cores >= 1 and found.memory > 1 << 28 and found.kernel
