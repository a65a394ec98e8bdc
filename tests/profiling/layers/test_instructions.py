"""Counters that are small programs in PATH, and one that is real."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from mmedge.errors import BackendError
from mmedge.profiling.layers.instructions import count

INPUTS = [("/one.png", None), ("/two.png", "what is it?")]


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Puts programs where they are looked for, and nothing else there."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(**programs: str) -> None:
        for name, script in programs.items():
            file = tmp_path / name
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

    return install


# 1000 instructions to start, and 7 for each of the two pictures and repeats; the repeats are the argument before them.
WORK = 'while [ "$1" != /bundle ]; do shift; done; n=$((1000 + 7 * 2 * $2))'


def test_a_picture_is_what_twice_the_repeats_take_more(tools):
    tools(perf=f'{WORK}; echo "$n,,instructions:u,100,100.00,," >&2')
    found = count(Path("/bundle"), INPUTS)
    assert (found.per_input, found.method, found.reason) == (7.0, "perf stat", "")


@pytest.mark.parametrize(
    "perf",
    [
        'echo "<not supported>,,instructions:u,0,100.00,," >&2',
        'echo "<not counted>,,instructions:u,0,100.00,," >&2',
        'echo "Error: Access to performance monitoring ... perf_event_paranoid ..." >&2; exit 255',
    ],
)
def test_an_emulator_counts_where_the_processor_may_not(perf, tools):
    tools(perf=perf, valgrind=f'{WORK}; echo "==1== Collected : $n" >&2')
    found = count(Path("/bundle"), INPUTS)
    assert (found.per_input, found.method) == (7.0, "valgrind")


def test_without_both_it_is_null_with_the_reason(tools):
    tools(perf='echo "<not supported>,,instructions:u,0,100.00,," >&2')
    found = count(Path("/bundle"), INPUTS)
    assert (found.per_input, found.method) == (None, None)
    assert found.reason == "perf stat: this machine counts no instructions; valgrind: `valgrind` is not installed"


def test_work_that_fails_is_an_error_and_no_count(tools):
    tools(perf='echo "error: something is wrong" >&2; exit 3')
    with pytest.raises(BackendError, match="counting instructions of `perf` failed: error: something is wrong"):
        count(Path("/bundle"), INPUTS)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("valgrind") or os.access("/usr/bin/perf", os.X_OK)), reason="no counter")
def test_real_instructions_grow_with_the_picture(tiny_checkpoint, tmp_path):
    from PIL import Image

    from mmedge.export.build import export

    sizes = {"small": 64, "large": 512}
    for name, side in sizes.items():
        Image.effect_noise((side, side), 60).convert("RGB").save(tmp_path / f"{name}.png")
    bundle = tmp_path / "tiny.bundle"
    export(str(tiny_checkpoint(0, tmp_path / "checkpoint")), output=bundle, precision="float32")
    small, large = (count(bundle, [(str(tmp_path / f"{name}.png"), None)], 1) for name in sizes)
    assert small.per_input and large.per_input > 5 * small.per_input
