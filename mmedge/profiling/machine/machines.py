"""Which machine measures: enough to know it again and to judge its numbers, nothing that says whose it is."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from mmedge.core.board import this_board
from mmedge.core.machine import usable_cores, usable_memory
from mmedge.profiling.machine.kernel_files import ROOT, amounts_of, number_of, text_of
from mmedge.profiling.run import Machine, Processor

_CPUS = "sys/devices/system/cpu"
_FLAGS = (
    *("sse4_2", "f16c", "fma", "avx", "avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme"),
)
"""Extensions for which engines have kernels of their own: x86-64's, then Arm's."""
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd42": "Cortex-A78AE",
    "0xd83": "Neoverse-V3AE",
}
"""By the part number in ``/proc/cpuinfo``, for the boards that are targets; Arm's own manuals list it as MIDR_EL1."""
_SPELLINGS = {"amd64": "x86_64", "arm64": "aarch64"}
_HYPERVISORS = {
    "QEMU": "QEMU",
    "KVM": "KVM",
    "VMware": "VMware",
    "VirtualBox": "VirtualBox",
    "innotek": "VirtualBox",
    "Xen": "Xen",
    "Microsoft": "Hyper-V",
    "Amazon EC2": "Amazon EC2",
    "Google": "Google Compute Engine",
    "Parallels": "Parallels",
}
"""By what the firmware tables of their machines say of vendor and product."""
_CLOCKS = {"kvm-clock": "KVM", "hyperv_clocksource": "Hyper-V", "xen": "Xen"}
"""By the clock that a kernel has only inside of them."""
_CONTAINERS = re.compile(r"docker|kubepods|libpod|lxc|containerd")


def machine_of(root: Path = ROOT) -> Machine:
    """The machine whose files are below ``root``."""
    processor, board = _processor(root), this_board(root)
    memory = amounts_of(text_of(root / "proc/meminfo"))
    return Machine(
        id=_identity(root, processor),
        name=board.model or processor.model,
        processor=processor,
        memory=usable_memory(root),
        swap=memory.get("SwapTotal", 0),
        kernel=text_of(root / "proc/sys/kernel/osrelease"),
        system=_system(root),
        container=_container(root),
        virtual=_virtual(root),
        on_battery=_on_battery(root),
        gpus=tuple(_gpus(root)),
        board=board if board.model or board.jetson else None,
    )


def _processor(root: Path) -> Processor:
    told = _cpuinfo(root)
    arch = text_of(root / "proc/sys/kernel/arch") or platform.machine().lower()
    have = {*told.get("flags", "").split(), *told.get("Features", "").split()}
    return Processor(
        model=told.get("model name") or _ARM_CORES.get(told.get("CPU part", ""), "") or arch,
        arch=_SPELLINGS.get(arch, arch),
        cores=usable_cores(root),
        smt=_smt(root),
        flags=tuple(flag for flag in _FLAGS if flag in have),
        governors=tuple(sorted({text_of(file) for file in (root / _CPUS).glob("cpufreq/policy*/scaling_governor")})),
        mhz=_clock_range(root),
    )


def _cpuinfo(root: Path) -> dict[str, str]:
    """Of the first processor."""
    first = text_of(root / "proc/cpuinfo").partition("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _smt(root: Path) -> bool | None:
    if active := text_of(root / _CPUS / "smt/active"):
        return active == "1"
    siblings = [text_of(file) for file in (root / _CPUS).glob("cpu[0-9]*/topology/thread_siblings_list")]
    return any(re.search("[,-]", cpus) for cpus in siblings) if siblings else None


def _clock_range(root: Path) -> tuple[float, float] | None:
    policies = (root / _CPUS / "cpufreq").glob("policy*")
    both = [[number_of(policy / f"cpuinfo_{end}_freq") for end in ("min", "max")] for policy in policies]
    ranges = [(low / 1e3, high / 1e3) for low, high in both if low is not None and high is not None]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def _identity(root: Path, processor: Processor) -> str:
    """A digest that tells machines apart; nothing can be read from it. Empty in a container without a number of its
    own: others of the kind would have the same."""
    number = text_of(root / "etc/machine-id") or text_of(root / "proc/device-tree/serial-number")
    if not number:
        return ""
    told = "\n".join(("mmedge", number, processor.model, processor.arch))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _system(root: Path) -> str:
    named = re.search(r'^PRETTY_NAME="?([^"\n]*)', text_of(root / "etc/os-release"), re.MULTILINE)
    return named[1] if named else "Linux"


def _container(root: Path) -> str:
    for file, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / file).exists():
            return name
    group = _CONTAINERS.search(text_of(root / "proc/1/cgroup"))
    return text_of(root / "run/systemd/container") or (group[0] if group else "")


def _virtual(root: Path) -> str:
    """From the firmware's tables, or what the kernel found itself in."""
    tables = " ".join(text_of(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    clocks = text_of(root / "sys/devices/system/clocksource/clocksource0/available_clocksource").split()
    kinds = [name for words, name in _HYPERVISORS.items() if words in tables]
    kinds += [text_of(root / "sys/hypervisor/type"), *(_CLOCKS[clock] for clock in clocks if clock in _CLOCKS)]
    kinds += [text_of(root / "proc/device-tree/hypervisor/compatible")]
    flagged = "hypervisor" in _cpuinfo(root).get("flags", "").split()
    if not flagged and tables.strip() and _cpuinfo(root).get("flags"):
        return ""  # Microsoft also makes laptops: on x86-64 the processor says whether it is a real one
    return next(filter(None, kinds), "unknown" if flagged else "")


def _on_battery(root: Path) -> bool:
    """A battery that empties; a laptop on mains reports it as full or charging."""
    return any(text_of(file) == "Discharging" for file in (root / "sys/class/power_supply").glob("*/status"))


def _gpus(root: Path) -> Iterator[str]:
    """Names where a driver tells them without being started, else the driver with the PCI numbers."""
    for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        if named := re.search(r"^Model:\s*(.+)$", text_of(file), re.MULTILINE):
            yield named[1].strip()
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        driver = re.search(r"^DRIVER=(.+)$", text_of(card / "device/uevent"), re.MULTILINE)
        if "-" in card.name or not driver or driver[1] == "nvidia":
            continue
        vendor, device = (text_of(card / "device" / name).removeprefix("0x") for name in ("vendor", "device"))
        yield f"{driver[1]} {vendor}:{device}" if vendor else driver[1]
