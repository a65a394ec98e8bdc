"""What may disturb a machine in a round, and in which rounds it did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np

from mmedge.profiling.run import Host, Sample, Sentinel

STEAL = 0.01
"""Share of the processors' time that another virtual machine may take."""
PRESSURE = 5.0
"""Percentage of the time that something may wait for a resource."""
DEVIATION = 0.1
"""Share by which the sentinel may be off its median; in `OFTEN` of the rounds it may be more."""
OFTEN = 0.05
"""Share of the rounds. A processor that is throttled in more of them decides nothing: candidates that answer while it
is hot are compared with those that answer while it cools."""

KINDS = {
    "throttled": ("the processor was throttled", "cool it, or allow it more power"),
    "swapped": ("memory was swapped", "free some memory"),
    "steal": (f"another virtual machine took more than {STEAL:.0%} of the processors", "use a machine of your own"),
    "pressure": ("processes waited for the processor, memory or disk", "close other programs"),
    "sentinel": (f"a fixed computation was more than {DEVIATION:.0%} off its usual time", "close other programs"),
}
"""By flag: what to say of it, and what to do about it. Those that hurt most come first."""


def flagged_rounds(host: Collection[Host], sentinel: Collection[Sentinel]) -> dict[int, tuple[str, ...]]:
    """The rounds in which something disturbed the machine, and what."""
    usual = float(np.median([each.ns for each in sentinel])) if sentinel else 0.0
    found: dict[int, list[str]] = defaultdict(list)
    for each in sentinel:
        if abs(each.ns - usual) > DEVIATION * usual:
            found[each.round].append("sentinel")
    for state in host:
        found[state.round] += _disturbances(state)
    return {number: tuple(dict.fromkeys(flags)) for number, flags in found.items() if flags}


def throttled_rounds(samples: Collection[Sample]) -> tuple[int, int]:
    """How many of how many, by the flags of their answers."""
    rounds = [sample for sample in samples if sample.phase == "round"]
    return len({sample.round for sample in rounds if "throttled" in sample.flags}), len({s.round for s in rounds})


def decides_nothing(samples: Collection[Sample]) -> bool:
    """Whether the processor was throttled too often."""
    throttled, of = throttled_rounds(samples)
    return throttled > OFTEN * of


def _disturbances(host: Host) -> list[str]:
    present = {
        "steal": (host.steal or 0.0) > STEAL,
        "pressure": any(share > PRESSURE for share in host.pressure.values()),
        "throttled": bool(host.throttled),
        "swapped": bool(host.swapped),
    }
    return [name for name, true in present.items() if true]
